"""A Route as Envoy reads it, and back: the route file is the only record of where traffic goes.

Envoy watches one YAML file and takes a new one over without dropping a connection. The route's generation travels in
the same file, as a response header, so that record and effect cannot disagree, and every answer tells by which
generation it was routed. Chosen over Envoy's admin API, whose changes are forgotten when Envoy restarts.

A live slot with a standby is the cluster `<colour>_first`: Envoy checks both slots and fails over by itself. A live
slot alone is `<colour>_only`, unchecked: with nowhere else to go, a check could only turn slow answers into errors.
"""

from __future__ import annotations

import json
from typing import Any, cast

import yaml

from include.core.rollout import Colour, Route, other

GENERATION_HEADER = "x-evergreen-generation"
ROUTE_NAME = "predictions"
TYPE = "type.googleapis.com/envoy."
NO_LIVE_RELEASE = "No model is live yet; deploy one, then ask again."

# A prediction changes nothing, so a request whose slot died half-way may be asked of the standby again.
RETRY_ON_STANDBY: dict[str, Any] = {
    "retry_on": "connect-failure,refused-stream,reset",
    "num_retries": 2,
    "per_try_timeout": "5s",
    "retry_priority": {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": {
            "@type": TYPE + "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            "update_frequency": 1,
        },
    },
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": TYPE + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }
    ],
    "host_selection_retry_max_attempts": 2,
}
# Without a standby only what never reached the slot is tried again: the classic is a keep-alive connection just closed.
RETRY_SAME_SLOT: dict[str, Any] = {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2}


def render(route: Route) -> str:
    """The route as the text of a DiscoveryResponse file."""
    cluster = cluster_name(route)
    resource = {
        "@type": TYPE + "config.route.v3.RouteConfiguration",
        "name": ROUTE_NAME,
        "response_headers_to_add": [_header(GENERATION_HEADER, str(route.generation))],
        "virtual_hosts": [{"name": ROUTE_NAME, "domains": ["*"], "routes": [_to(cluster) if cluster else _nowhere()]}],
    }
    version = f"{route.generation}-{cluster or 'none'}"
    return yaml.safe_dump({"version_info": version, "resources": [resource]}, sort_keys=False)


def parse(text: str) -> Route:
    """The Route that `render` wrote; ValueError for any other text."""
    try:
        resource = yaml.safe_load(text)["resources"][0]
        generation = int(resource["response_headers_to_add"][0]["header"]["value"])
        action = resource["virtual_hosts"][0]["routes"][0].get("route")
        live, standby = _slots(action["cluster"]) if action else (None, None)
    except (yaml.YAMLError, KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"This is not a route file of ours: {error!r}") from error
    return Route(live=live, standby=standby, generation=generation)


def cluster_name(route: Route) -> str | None:
    """The static cluster a route stands for; None when no slot is live."""
    if route.live is None:
        return None
    return f"{route.live}_{'first' if route.standby else 'only'}"


def _slots(cluster: str) -> tuple[Colour, Colour | None]:
    colour, _, mode = cluster.partition("_")
    if colour not in ("blue", "green") or mode not in ("first", "only"):
        raise ValueError(f"unknown cluster {cluster!r}")
    live = cast("Colour", colour)
    return live, other(live) if mode == "first" else None


def _to(cluster: str) -> dict[str, Any]:
    retry = RETRY_ON_STANDBY if cluster.endswith("_first") else RETRY_SAME_SLOT
    return {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "10s", "retry_policy": retry}}


def _nowhere() -> dict[str, Any]:
    return {
        "match": {"prefix": "/"},
        "direct_response": {"status": 503, "body": {"inline_string": json.dumps({"detail": NO_LIVE_RELEASE})}},
        "response_headers_to_add": [_header("content-type", "application/json")],
    }


def _header(key: str, value: str) -> dict[str, Any]:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
