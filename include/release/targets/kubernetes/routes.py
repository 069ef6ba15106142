"""A Route as Kubernetes reads it: a Service's selector, or the backends of an HTTPRoute or an Istio VirtualService.

The Route itself stands in an annotation of the same object, next to the wish, so record, effect and fence are one write
under one resourceVersion. A Service knows no weights; the Gateway API and Istio do, and mirrors, where one of them is
installed. The manifest says which object is the route (`cluster.gateway`, `cluster.virtual_service`): what is installed
may change under a release, and the record must not move from one object to another.

What the API server adds to a stored object (defaults) is no disagreement: `follows` compares what a release writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, cast

from include.cluster.spec import ClusterSpec
from include.kernel.errors import RecordDamaged, RequestInvalid
from include.release.core.release_record import wanted_of
from include.release.core.rollout import COLOURS, Colour, Route, Wanted, other
from include.serving.words.headers import GENERATION

Object = dict[str, Any]
PATHS = {
    "Service": "/api/v1/namespaces/{}/services/",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments/",
    "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes/",
    "VirtualService": "/apis/networking.istio.io/v1/namespaces/{}/virtualservices/",
}
PARTS = {  # what to apply where such an object is missing
    "HTTPRoute": "the Gateway API and k8s/components/gateway",
    "VirtualService": "Istio and k8s/components/istio, as that one says,",
}
WANTED = "evergreen/wanted"
ROUTE = "evergreen/route"
LET_GO = "evergreen/let-go"  # the slot whose pods had the traffic before, until they are replaced
WRITTEN = "evergreen/written"  # when a run last wrote the wish or the route, in seconds of the epoch
NAME = "predictions"
SLOT = "evergreen/slot"
SLOT_NAME = {"app.kubernetes.io/name": "slot"}


def chosen(spec: ClusterSpec) -> tuple[str, str]:
    """Kind and name of the object that is the route."""
    if spec.gateway:
        return "HTTPRoute", spec.gateway
    return ("VirtualService", spec.virtual_service) if spec.virtual_service else ("Service", NAME)


def wanted(record: Object) -> Wanted | None:
    """Raises `RecordDamaged`, as `route` does, for what no release of ours wrote."""
    text = _annotations(record).get(WANTED)
    with _readable(record, WANTED):
        return wanted_of(json.loads(text)) if text else None


def route(record: Object) -> Route:
    text = _annotations(record).get(ROUTE)
    with _readable(record, ROUTE):
        return Route(**json.loads(text)) if text else Route()


@contextmanager
def _readable(record: Object, name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordDamaged(
            f"The annotation {name} of {record['kind']} {record['metadata']['name']} cannot be read "
            f"({type(error).__name__}), so nothing is moved; the next run of monitor writes it anew."
        ) from error


def with_wish(record: Object, wish: Wanted) -> Object:
    _annotations(record)[WANTED] = json.dumps(asdict(wish))
    return record


def with_route(record: Object, new: Route) -> Object:
    """Record and effect at once. Raises `RequestInvalid` for a split that a Service cannot make."""
    before = route(record).live
    _annotations(record)[ROUTE] = json.dumps(asdict(new))
    if before and before != new.live:
        _annotations(record)[LET_GO] = before
    if new.sticky:
        raise RequestInvalid(
            "No route of target kubernetes deals callers by a key; run the experiment on target local, or ask for a "
            "canary."
        )
    if record["kind"] == "Service" and new.is_split:
        raise RequestInvalid(
            "A Service has no weights and no mirrors; install the Gateway API, apply k8s/components/gateway and set "
            "cluster.gateway, or release.strategy: blue_green with release.shadow.enabled: false."
        )
    record["spec"] |= _effect(record["kind"], new)
    return record


def _effect(kind: str, new: Route) -> Object:
    """The part of the object's spec that moves the traffic."""
    if kind == "HTTPRoute":
        return {"rules": [_rule(new)] if new.live else []}
    if kind == "VirtualService":  # Istio refuses one without any rule
        return {"http": [_istio_rule(new) if new.live else {"directResponse": {"status": 503}}]}
    return {"selector": {**SLOT_NAME, SLOT: new.live} if new.live else None}


