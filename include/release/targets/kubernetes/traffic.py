"""Where requests go in a cluster: one object, whose resourceVersion fences the release request and the route.

A route write that read an older request is refused by the API server (409), read again, then found superseded, and at
no time do two slots have traffic. A slot is another object; therefore a switch first leaves a mark on its Deployment,
which makes every write that was begun before it lose.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import httpx
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from include.cluster.api_server import Object
from include.kernel.errors import Conflict, ServiceUnavailable
from include.kernel.words.colours import Colour
from include.release.core.release_record import build_isolated_route, build_switched_route
from include.release.core.rollout import DesiredState, Release, Route
from include.release.targets.base import TrafficRoute
from include.release.targets.kubernetes import routes
from include.release.targets.kubernetes.records import KubernetesRecords, get_template_annotations, read_staged
from include.serving.words.headers import GENERATION

DRAIN_ANNOTATION = "evergreen/let-go"
FENCE_ANNOTATION = "evergreen/fence"  # the generation that last meant to send traffic here
ROUTE_TIMEOUT_S = 30.0
log = logging.getLogger(__name__)


class KubernetesTraffic(KubernetesRecords, TrafficRoute):
    def isolate(self, desired: DesiredState) -> None:
        self._change_route(desired, build_isolated_route)

    def split(self, desired: DesiredState, share: int = 0, mirror: bool = False, sticky: bool = False) -> None:
        """Needs the Gateway API or Istio."""

        def build_split_route(route: Route, current: DesiredState) -> Route:
            return replace(build_isolated_route(route, current), share=share, mirror=mirror, sticky=sticky)

        self._change_route(desired, build_split_route)
        self._await_route()

    def switch(self, colour: Colour, desired: DesiredState) -> None:
        self._edit_slot(
            colour, desired, lambda deployment: _mark_fence(deployment, desired, desired.release), may_be_live=True
        )
        self._change_route(desired, lambda route, request: build_switched_route(route, colour, request))
        self._await_route()
        self._replace_drained_pods(self._read_record())

    def revert(self, colour: Colour, desired: DesiredState) -> None:
        self._edit_slot(colour, desired, lambda deployment: _mark_fence(deployment, desired), may_be_live=True)
        self._change_route(desired, lambda route, request: Route(colour, generation=request.generation))
        self._await_route()
        self._replace_drained_pods(self._read_record())

    def _change_route(
        self, desired: DesiredState, build_route: Callable[[Route, DesiredState], Route], spared: Colour | None = None
    ) -> None:
        """Writes a route for this request, unless a newer one is stored, or `spared` carries the traffic."""
        for record in self._iterate_attempts("the route"):
            before = self._check_fence(record, desired, spared)
            after = build_route(before, desired)
            if after == before or self._try_replace(
                routes.stamp_written(routes.write_route(record, after), time.time())
            ):
                return

    def _edit_slot(
        self, colour: Colour, desired: DesiredState, change: Callable[[Object], None], may_be_live: bool = False
    ) -> None:
        """Changes a slot's Deployment, unless a newer request is stored or has meant to send traffic to it since.

        The Deployment is read before the fence is looked at: who passes the fence later changes it, and so wins.
        """
        for attempt in range(self._spec.attempts):
            deployment = self._read_deployment(colour)
            self._check_fence(self._read_record(), desired, None if may_be_live else colour)
            change(deployment)
            if self._try_replace(deployment):
                return
            log.info("slot %s was written by somebody else, try %d", colour, attempt + 1)
        raise Conflict(f"Deployment slot-{colour} is written by others all the time; look who does, then retry.")

    def _replace_drained_pods(self, record: Object) -> None:
        """Replaces the pods that had the traffic, one by one: a connection a client keeps open would go on asking them.

        The new ones hold the same release, so the way back stays warm. The route's write said what is to be let go of,
        and it is struck out when that is done: a kill in between is mended by the next look.
        """
        colour = routes.find_draining_slot(record)
        if colour is None:
            return
        deployment, generation = self._read_deployment(colour), str(routes.read_route(record).generation)
        if get_template_annotations(deployment).get(DRAIN_ANNOTATION) != generation and read_staged(deployment):
            get_template_annotations(deployment)[DRAIN_ANNOTATION] = generation
            if not self._try_replace(deployment):
                return  # the next look does it
        self._try_replace(routes.clear_draining_slot(record))

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
        record = self._read_record()
        live = routes.read_route(record).live
        if record["kind"] == "HTTPRoute":
            return _is_accepted(record)
        if record["kind"] == "VirtualService":
            return live is None or self._is_generation_served(routes.read_route(record).generation)
        return live is None or self._list_endpoints() == {
            p["metadata"]["name"] for p in self._list_pods(live) if _is_serving_pod(p)
        }

    def _is_generation_served(self, generation: int) -> bool:
        """Istio says nowhere reliably how far a rule has come; the answers do, by the header it sets."""
        try:
            answer = self._http.get(f"{self._predictions}/health")
        except httpx.HTTPError:
            return False
        return bool(answer.headers.get(GENERATION) == str(generation))

    def _list_endpoints(self) -> set[str]:
        """The pods that new connections to `predictions` are sent to."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices"
        slices = self._cluster.list(path, labelSelector=f"kubernetes.io/service-name={routes.SERVICE_NAME}")
        endpoints = (
            endpoint
            for endpoint_slice in slices
            for endpoint in endpoint_slice.get("endpoints") or ()
            if endpoint["conditions"].get("ready")
        )
        return {endpoint["targetRef"]["name"] for endpoint in endpoints}


def _mark_fence(deployment: Object, desired: DesiredState, expected: Release | None = None) -> None:
    """Changes the Deployment, but not its pods, so that writes begun before lose; from now on pods go one by one."""
    if expected and read_staged(deployment) != expected:
        raise Conflict(f"{deployment['metadata']['name']} does not hold version {expected.version}; look again.")
    deployment["metadata"].setdefault("annotations", {})[FENCE_ANNOTATION] = str(desired.generation)
    deployment["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _is_serving_pod(pod: Object) -> bool:
    """Ready, and not on its way out: a pod that ends says it is ready until it no longer is."""
    return is_ready(pod) and "deletionTimestamp" not in pod["metadata"]


def _is_accepted(record: Object) -> bool:
    """Whether the Gateway has taken over this very version of the HTTPRoute."""
    generation = record["metadata"].get("generation")
    conditions = [c for parent in record.get("status", {}).get("parents", ()) for c in parent.get("conditions", ())]
    accepted = [c for c in conditions if c["type"] == "Accepted"]
    return bool(accepted) and all(c["status"] == "True" and c.get("observedGeneration") == generation for c in accepted)
