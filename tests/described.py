"""A snapshot's description as a store would keep it, with what a test does not care about filled in."""

from __future__ import annotations

from typing import Any

from include.data.core.snapshots import Snapshot


def snapshot(**told: Any) -> Snapshot:
    content: dict[str, Any] = {"columns": ("a",), "source": "test", "manifest": "m", "expectations": 1}
    return Snapshot(**{**content, **told})
