"""Every route of the server, and who may ask it; a test walks the routes of the framework to see that all are here.

    open      anybody: probes, and what speaks of the server alone
    client    anybody, until API tokens are named (EVERGREEN_API_TOKENS, or a file of them); then one of those
    admin     the serving token, always, and only from this machine unless EVERGREEN_ADMIN_FROM=anywhere

What the table does not name is treated as client, so a path that does not exist tells strangers nothing.
"""

from collections.abc import Mapping
from typing import Literal

from include.serving.words.recent import PATH as RECENT
from include.serving.words.slot_metrics import EXPLAIN, INFER, INVOCATIONS, PREDICT

Access = Literal["open", "client", "admin"]
POLICY: Mapping[str, Access] = {
    "/health": "open",
    "/ready": "open",
    "/ping": "open",
    "/version": "open",
    "/v2": "open",
    "/v2/health/live": "open",
    "/v2/health/ready": "open",
    "/model": "client",
    "/metrics": "client",
    "/openapi.json": "client",
    "/docs": "client",
    PREDICT: "client",
    EXPLAIN: "client",
    "/feedback": "client",
    INVOCATIONS: "client",
    "/v2/models/{name}": "client",
    "/v2/models/{name}/ready": "client",
    INFER: "client",
    "/v2/models/{name}/versions/{version}": "client",
    "/v2/models/{name}/versions/{version}/ready": "client",
    "/v2/models/{name}/versions/{version}/infer": "client",
    "/admin/reload": "admin",
    RECENT: "admin",
}
ADMIN = "/admin"
OPEN = frozenset(path for path, access in POLICY.items() if access == "open")


def get_access(path: str) -> Access:
    """By the path as it was asked for; the table's own names give what it says of them."""
    if path in OPEN:
        return "open"
    return "admin" if path.startswith(ADMIN) else "client"


def resolve_route(path: str) -> str:
    return INFER if path.startswith("/v2/models/") and path.endswith("/infer") else path


def find_route_name(path: str) -> str:
    """The table's name of a path; callers' inventions are one."""
    route = resolve_route(path)
    return route if route in POLICY else "other"
