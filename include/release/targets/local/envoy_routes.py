"""A Route as Envoy reads it, and back: the route file is the only record of where traffic goes.

Envoy watches one YAML file and takes a new one over without dropping a connection. The route's generation travels in
the same file, as a response header, so that record and effect cannot disagree, and every answer tells by which
generation and which route it came. Chosen over Envoy's admin API, whose changes are forgotten when Envoy restarts.

A live slot with a standby is the cluster `<colour>_first`: Envoy checks both slots and fails over by itself. A live
slot alone is `<colour>_only`, unchecked: with nowhere else to go, a check could only turn slow answers into errors.
While a candidate has a share, each of the two slots takes over for the other: it has passed its verification, and a
prediction of either is better than none. A candidate that only gets copies never answers anybody; each copy carries a
header that says so, which is taken off a client's own request. In an experiment the share is dealt by the hash of the
caller's key; who sends none is dealt at random each time.
"""

import json
import re
from typing import Any, cast

import yaml

from include.feedback.core.prediction_records import CALLER_HEADER
from include.kernel.words.colours import Colour, other
from include.release.core.rollout import Route
from include.serving.words.headers import COPY, GENERATION

ROUTE_HEADER = "x-evergreen-route"
ROUTE_NAME = "predictions"
TYPE_PREFIX = "type.googleapis.com/envoy."
CALLER_HASH_POLICY = {
    "header": {"header_name": CALLER_HEADER}
}  # its hash has no seed: a proxy started anew deals alike
NO_LIVE_RELEASE = "No model is live yet; deploy one, then ask again."

# A prediction changes nothing, so a request whose slot died half-way may be asked of the standby again.
RETRY_ON_STANDBY: dict[str, Any] = {
    "retry_on": "connect-failure,refused-stream,reset",
    "num_retries": 2,
    "per_try_timeout": "5s",
    "retry_priority": {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": {
            "@type": TYPE_PREFIX + "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            "update_frequency": 1,
        },
    },
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": TYPE_PREFIX + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }
    ],
    "host_selection_retry_max_attempts": 2,
}
# Without a standby only what never reached the slot is tried again: the classic is a keep-alive connection just closed.
RETRY_SAME_SLOT: dict[str, Any] = {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2}


def render(route: Route) -> str:
    """The route as the text of a DiscoveryResponse file."""
    headers = {GENERATION: str(route.generation), ROUTE_HEADER: build_label(route)}
    resource = {
        "@type": TYPE_PREFIX + "config.route.v3.RouteConfiguration",
        "name": ROUTE_NAME,
        "request_headers_to_remove": [COPY],
        "response_headers_to_add": [_build_header(key, value) for key, value in headers.items()],
        "virtual_hosts": [
            {
                "name": ROUTE_NAME,
                "domains": ["*"],
                "routes": [_build_route_entry(route) if route.live else _build_unavailable_entry()],
            }
        ],
    }
    return yaml.safe_dump({"version_info": build_label(route), "resources": [resource]}, sort_keys=False)


def build_label(route: Route) -> str:
    """One word that tells two routes apart: 7.3-blue_first-green.25 is generation 7, trial 3, a quarter to green."""
    parts = [f"{route.generation}.{route.trial}", build_cluster_name(route) or "none"]
    if route.live and route.is_split:
        parts.append(f"{other(route.live)}.{route.share or 'mirror'}{'.sticky' if route.sticky else ''}")
    return "-".join(parts)


def parse_label(label: str) -> Route | None:
    """The Route that `label` named; None for any other word."""
    match = re.fullmatch(r"(\d+)\.(\d+)-(blue|green)_(first|only)(?:-(?:blue|green)\.(\d+|mirror)(\.sticky)?)?", label)
    if match is None:
        return None
    generation, trial, live, mode, split, sticky = match.groups()
    share, colour = int(split) if split and split != "mirror" else 0, cast("Colour", live)
    standby = other(colour) if mode == "first" and not share else None
    return Route(colour, standby, int(generation), share, split == "mirror", int(trial), bool(sticky))


def parse(text: str) -> Route:
    """The Route that `render` wrote; ValueError for any other text."""
    try:
        content = yaml.safe_load(text)
        generation, trial = map(int, re.match(r"(\d+)\.(\d+)-", content["version_info"]).groups())  # type: ignore[union-attr]
        action = content["resources"][0]["virtual_hosts"][0]["routes"][0].get("route")
        live, standby, share, mirror = _parse_slots(action) if action else (None, None, 0, False)
        sticky = bool(action) and "hash_policy" in action
    except (yaml.YAMLError, KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"This is not a route file of ours: {error!r}") from error
    return Route(live, standby, generation, share, mirror, trial, sticky)


def build_cluster_name(route: Route) -> str | None:
    """The static cluster of the live slot; None when no slot is live."""
    if route.live is None:
        return None
    return f"{route.live}_{'first' if route.standby or route.share else 'only'}"


def _parse_slots(action: dict[str, Any]) -> tuple[Colour, Colour | None, int, bool]:
    if "weighted_clusters" in action:
        stable, candidate = action["weighted_clusters"]["clusters"]
        return _split_cluster_name(stable["name"])[0], None, int(candidate["weight"]), False
    live, mode = _split_cluster_name(action["cluster"])
    return live, other(live) if mode == "first" else None, 0, "request_mirror_policies" in action


def _split_cluster_name(cluster: str) -> tuple[Colour, str]:
    colour, _, mode = cluster.partition("_")
    if colour not in ("blue", "green") or mode not in ("first", "only"):
        raise ValueError(f"unknown cluster {cluster!r}")
    return cast("Colour", colour), mode


def _build_route_entry(route: Route) -> dict[str, Any]:
    retry = RETRY_ON_STANDBY if route.standby or route.share else RETRY_SAME_SLOT
    return {"match": {"prefix": "/"}, "route": {**_build_clusters(route), "timeout": "10s", "retry_policy": retry}}


def _build_clusters(route: Route) -> dict[str, Any]:
    live, name = cast("Colour", route.live), build_cluster_name(route)
    if route.share:
        weighed = [(name, 100 - route.share), (f"{other(live)}_first", route.share)]
        clusters = {"clusters": [{"name": to, "weight": weight} for to, weight in weighed]}
        if route.sticky:
            return {"weighted_clusters": clusters | {"use_hash_policy": True}, "hash_policy": [CALLER_HASH_POLICY]}
        return {"weighted_clusters": clusters}
    if route.mirror:
        copies = {"cluster": f"{other(live)}_only", "request_headers_mutations": [{"append": _build_header(COPY, "1")}]}
        return {"cluster": name, "request_mirror_policies": [copies]}
    return {"cluster": name}


def _build_unavailable_entry() -> dict[str, Any]:
    return {
        "match": {"prefix": "/"},
        "direct_response": {"status": 503, "body": {"inline_string": json.dumps({"detail": NO_LIVE_RELEASE})}},
        "response_headers_to_add": [_build_header("content-type", "application/json")],
    }


def _build_header(key: str, value: str) -> dict[str, Any]:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
