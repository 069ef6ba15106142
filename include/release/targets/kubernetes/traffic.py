"""Where requests go in a cluster: one object, whose resourceVersion fences the wish and the route.

A route write that read an older wish is refused by the API server (409), read again and then found superseded, and at
no time do two slots have traffic. A slot is another object; therefore a switch first leaves a mark on its Deployment,
which makes every write that was begun before it lose.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import httpx
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from include.cluster.api_server import Object
from include.kernel.errors import Conflict, ServiceUnavailable
from include.release.core.release_record import alone, switched
from include.release.core.rollout import Colour, Release, Route, Wanted
from include.release.targets.base import TrafficRoute
from include.release.targets.kubernetes import routes
from include.release.targets.kubernetes.records import KubernetesRecords, read_staged, template_notes
from include.serving.words.headers import GENERATION

LET_GO = "evergreen/let-go"
FENCE = "evergreen/fence"  # the generation that last meant to send traffic here
ROUTE_TIMEOUT_S = 30.0
log = logging.getLogger(__name__)


class KubernetesTraffic(KubernetesRecords, TrafficRoute):
    def isolate(self, wanted: Wanted) -> None:
        self._route_to(wanted, alone)

    def split(self, wanted: Wanted, share: int = 0, mirror: bool = False, sticky: bool = False) -> None:
        """Needs the Gateway API or Istio."""

        def new(route: Route, wish: Wanted) -> Route:
            return replace(alone(route, wish), share=share, mirror=mirror, sticky=sticky)

        self._route_to(wanted, new)
        self._await_route()

    def switch(self, colour: Colour, wanted: Wanted) -> None:
        self._edit_slot(colour, wanted, lambda deployment: _mark(deployment, wanted, wanted.release), may_be_live=True)
        self._route_to(wanted, lambda route, wish: switched(route, colour, wish))
        self._await_route()
        self._let_go(self._record())

    def revert(self, colour: Colour, wanted: Wanted) -> None:
        self._edit_slot(colour, wanted, lambda deployment: _mark(deployment, wanted), may_be_live=True)
        self._route_to(wanted, lambda route, wish: Route(colour, generation=wish.generation))
        self._await_route()
        self._let_go(self._record())

    def _route_to(self, wanted: Wanted, new: Callable[[Route, Wanted], Route], spared: Colour | None = None) -> None:
        """Writes a route for this wish, unless a newer one is stored, or `spared` carries the traffic."""
        for record in self._once_more("the route"):
            before = self._fenced(record, wanted, spared)
            after = new(before, wanted)
            if after == before or self._stored(routes.written(routes.with_route(record, after), time.time())):
                return

    def _edit_slot(
        self, colour: Colour, wanted: Wanted, change: Callable[[Object], None], may_be_live: bool = False
    ) -> None:
        """Changes a slot's Deployment, unless a newer wish is stored or has meant to send traffic to it since.

        The Deployment is read before the fence is looked at: who passes the fence later changes it, and so wins.
        """
        for attempt in range(self._spec.attempts):
            deployment = self._deployment(colour)
            self._fenced(self._record(), wanted, None if may_be_live else colour)
            change(deployment)
            if self._stored(deployment):
                return
            log.info("slot %s was written by somebody else, try %d", colour, attempt + 1)
        raise Conflict(f"Deployment slot-{colour} is written by others all the time; look who does, then retry.")

    def _let_go(self, record: Object) -> None:
        """Replaces the pods that had the traffic, one by one: a connection a client keeps open would go on asking them.

        The new ones hold the same release, so the way back stays warm. The route's write said what is to be let go of,
        and it is struck out when that is done: a kill in between is mended by the next look.
        """
        colour = routes.to_let_go(record)
        if colour is None:
            return
        deployment, generation = self._deployment(colour), str(routes.route(record).generation)
        if template_notes(deployment).get(LET_GO) != generation and read_staged(deployment):
            template_notes(deployment)[LET_GO] = generation
            if not self._stored(deployment):
                return  # the next look does it
        self._stored(routes.let_go(record))

    def _await_route(self) -> None:
        """Raises `ServiceUnavailable` when the change does not arrive; the record stays as it is."""
        attempts = Retrying(
            stop=stop_after_delay(ROUTE_TIMEOUT_S), wait=wait_fixed(0.1), retry=retry_if_result(lambda seen: not seen)
        )
        try:
            attempts(self._has_arrived)
        except RetryError as error:
            raise ServiceUnavailable(
                f"The route of {self._namespace} has not arrived within {ROUTE_TIMEOUT_S:g} s: the endpoints of "
                "predictions are not those of the live slot; look at its pods, the step is repeated by itself."
            ) from error

    def _has_arrived(self) -> bool:
        record = self._record()
        live = routes.route(record).live
        if record["kind"] == "HTTPRoute":
            return _is_accepted(record)
        if record["kind"] == "VirtualService":
            return live is None or self._answers_by(routes.route(record).generation)
        return live is None or self._endpoints() == {p["metadata"]["name"] for p in self._pods(live) if _is_asked(p)}

    def _answers_by(self, generation: int) -> bool:
        """Istio says nowhere reliably how far a rule has come; the answers do, by the header it sets."""
        try:
            answer = self._http.get(f"{self._predictions}/health")
        except httpx.HTTPError:
            return False
        return bool(answer.headers.get(GENERATION) == str(generation))

    def _endpoints(self) -> set[str]:
        """The pods that new connections to `predictions` are sent to."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices"
        slices = self._cluster.list(path, labelSelector=f"kubernetes.io/service-name={routes.NAME}")
        found = (each for one in slices for each in one.get("endpoints") or () if each["conditions"].get("ready"))
        return {each["targetRef"]["name"] for each in found}


def _mark(deployment: Object, wanted: Wanted, holding: Release | None = None) -> None:
    """Changes the Deployment, but not its pods, so that writes begun before lose; from now on pods go one by one."""
    if holding and read_staged(deployment) != holding:
        raise Conflict(f"{deployment['metadata']['name']} does not hold version {holding.version}; look again.")
    deployment["metadata"].setdefault("annotations", {})[FENCE] = str(wanted.generation)
    deployment["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _is_asked(pod: Object) -> bool:
    """Ready, and not on its way out: a pod that ends says it is ready until it no longer is."""
    return is_ready(pod) and "deletionTimestamp" not in pod["metadata"]


def _is_accepted(record: Object) -> bool:
    """Whether the Gateway has taken over this very version of the HTTPRoute."""
    now = record["metadata"].get("generation")
    seen = [c for parent in record.get("status", {}).get("parents", ()) for c in parent.get("conditions", ())]
    accepted = [c for c in seen if c["type"] == "Accepted"]
    return bool(accepted) and all(c["status"] == "True" and c.get("observedGeneration") == now for c in accepted)
