"""The local serving target: two slot processes behind Envoy, everything it knows in files.

Every write that concerns traffic carries the generation of its request; one that comes too late is refused.
"""

from typing import Any

import httpx

from include.kernel.words.colours import COLOURS, Colour
from include.release.core.rollout import ObservedStatus
from include.release.targets import slot_client, slot_counters
from include.release.targets.base import ServingTarget
from include.release.targets.local.slots import LocalSlots
from include.release.targets.slot_counters import SlotCounters
from include.serving.words.recent import RecentAnswers, RecentQuery


class LocalTarget(LocalSlots, ServingTarget):
    def observe(self) -> ObservedStatus:
        return ObservedStatus(self._read_route(), *(self._read_slot(colour) for colour in COLOURS))

    def count_traffic(self, colour: Colour) -> SlotCounters | None:
        staged = self._read_staged(colour)
        try:
            text = self._http.get(f"{self._addresses.slots[colour]}/metrics").raise_for_status().text
        except httpx.HTTPError:
            return None
        return slot_counters.parse_counters(text, staged.version) if staged else None

    def fetch_recent_answers(self, colour: Colour, question: RecentQuery) -> RecentAnswers | None:
        return slot_client.fetch_recent_answers(self._http, self._addresses.slots[colour], colour, question)

    def fetch_predictions(self, colour: Colour | None, rows: list[dict[str, Any]]) -> httpx.Response:
        base = self._addresses.slots[colour] if colour else self._addresses.proxy
        return slot_client.fetch_predictions(self._http, base, rows, as_client=colour is None)
