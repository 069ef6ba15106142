"""A Route as Kubernetes reads it: the selector of one Service, or the backends of one HTTPRoute.

The Route itself stands in an annotation of the same object, next to the wish, so record, effect and fence are one write
under one resourceVersion. A Service knows no weights; the Gateway API does, and mirrors, where it is installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, cast

from include.core.errors import RecordDamaged, RequestInvalid
from include.core.release_record import wanted_of
from include.core.rollout import Colour, Route, Wanted, other

Object = dict[str, Any]
WANTED = "evergreen/wanted"
ROUTE = "evergreen/route"
LET_GO = "evergreen/let-go"  # the slot whose pods had the traffic before, until they are replaced
NAME = "predictions"
SLOT = "evergreen/slot"
SLOT_NAME = {"app.kubernetes.io/name": "slot"}
GENERATION_HEADER = "x-evergreen-generation"


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
            f"({type(error).__name__}), so nothing is moved; remove it, and deploy again what should serve."
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
            "Neither a Service nor the Gateway API deals callers by a key; run the experiment on target local, or "
            "ask for a canary."
        )
    if record["kind"] == "HTTPRoute":
        record["spec"]["rules"] = [_rule(new)] if new.live else []
    elif new.is_split:
        raise RequestInvalid(
            "A Service has no weights and no mirrors; install the Gateway API, apply k8s/components/gateway and set "
            "cluster.gateway, or release.strategy: blue_green with release.shadow.enabled: false."
        )
    else:
        record["spec"]["selector"] = {**SLOT_NAME, SLOT: new.live} if new.live else None
    return record


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


def _backend(colour: Colour, weight: int) -> Object:
    return {"name": f"slot-{colour}", "port": 80, "weight": weight}


def _header(new: Route) -> Object:
    return {"name": GENERATION_HEADER, "value": str(new.generation)}


def _annotations(record: Object) -> dict[str, str]:
    return cast("dict[str, str]", record["metadata"].setdefault("annotations", {}))
