"""A Route as Kubernetes reads it: a Service's selector, or the backends of an HTTPRoute or an Istio VirtualService.

The Route itself stands in an annotation of the same object, beside the request: record, effect and fence are one write
under one resourceVersion. A Service knows no weights; the Gateway API and Istio do, and mirrors, where one of them is
installed. The manifest says which object is the route (`cluster.gateway`, `cluster.virtual_service`): what is installed
may change under a release, and the record must not move from one object to another.

What the API server adds to a stored object (defaults) is no disagreement: `follows` compares what a release writes.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, cast

from include.cluster.spec import ClusterSpec
from include.kernel.errors import RecordDamaged, RequestInvalid
from include.kernel.words.colours import COLOURS, Colour, other
from include.release.core.release_record import parse_desired_state
from include.release.core.rollout import DesiredState, Route
from include.serving.words.headers import GENERATION

Object = dict[str, Any]
API_PATHS = {
    "Service": "/api/v1/namespaces/{}/services/",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments/",
    "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes/",
    "VirtualService": "/apis/networking.istio.io/v1/namespaces/{}/virtualservices/",
}
REQUIRED_COMPONENTS = {  # what to apply where such an object is missing
    "HTTPRoute": "the Gateway API and k8s/components/gateway",
    "VirtualService": "Istio and k8s/components/istio, as that one says,",
}
DESIRED_STATE_ANNOTATION = "evergreen/wanted"
ROUTE_ANNOTATION = "evergreen/route"
DRAIN_ANNOTATION = "evergreen/let-go"  # the slot whose pods had the traffic before, until they are replaced
WRITTEN_AT_ANNOTATION = "evergreen/written"  # when a run last wrote the request or the route, in seconds of the epoch
SERVICE_NAME = "predictions"
SLOT_LABEL = "evergreen/slot"
SLOT_LABELS = {"app.kubernetes.io/name": "slot"}


def choose_route_object(spec: ClusterSpec) -> tuple[str, str]:
    """Kind and name of the object that is the route."""
    if spec.gateway:
        return "HTTPRoute", spec.gateway
    return ("VirtualService", spec.virtual_service) if spec.virtual_service else ("Service", SERVICE_NAME)


def read_desired_state(record: Object) -> DesiredState | None:
    """Raises `RecordDamaged`, as `route` does, for what no release of ours wrote."""
    text = _get_annotations(record).get(DESIRED_STATE_ANNOTATION)
    with _translate_damage(record, DESIRED_STATE_ANNOTATION):
        return parse_desired_state(json.loads(text)) if text else None


def read_route(record: Object) -> Route:
    text = _get_annotations(record).get(ROUTE_ANNOTATION)
    with _translate_damage(record, ROUTE_ANNOTATION):
        return Route(**json.loads(text)) if text else Route()


@contextmanager
def _translate_damage(record: Object, name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordDamaged(
            f"The annotation {name} of {record['kind']} {record['metadata']['name']} cannot be read "
            f"({type(error).__name__}), so nothing is moved; the next run of monitor writes it anew."
        ) from error


def write_desired_state(record: Object, desired: DesiredState) -> Object:
    _get_annotations(record)[DESIRED_STATE_ANNOTATION] = json.dumps(asdict(desired))
    return record


def write_route(record: Object, new_route: Route) -> Object:
    """Record and effect at once. Raises `RequestInvalid` for a split that a Service cannot make."""
    live_before = read_route(record).live
    _get_annotations(record)[ROUTE_ANNOTATION] = json.dumps(asdict(new_route))
    if live_before and live_before != new_route.live:
        _get_annotations(record)[DRAIN_ANNOTATION] = live_before
    if new_route.sticky:
        raise RequestInvalid(
            "No route of target kubernetes deals callers by a key; run the experiment on target local, or ask for a "
            "canary."
        )
    if record["kind"] == "Service" and new_route.is_split:
        raise RequestInvalid(
            "A Service has no weights and no mirrors; install the Gateway API, apply k8s/components/gateway and set "
            "cluster.gateway, or release.strategy: blue_green with release.shadow.enabled: false."
        )
    record["spec"] |= _build_route_spec(record["kind"], new_route)
    return record


def _build_route_spec(kind: str, new_route: Route) -> Object:
    """The part of the object's spec that moves the traffic."""
    if kind == "HTTPRoute":
        return {"rules": [_build_gateway_rule(new_route)] if new_route.live else []}
    if kind == "VirtualService":  # Istio refuses one without any rule
        return {"http": [_build_istio_rule(new_route) if new_route.live else {"directResponse": {"status": 503}}]}
    return {"selector": {**SLOT_LABELS, SLOT_LABEL: new_route.live} if new_route.live else None}


