"""The local serving target: two slot processes behind Envoy, everything it knows in files.

Every write that concerns traffic carries the generation of the wish it serves, and one that comes too late is refused.
"""

from __future__ import annotations

from typing import Any

import httpx

from include.release.core.rollout import COLOURS, Colour, Observed
from include.release.targets import slot_client, slot_counters
from include.release.targets.base import ServingTarget
from include.release.targets.local.slots import LocalSlots
from include.release.targets.slot_counters import Counted
from include.serving.words.recent import RecentAnswers, RecentQuestion


class LocalTarget(LocalSlots, ServingTarget):
    def observe(self) -> Observed:
        return Observed(self._route(), *(self._slot(colour) for colour in COLOURS))

    def counted(self, colour: Colour) -> Counted | None:
        staged = self._staged(colour)
        try:
            text = self._http.get(f"{self._addresses.slots[colour]}/metrics").raise_for_status().text
        except httpx.HTTPError:
            return None
        return slot_counters.counted(text, staged.version) if staged else None

    def recent(self, colour: Colour, question: RecentQuestion) -> RecentAnswers | None:
        return slot_client.recent(self._http, self._addresses.slots[colour], colour, question)

    def ask(self, colour: Colour | None, rows: list[dict[str, Any]]) -> httpx.Response:
        base = self._addresses.slots[colour] if colour else self._addresses.proxy
        return slot_client.ask(self._http, base, rows, as_client=colour is None)
