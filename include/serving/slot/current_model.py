"""The slot a server holds now. One reference, replaced whole: who has taken it keeps it until his request is done.

So a reload needs no lock and drops nothing: requests in flight finish on the model they began with, and the old model
is gone with the last of them. Where the manifest's fallback is the previous version, that one is kept beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from include.serving.slot.contents import Empty, Loaded, Slot

if TYPE_CHECKING:
    from include.model.schema import Kind


class CurrentModel:
    def __init__(
        self,
        colour: str,
        slot: Slot,
        key: str | None = None,
        keeps_previous: bool = False,
        previous: Loaded | None = None,
        contract: Mapping[str, Kind] | None = None,
    ) -> None:
        """`key` is the column, no input of any model, by which callers may name their rows; `contract` are those that
        they may send to every model, whichever of them it needs."""
        self.colour = colour
        self.key = key
        self._unneeded: dict[str, Kind] = {**(contract or {}), **({key: "category"} if key else {})}
        self.on_swap: list[Callable[[], None]] = []  # called after a swap, by whoever swaps
        self.slot: Slot = Empty()
        self._keeps_previous = keeps_previous
        self.swap(slot)
        self.previous = previous
        self.is_shutting_down = False

    @property
    def version(self) -> str:
        return self.slot.file.version if self.slot.file else "none"

    @property
    def refusal(self) -> str | None:
        """Why no new traffic should come here; None while it may."""
        if self.is_shutting_down:
            return "The server is shutting down; ask the other slot."
        return None if isinstance(self.slot, Loaded) else self.slot.why

    def swap(self, slot: Slot) -> None:
        if self._keeps_previous and isinstance(self.slot, Loaded):
            self.previous = self.slot
        self.slot = replace(slot, unneeded=self._unneeded) if isinstance(slot, Loaded) else slot
        for follow in self.on_swap:
            follow()
