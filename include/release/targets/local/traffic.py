"""Where requests go on one machine: a file that Envoy follows, written under the lock of the records."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from include.kernel.errors import ServiceUnavailable
from include.kernel.words.colours import COLOURS, Colour, other
from include.release.core.release_record import build_isolated_route, build_switched_route
from include.release.core.rollout import DesiredState, Route
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

    def isolate(self, desired: DesiredState) -> None:
        with self._hold_fence(desired) as route:
            self._write_route(build_isolated_route(route, desired))

    def split(self, desired: DesiredState, share: int = 0, mirror: bool = False, sticky: bool = False) -> None:
        if share:
            self._await_slot_health(desired, *COLOURS)
        with self._hold_fence(desired) as route:
            self._write_route(replace(build_isolated_route(route, desired), share=share, mirror=mirror, sticky=sticky))
        self._await_route()

    def switch(self, colour: Colour, desired: DesiredState) -> None:
        if desired.kind == "deploy" and self._read_route().live:
            self._await_slot_health(desired, colour)
        with self._hold_fence(desired) as route:
            self._write_route(build_switched_route(route, colour, desired))
        self._await_route()

    def revert(self, colour: Colour, desired: DesiredState) -> None:
        with self._hold_fence(desired):
            self._write_route(Route(colour, generation=desired.generation))
        self._await_route()

    def _await_route(self) -> None:
        """Raises `ServiceUnavailable` when the proxy does not take the route over; the route file stays as it is."""
        attempts = Retrying(
            stop=stop_after_delay(ROUTE_TIMEOUT_S), wait=wait_fixed(0.02), retry=retry_if_result(lambda seen: not seen)
        )
        try:
            attempts(self._has_proxy_synced)
        except RetryError as error:
            raise ServiceUnavailable(
                f"Envoy at {self._addresses.proxy} has not taken over the route of generation "
                f"{self._read_route().generation} within {ROUTE_TIMEOUT_S:g} s; start it with `make up`, the step is "
                "repeated by itself."
            ) from error

    def _has_proxy_synced(self) -> bool:
        """Whether it follows the newest route: a newer request may have written another one meanwhile."""
        try:
            answer = self._http.get(f"{self._addresses.proxy}/health")
        except httpx.HTTPError:
            return False
        return bool(answer.headers.get(envoy_routes.ROUTE_HEADER) == envoy_routes.build_label(self._read_route()))

    def _await_slot_health(self, desired: DesiredState, *colours: Colour) -> None:
        """A slot that Envoy has not yet probed as ready would send its first requests to its standby."""
        self._must_be_desired(desired)
        attempts = Retrying(
            stop=stop_after_delay(ROUTE_TIMEOUT_S), wait=wait_fixed(0.02), retry=retry_if_result(lambda seen: not seen)
        )
        try:
            attempts(lambda: all(map(self._is_slot_healthy, colours)))
        except RetryError as error:
            raise ServiceUnavailable(
                f"Envoy at {self._addresses.proxy_admin} does not find slot {' and '.join(colours)} ready within "
                f"{ROUTE_TIMEOUT_S:g} s; look at `make status`, the step is repeated by itself."
            ) from error

    def _is_slot_healthy(self, colour: Colour) -> bool:
        try:
            clusters = self._http.get(f"{self._addresses.proxy_admin}/clusters?format=json").json()
        except (httpx.HTTPError, ValueError):
            return False
        name = envoy_routes.build_cluster_name(Route(colour, other(colour)))
        hosts = [
            host
            for cluster in clusters["cluster_statuses"]
            if cluster["name"] == name
            for host in cluster["host_statuses"]
        ]
        first = [host["health_status"] for host in hosts if host.get("priority", 0) == 0]
        return bool(first) and not any(status.get("failed_active_health_check", False) for status in first)
