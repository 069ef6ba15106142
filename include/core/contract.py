"""The contract as a list of expectations, and the verdict over their outcomes.

The manifest's `contract` section is the only definition. It is translated into plain expectations here; an adapter runs
them (Great Expectations) and hands back outcomes. So the rules can be read and tested without the engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from include.core.manifest import ColumnSpec, ContractSpec, LabelSpec

Rule = Literal["row_count", "exists", "typed", "complete", "unique", "in_range", "in_set"]


@dataclass(frozen=True)
class Expectation:
    rule: Rule
    column: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        wanted = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{self.column or 'rows'}: {self.rule.replace('_', ' ')}" + (f" ({wanted})" if wanted else "")


@dataclass(frozen=True)
class Outcome:
    expectation: Expectation
    passed: bool
    observed: str = ""

    def __str__(self) -> str:
        return f"{self.expectation}" + (f", found {self.observed}" if self.observed else "")


def expectations(contract: ContractSpec, label: LabelSpec) -> list[Expectation]:
    """Every rule of the contract, the structural ones first."""
    names = [contract.id, label.column, *contract.columns]
    rules = [Expectation("row_count", arguments={"min": contract.rows.min, "max": contract.rows.max})]
    rules += [Expectation("exists", name) for name in names]
    rules += [Expectation("complete", contract.id, {"max_missing": 0.0}), Expectation("unique", contract.id)]
    rules += [Expectation("in_set", label.column, {"values": (label.negative, label.positive)})]
    rules += [Expectation("complete", label.column, {"max_missing": 0.0})]
    for name, spec in contract.columns.items():
        rules += _column_rules(name, spec)
    return rules


def _column_rules(name: str, spec: ColumnSpec) -> list[Expectation]:
    rules = [Expectation("typed", name, {"kind": spec.kind})]
    rules += [Expectation("complete", name, {"max_missing": spec.max_missing})]
    if spec.min is not None or spec.max is not None:
        rules += [Expectation("in_range", name, {"min": spec.min, "max": spec.max})]
    if spec.values:
        rules += [Expectation("in_set", name, {"values": spec.values})]
    return rules


def refusal(outcomes: Iterable[Outcome], place: str) -> str | None:
    """One sentence naming every broken rule, or None when the rows may pass."""
    broken = [str(outcome) for outcome in outcomes if not outcome.passed]
    if not broken:
        return None
    return f"{place} breaks {len(broken)} rule(s) of the contract and was not published: {'; '.join(broken)}. " + (
        "Fix the delivery, or the contract section of the manifest if the data is right."
    )
