"""Where requests go on one machine: a file that Envoy follows, written under the lock of the records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from include.kernel.errors import ServiceUnavailable
from include.release.core.release_record import alone, switched
from include.release.core.rollout import COLOURS, Colour, Route, Wanted, other
from include.release.targets.base import TrafficRoute
from include.release.targets.local import envoy_routes
from include.release.targets.local.records import LocalRecords

ROUTE_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class LocalAddresses:
    """Where the parts of the local target listen."""

    proxy: str
    proxy_admin: str
    slots: Mapping[Colour, str]
    supervisor: str


class LocalTraffic(LocalRecords, TrafficRoute):
    """`token` is the serving token: slots that know API tokens ask for one of these or for it."""

    def __init__(self, root: Path, addresses: LocalAddresses, token: str | None = None) -> None:
        super().__init__(root)
        self._addresses = addresses
        self._http = httpx.Client(timeout=5.0, headers={"authorization": f"Bearer {token}"} if token else {})

    def isolate(self, wanted: Wanted) -> None:
        with self._fenced(wanted) as route:
            self._write_route(alone(route, wanted))

    def split(self, wanted: Wanted, share: int = 0, mirror: bool = False, sticky: bool = False) -> None:
        if share:
            self._await_trust(wanted, *COLOURS)
        with self._fenced(wanted) as route:
            self._write_route(replace(alone(route, wanted), share=share, mirror=mirror, sticky=sticky))
        self._await_route()

    def switch(self, colour: Colour, wanted: Wanted) -> None:
        if wanted.kind == "deploy" and self._route().live:
            self._await_trust(wanted, colour)
        with self._fenced(wanted) as route:
            self._write_route(switched(route, colour, wanted))
        self._await_route()

    def revert(self, colour: Colour, wanted: Wanted) -> None:
        with self._fenced(wanted):
            self._write_route(Route(colour, generation=wanted.generation))
        self._await_route()

    def _await_route(self) -> None:
        """Raises `ServiceUnavailable` when the proxy does not take the route over; the route file stays as it is."""
        attempts = Retrying(
            stop=stop_after_delay(ROUTE_TIMEOUT_S), wait=wait_fixed(0.02), retry=retry_if_result(lambda seen: not seen)
        )
        try:
            attempts(self._proxy_is_there)
        except RetryError as error:
            raise ServiceUnavailable(
                f"Envoy at {self._addresses.proxy} has not taken over the route of generation "
                f"{self._route().generation} within {ROUTE_TIMEOUT_S:g} s; start it with `make up`, the step is "
                "repeated by itself."
            ) from error

    def _proxy_is_there(self) -> bool:
        """Whether it follows the newest route: a newer wish may have written another one meanwhile."""
        try:
            answer = self._http.get(f"{self._addresses.proxy}/health")
        except httpx.HTTPError:
            return False
        return bool(answer.headers.get(envoy_routes.ROUTE_HEADER) == envoy_routes.label(self._route()))

    def _await_trust(self, wanted: Wanted, *colours: Colour) -> None:
        """A slot that Envoy has not yet probed as ready would send its first requests to its standby."""
        self._must_be_wanted(wanted)
        attempts = Retrying(
            stop=stop_after_delay(ROUTE_TIMEOUT_S), wait=wait_fixed(0.02), retry=retry_if_result(lambda seen: not seen)
        )
        try:
            attempts(lambda: all(map(self._proxy_trusts, colours)))
        except RetryError as error:
            raise ServiceUnavailable(
                f"Envoy at {self._addresses.proxy_admin} does not find slot {' and '.join(colours)} ready within "
                f"{ROUTE_TIMEOUT_S:g} s; look at `make status`, the step is repeated by itself."
            ) from error

    def _proxy_trusts(self, colour: Colour) -> bool:
        try:
            told = self._http.get(f"{self._addresses.proxy_admin}/clusters?format=json").json()
        except (httpx.HTTPError, ValueError):
            return False
        name = envoy_routes.cluster_name(Route(colour, other(colour)))
        hosts = [host for each in told["cluster_statuses"] if each["name"] == name for host in each["host_statuses"]]
        first = [host["health_status"] for host in hosts if host.get("priority", 0) == 0]
        return bool(first) and not any(status.get("failed_active_health_check", False) for status in first)