def written(record: Object, at: float) -> Object:
    _annotations(record)[WRITTEN] = repr(at)
    return record


def written_at(record: Object) -> float:
    return float(_annotations(record).get(WRITTEN, 0.0))


# --- what really moves the traffic, whatever the annotations say ------------------------------------------------------


def followed(record: Object) -> Colour | None:
    """The slot that gets requests by the object's spec; the one with more of them where two do."""
    weights = _weights(record["kind"], record["spec"])
    found = max(weights, key=lambda name: weights[name], default="").removeprefix("slot-")
    return found if found in COLOURS else None


def follows(record: Object) -> bool:
    """Whether the spec does what the recorded route says. Raises `RecordDamaged`."""
    kind, recorded = record["kind"], _effect(record["kind"], route(record))
    is_same = _weights(kind, record["spec"]) == _weights(kind, recorded)
    return is_same and _mirrors(kind, record["spec"]) == _mirrors(kind, recorded)


def without_route(record: Object) -> Object:
    """For who writes it anew."""
    _annotations(record).pop(ROUTE, None)
    return record


def without_wish(record: Object) -> Object:
    _annotations(record).pop(WANTED, None)
    return record


def _weights(kind: str, spec: Object) -> dict[str, int]:
    if kind == "HTTPRoute":
        backends = [each for rule in spec.get("rules") or () for each in rule.get("backendRefs") or ()]
        return {each["name"]: int(each.get("weight", 1)) for each in backends}
    if kind == "VirtualService":
        routes = [each for rule in spec.get("http") or () for each in rule.get("route") or ()]
        return {each["destination"]["host"]: int(each.get("weight", 100)) for each in routes}
    live = (spec.get("selector") or {}).get(SLOT)
    return {f"slot-{live}": 100} if live else {}


def _mirrors(kind: str, spec: Object) -> list[str]:
    if kind == "HTTPRoute":
        filters = [each for rule in spec.get("rules") or () for each in rule.get("filters") or ()]
        return [each["requestMirror"]["backendRef"]["name"] for each in filters if each["type"] == "RequestMirror"]
    return [rule["mirror"]["host"] for rule in spec.get("http") or () if rule.get("mirror")]


def to_let_go(record: Object) -> Colour | None:
    """The slot that lost the traffic and whose connections are still open; none while it carries traffic again."""
    colour = _annotations(record).get(LET_GO)
    return cast("Colour", colour) if colour and colour != route(record).live else None


def let_go(record: Object) -> Object:
    _annotations(record).pop(LET_GO, None)
    return record


def _rule(new: Route) -> Object:
    live = cast("Colour", new.live)
    weighed = [_backend(live, 100 - new.share)] + ([_backend(other(live), new.share)] if new.share else [])
    told = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [_header(new)]}}
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": f"slot-{other(live)}", "port": 80}}}
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "filters": [told, mirror] if new.mirror else [told],
        "backendRefs": weighed,
        "timeouts": {"request": "10s"},
    }


def _istio_rule(new: Route) -> Object:
    """https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRoute"""
    live = cast("Colour", new.live)
    shares = {live: 100 - new.share} | ({other(live): new.share} if new.share else {})
    copies = {"mirror": _destination(other(live)), "mirrorPercentage": {"value": 100.0}}
    return {
        "route": [{"destination": _destination(colour), "weight": share} for colour, share in shares.items()],
        "headers": {"response": {"set": {GENERATION: str(new.generation)}}},
        "timeout": "10s",
        **(copies if new.mirror else {}),
    }


def _destination(colour: Colour) -> Object:
    return {"host": f"slot-{colour}", "port": {"number": 80}}


def _backend(colour: Colour, weight: int) -> Object:
    return {"name": f"slot-{colour}", "port": 80, "weight": weight}


def _header(new: Route) -> Object:
    return {"name": GENERATION, "value": str(new.generation)}


def _annotations(record: Object) -> dict[str, str]:
    return cast("dict[str, str]", record["metadata"].setdefault("annotations", {}))
