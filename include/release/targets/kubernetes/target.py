"""The serving target on Kubernetes: two Deployments, and one object that says which of them is live.

What a Service cannot do is fail over to the standby when the live slot dies; replicas do that here
(`cluster.replicas`), and the standby is for the way back.
"""

from typing import Any

import httpx

from include.kernel.words.colours import COLOURS, Colour
from include.release.core.rollout import ObservedStatus
from include.release.targets import slot_client, slot_counters
from include.release.targets.base import ServingTarget
from include.release.targets.kubernetes import routes
from include.release.targets.kubernetes.records import read_staged
from include.release.targets.kubernetes.slots import KubernetesSlots
from include.release.targets.kubernetes.traffic import is_ready
from include.release.targets.slot_counters import SlotCounters
from include.serving.words.recent import RecentAnswers, RecentQuery


class KubernetesTarget(KubernetesSlots, ServingTarget):
    def observe(self) -> ObservedStatus:
        """Also finishes what a switch that was killed had begun."""
        self._replace_drained_pods(record := self._read_record())
        return ObservedStatus(routes.read_route(record), *(self._read_slot(colour) for colour in COLOURS))

    def count_traffic(self, colour: Colour) -> SlotCounters | None:
        """What the pods of a slot have answered together; None when one of them cannot be asked."""
        staged = read_staged(self._read_deployment(colour))
        pods = [pod for pod in self._list_pods(colour) if is_ready(pod)]
        if staged is None or not pods:
            return None
        at = f"/api/v1/namespaces/{self._namespace}/pods"
        texts = [self._cluster.read_text(f"{at}/{pod['metadata']['name']}:8000/proxy/metrics") for pod in pods]
        return slot_counters.merge_counters([slot_counters.parse_counters(text, staged.version) for text in texts])

    def fetch_recent_answers(self, colour: Colour, question: RecentQuery) -> RecentAnswers | None:
        """What a slot answered last; a slot of one replica, or the answers would be some of them."""
        return slot_client.fetch_recent_answers(self._http, self._slots[colour], colour, question)

    def fetch_predictions(self, colour: Colour | None, rows: list[dict[str, Any]]) -> httpx.Response:
        base = self._slots[colour] if colour else self._predictions
        return slot_client.fetch_predictions(self._http, base, rows, as_client=colour is None)