def stamp_written(record: Object, at: float) -> Object:
    _get_annotations(record)[WRITTEN_AT_ANNOTATION] = repr(at)
    return record


def read_written_at(record: Object) -> float:
    return float(_get_annotations(record).get(WRITTEN_AT_ANNOTATION, 0.0))


# --- what really moves the traffic, whatever the annotations say ------------------------------------------------------


def find_live_slot(record: Object) -> Colour | None:
    """The slot that gets requests by the object's spec; the one with more of them where two do."""
    weights = _read_weights(record["kind"], record["spec"])
    colour = max(weights, key=lambda name: weights[name], default="").removeprefix("slot-")
    return colour if colour in COLOURS else None


def is_in_sync(record: Object) -> bool:
    """Whether the spec does what the recorded route says. Raises `RecordDamaged`."""
    kind, recorded = record["kind"], _build_route_spec(record["kind"], read_route(record))
    is_same = _read_weights(kind, record["spec"]) == _read_weights(kind, recorded)
    return is_same and _list_mirrors(kind, record["spec"]) == _list_mirrors(kind, recorded)


def remove_route(record: Object) -> Object:
    """For who writes it anew."""
    _get_annotations(record).pop(ROUTE_ANNOTATION, None)
    return record


def remove_desired_state(record: Object) -> Object:
    _get_annotations(record).pop(DESIRED_STATE_ANNOTATION, None)
    return record


def _read_weights(kind: str, spec: Object) -> dict[str, int]:
    if kind == "HTTPRoute":
        backends = [backend for rule in spec.get("rules") or () for backend in rule.get("backendRefs") or ()]
        return {backend["name"]: int(backend.get("weight", 1)) for backend in backends}
    if kind == "VirtualService":
        routes = [backend for rule in spec.get("http") or () for backend in rule.get("route") or ()]
        return {backend["destination"]["host"]: int(backend.get("weight", 100)) for backend in routes}
    live = (spec.get("selector") or {}).get(SLOT_LABEL)
    return {f"slot-{live}": 100} if live else {}


def _list_mirrors(kind: str, spec: Object) -> list[str]:
    if kind == "HTTPRoute":
        filters = [rule_filter for rule in spec.get("rules") or () for rule_filter in rule.get("filters") or ()]
        return [
            rule_filter["requestMirror"]["backendRef"]["name"]
            for rule_filter in filters
            if rule_filter["type"] == "RequestMirror"
        ]
    return [rule["mirror"]["host"] for rule in spec.get("http") or () if rule.get("mirror")]


def find_draining_slot(record: Object) -> Colour | None:
    """The slot that lost the traffic and whose connections are still open; none while it carries traffic again."""
    colour = _get_annotations(record).get(DRAIN_ANNOTATION)
    return cast("Colour", colour) if colour and colour != read_route(record).live else None


def clear_draining_slot(record: Object) -> Object:
    _get_annotations(record).pop(DRAIN_ANNOTATION, None)
    return record


def _build_gateway_rule(new_route: Route) -> Object:
    live = cast("Colour", new_route.live)
    weighed = [_build_backend(live, 100 - new_route.share)] + (
        [_build_backend(other(live), new_route.share)] if new_route.share else []
    )
    header_filter = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [_build_header(new_route)]}}
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": f"slot-{other(live)}", "port": 80}}}
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "filters": [header_filter, mirror] if new_route.mirror else [header_filter],
        "backendRefs": weighed,
        "timeouts": {"request": "10s"},
    }


def _build_istio_rule(new_route: Route) -> Object:
    """https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRoute"""
    live = cast("Colour", new_route.live)
    shares = {live: 100 - new_route.share} | ({other(live): new_route.share} if new_route.share else {})
    copies = {"mirror": _build_destination(other(live)), "mirrorPercentage": {"value": 100.0}}
    return {
        "route": [{"destination": _build_destination(colour), "weight": share} for colour, share in shares.items()],
        "headers": {"response": {"set": {GENERATION: str(new_route.generation)}}},
        "timeout": "10s",
        **(copies if new_route.mirror else {}),
    }


def _build_destination(colour: Colour) -> Object:
    return {"host": f"slot-{colour}", "port": {"number": 80}}


def _build_backend(colour: Colour, weight: int) -> Object:
    return {"name": f"slot-{colour}", "port": 80, "weight": weight}


def _build_header(new_route: Route) -> Object:
    return {"name": GENERATION, "value": str(new_route.generation)}


def _get_annotations(record: Object) -> dict[str, str]:
    return cast("dict[str, str]", record["metadata"].setdefault("annotations", {}))
