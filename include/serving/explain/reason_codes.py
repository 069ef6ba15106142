"""Reason codes: which columns spoke for the adverse outcome, most first, in words a person can be told.

Codes come from the columns' names, or from the manifest, never from a model: a retrained model that sees a case alike
gives the same codes. Equal contributions are ordered by code, and contributions are compared to DIGITS digits, so that
neither the order of columns nor the last bits of a float decide what somebody is told. Four reasons is what United
States lenders are advised to give at most (Regulation B, comment 9(b)(2)-1), hence the default of the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from include.serving.spec import ReasonSpec

Direction = Literal["raised", "lowered"]
DIGITS = 6


@dataclass(frozen=True)
class Reason:
    """`direction` is that of the risk, which is the probability of the adverse outcome."""

    code: str
    column: str
    direction: Direction
    text: str
    contribution: float


@dataclass(frozen=True)
class ReasonCodes:
    """What spoke for the adverse outcome, and what against it; at most `top` of each, the strongest first."""

    reasons: tuple[Reason, ...]
    mitigating: tuple[Reason, ...]


@lru_cache(maxsize=4096)
def derive_code(column: str) -> str:
    return re.sub(r"\W+", "_", column).strip("_").upper() or "COLUMN"


def find(contributions: Mapping[str, float], specs: Mapping[str, ReasonSpec], top: int, sign: int = 1) -> ReasonCodes:
    """`sign` is 1 where a positive contribution raises the risk, else -1."""
    moved = [(_get_code(column, specs), column, value) for column, value in contributions.items()]
    strongest = sorted(moved, key=lambda item: (-round(abs(item[2]), DIGITS), item[0]))
    ranked = [item for item in strongest if round(item[2], DIGITS)]
    raised = [item for item in ranked if item[2] * sign > 0][:top]
    lowered = [item for item in ranked if item[2] * sign < 0][:top]
    return ReasonCodes(*(tuple(_build_reason(*item, specs, sign) for item in items) for items in (raised, lowered)))


def _build_reason(code: str, column: str, value: float, specs: Mapping[str, ReasonSpec], sign: int) -> Reason:
    direction: Direction = "raised" if value * sign > 0 else "lowered"
    spec = specs.get(column)
    own = (spec.text if direction == "raised" else spec.lowered) if spec else None
    return Reason(code, column, direction, own or f"{column} {direction} the risk", value)


def _get_code(column: str, specs: Mapping[str, ReasonSpec]) -> str:
    spec = specs.get(column)
    return spec.code if spec and spec.code else derive_code(column)
