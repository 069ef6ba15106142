"""The names of groups of rows, the same in the gate's report and in what a slot tells of a row."""

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol


class GroupsSpec(Protocol):
    """The manifest's `groups`."""

    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def bands(self) -> Mapping[str, Sequence[float]]: ...


def name_bands(cuts: Sequence[float]) -> list[str]:
    """One more than there are cuts: below the first, between two, from the last on."""
    return [f"<{cuts[0]:g}", *(f"{low:g}-{high:g}" for low, high in pairwise(cuts)), f">={cuts[-1]:g}"]


def name_slices(row: Mapping[str, Any], spec: GroupsSpec, categories: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """The slices a row belongs to, one for each column that it has a value of: numbers by their bands, `categories` by
    name. A category that no training saw has none, so that slices never grow with what callers invent."""
    present = [name for name in spec.columns if row.get(name) is not None]
    return tuple(
        f"{name}={name_bands(spec.bands[name])[bisect_right(spec.bands[name], row[name])]}"
        if name in spec.bands
        else f"{name}={row[name]}"
        for name in present
        if name in spec.bands or row[name] in categories.get(name, ())
    )
