"""The contract as a list of expectations, and the verdict over their outcomes.

The manifest's `contract` section is the only definition. It is translated into plain expectations here; an engine runs
them and hands back outcomes. So the rules can be read and tested without an engine, and two engines can be held to the
same list: the columnar one that carries the load, and Great Expectations, its oracle and report.

Two sorts of rule. One about rows says which rows are bad; those can be set aside when they are few. One about the day
(its size, its columns, a flood of missing values, a shift) leaves no row to blame: it refuses the day, or warns.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal

from include.data.spec import ColumnSpec, ContractSpec, DataManifest, EventTime, ExtraSpec, LabelSpec, ShiftBound
from include.kernel.spec import Severity

Rule = Literal[
    "row_count", "declared", "exists", "typed", "zoned", "in_day", "complete", "unique", "new_id", "finite", "in_range",
    "in_set", "matches", "known_values", "holds", "mean_shift", "mix_shift",
]  # fmt: skip
ROW_RULES = frozenset(
    ("typed", "zoned", "in_day", "unique", "new_id", "finite", "in_range", "in_set", "matches", "known_values", "holds")
)
ALWAYS_CRITICAL = frozenset(("exists", "typed", "finite"))
CELL_CHARACTERS = 40
MINUTE = "%Y-%m-%d %H:%M"
EXAMPLE_ROWS = 3
EXAMPLE_TIME = "2026-08-31T09:30:00Z"
MAX_NAMED_COLUMNS = 8
MAX_KNOWN_VALUES = 1000  # a reference with more distinct values than this is no list of categories

# What counts as a number or a time where cells are text: the same words for every engine.
NUMBER_TEXT = r"(?i:[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?(?:inf|infinity|nan))"
ZONE_TEXT = r"(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)"  # +00 is how PostgreSQL writes it
TIME_TEXT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?" + f"{ZONE_TEXT}?"


@dataclass(frozen=True)
class Expectation:
    rule: Rule
    column: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity = "critical"

    @property
    def about_rows(self) -> bool:
        """Whether a broken rule names bad rows, which can be set aside."""
        return self.rule in ROW_RULES or (self.rule == "complete" and self.arguments["max_missing"] == 0)

    def __str__(self) -> str:
        wanted = ", ".join(f"{name}={_shorten_value(value)}" for name, value in self.arguments.items())
        return f"{self.column or 'rows'}: {self.rule.replace('_', ' ')}" + (f" ({wanted})" if wanted else "")


@dataclass(frozen=True)
class Outcome:
    """What an engine found. `bad` counts rows (about_rows), `observed` tells the rest in words."""

    expectation: Expectation
    passed: bool
    observed: str = ""
    bad: int = 0

    def __str__(self) -> str:
        return f"{self.expectation}" + (f", found {self.observed}" if self.observed else "")


@dataclass(frozen=True)
class Validation:
    """A day after its contract: `accepted` may be published, or `refusal` says in one sentence why nothing may.

    `quarantine` holds the rows set aside with their reasons, `page` the same for a browser.
    """

    outcomes: tuple[Outcome, ...]
    rows: int
    quarantined: int
    accepted: Path | None
    quarantine: Path | None
    refusal: str | None
    warnings: tuple[str, ...]
    page: Path | None = None


@dataclass(frozen=True)
class Reference:
    """What is remembered of the day that a new one is compared with: moments of numbers, counts of categories."""

    moments: Mapping[str, tuple[float, float, int]] = field(default_factory=dict)  # mean, standard deviation, count
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def list_expectations(contract: ContractSpec, label: LabelSpec) -> list[Expectation]:
    """Every rule that needs no more than the day itself, the structural ones first."""
    names = [contract.id, label.column, *contract.declared]
    policy: Severity = "critical" if contract.unknown_columns == "refuse" else "warning"
    rules = [Expectation("row_count", arguments={"min": contract.rows.min, "max": contract.rows.max})]
    rules += [Expectation("declared", arguments={"columns": tuple(names)}, severity=policy)]
    rules += [Expectation("exists", name) for name in names]
    rules += [Expectation("typed", contract.id, {"kind": "id"})]
    rules += [Expectation("complete", contract.id, {"max_missing": 0.0}), Expectation("unique", contract.id)]
    rules += [Expectation("typed", label.column, {"kind": choose_label_kind(label)})]
    rules += [Expectation("in_set", label.column, {"values": (label.negative, label.positive)})]
    rules += [Expectation("complete", label.column, {"max_missing": 0.0})]
    for name, spec in contract.declared.items():
        rules += _list_column_rules(name, spec)
    return rules + [Expectation("holds", None, {"check": rule.check}, rule.severity) for rule in contract.checks]


def choose_label_kind(label: LabelSpec) -> Literal["integer", "category"]:
    return "integer" if label.kind == "number" else "category"


def _list_column_rules(name: str, spec: ColumnSpec | ExtraSpec) -> list[Expectation]:
    rules: list[tuple[Rule, dict[str, Any]]] = [("typed", {"kind": spec.kind})]
    rules += [("complete", {"max_missing": spec.max_missing})]
    rules += [("unique", {})] if spec.unique else []
    rules += [("finite", {})] if spec.kind == "number" else []
    if spec.min is not None or spec.max is not None:
        rules += [("in_range", {"min": spec.min, "max": spec.max})]
    rules += [("in_set", {"values": spec.values})] if spec.values else []
    rules += [("matches", {"pattern": spec.matches})] if spec.matches else []
    return [Expectation(rule, name, arguments, choose_severity(spec, rule)) for rule, arguments in rules]


def choose_severity(spec: ColumnSpec | ExtraSpec, rule: Rule, otherwise: Severity | None = None) -> Severity:
    """A cell of the wrong type, or an infinity, is never let through: nothing downstream could use it."""
    if rule in ALWAYS_CRITICAL:
        return "critical"
    return "warning" if rule in spec.warn_on else otherwise or spec.severity


def list_event_time_rules(contract: ContractSpec, day: date) -> list[Expectation]:
    """The rules about when rows happened: the zone is said (or is not), and the time lies in the day, in UTC."""
    rule = contract.event_time
    if rule is None:
        return []
    zoned = Expectation("zoned", rule.column, {"zone": rule.zone}, rule.severity)
    since, until = compute_day_bounds(rule, day)
    return [zoned, Expectation("in_day", rule.column, {"since": since, "until": until}, rule.severity)]


def compute_day_bounds(rule: EventTime, day: date) -> tuple[datetime, datetime]:
    """[since, until) in UTC; late rows may have happened `late_hours` before the day."""
    began = datetime.combine(day, time(), UTC)
    return began - timedelta(hours=rule.late_hours), began + timedelta(days=1)


def list_reference_rules(contract: ContractSpec, reference: Reference | None, rows: int) -> list[Expectation]:
    """The rules that compare a day of `rows` rows with the reference; none without one."""
    if reference is None:
        return []
    rules: list[Expectation] = []
    for name, spec in contract.columns.items():
        if name in reference.counts and not spec.values and len(reference.counts[name]) <= MAX_KNOWN_VALUES:
            policy: Severity = "critical" if contract.new_values == "refuse" else "warning"
            values = tuple(sorted(reference.counts[name]))
            rules.append(
                Expectation("known_values", name, {"values": values}, choose_severity(spec, "known_values", policy))
            )
        if contract.shift:
            rules += _list_shift_rules(name, spec, contract.shift, reference, rows)
    return rules


def _list_shift_rules(
    name: str, spec: ColumnSpec, bound: ShiftBound, reference: Reference, rows: int
) -> list[Expectation]:
    if name in reference.moments:
        span = compute_mean_bounds(reference.moments[name], bound, rows)
        limits = {"min": span[0], "max": span[1]}
        return [Expectation("mean_shift", name, limits, choose_severity(spec, "mean_shift", bound.severity))]
    counts = reference.counts.get(name, {})
    if not 1 < len(counts) <= MAX_KNOWN_VALUES:
        return []
    threshold = bound.mix + compute_mix_noise(len(counts), rows, sum(counts.values()), bound.z)
    arguments: dict[str, Any] = {"max": threshold, "shares": compute_shares(counts)}
    return [Expectation("mix_shift", name, arguments, choose_severity(spec, "mix_shift", bound.severity))]


def compute_mean_bounds(moments: tuple[float, float, int], bound: ShiftBound, rows: int) -> tuple[float, float]:
    """The reference mean, give or take the bound and z standard errors of a difference of two means."""
    mean, deviation, count = moments
    noise = bound.z * math.sqrt(1 / max(rows, 1) + 1 / max(count, 1))
    room = deviation * (bound.mean + noise) + 1e-9 * abs(mean)
    return mean - room, mean + room


def compute_mix_noise(categories: int, rows: int, reference_rows: int, z: float) -> float:
    """What two samples of the same mix differ by: 2 KL / (1/n + 1/m) is about chi-square with k - 1 degrees of freedom
    (Kullback 1959, chapter 6), here its mean and z standard deviations."""
    freedom = max(categories - 1, 1)
    return 0.5 * (1 / max(rows, 1) + 1 / max(reference_rows, 1)) * (freedom + z * math.sqrt(2 * freedom))


def compute_shares(counts: Mapping[str, int]) -> dict[str, float]:
    """The share of each value, half a row added to each so that none is impossible (Jeffreys' prior)."""
    total = sum(counts.values()) + 0.5 * len(counts)
    return {value: (count + 0.5) / total for value, count in sorted(counts.items())}


def compute_divergence(counts: Mapping[str, int], expected: Mapping[str, float]) -> float:
    """KL(observed || expected) in nats over the expected values; what is new is another rule's business."""
    known = {value: count for value, count in counts.items() if value in expected and count}
    total = sum(known.values())
    if not total:
        return math.inf
    return sum(count / total * math.log(count / total / expected[value]) for value, count in known.items())


def explain_refusal(outcomes: Iterable[Outcome], place: str) -> str | None:
    """One sentence naming every broken rule, or None when the rows may pass."""
    broken = [str(outcome) for outcome in outcomes if not outcome.passed]
    if not broken:
        return None
    return f"{place} breaks {len(broken)} rule(s) of the contract and was not published: {'; '.join(broken)}. " + (
        "Fix the delivery, or the contract section of the manifest if the data is right."
    )


def judge_day(outcomes: Sequence[Outcome], rows: int, bad: int, manifest: DataManifest, place: str) -> str | None:
    """The refusal, or None when what is left after setting `bad` rows aside may be published."""
    contract = manifest.contract
    critical = [each for each in outcomes if not each.passed and each.expectation.severity == "critical"]
    about_day = [each for each in critical if not each.expectation.about_rows]
    if not about_day and _can_quarantine(rows, bad, contract):
        return None
    told = explain_refusal(critical, place) or f"{place} was not published."
    return f"{told} {_describe_bad_share(rows, bad, contract)}" if bad else told


def count_allowed(rows: int, contract: ContractSpec) -> int:
    """How many of `rows` rows may be set aside."""
    return math.floor(contract.max_quarantined * rows + 1e-9)


def _can_quarantine(rows: int, bad: int, contract: ContractSpec) -> bool:
    return bad <= count_allowed(rows, contract) and rows - bad >= min(contract.rows.min, rows)


def _describe_bad_share(rows: int, bad: int, contract: ContractSpec) -> str:
    return f"{bad} of {rows} rows are bad; contract.max_quarantined lets {count_allowed(rows, contract)} be set aside."


def list_warnings(outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    return tuple(str(each) for each in outcomes if not each.passed and each.expectation.severity == "warning")


def should_render_docs(policy: Literal["live", "always", "never"], live: bool, refused: bool) -> bool:
    """Whether a day gets a page of Data Docs: it costs seconds, which a backfill of many good days should not pay."""
    return policy != "never" and (refused or policy == "always" or live)


def explain_bad_row(expectation: Expectation) -> str:
    """Why a row stands in quarantine, for the person who reads it beside the row."""
    name, given = expectation.column, expectation.arguments
    match expectation.rule:
        case "typed":
            return f"{name} cannot be read as {given['kind']}"
        case "zoned":
            return f"{name} has {'no time zone' if given['zone'] == 'required' else 'a time zone, and none was agreed'}"
        case "in_day":
            return f"{name} is not in the day, from {given['since']:{MINUTE}} until {given['until']:{MINUTE}} UTC"
        case "complete":
            return f"{name} is missing"
        case "unique":
            return f"{name} stands more than once in this delivery"
        case "new_id":
            return f"{name} stands already in a published day"
        case "finite":
            return f"{name} is infinite"
        case "in_range":
            return f"{name} is {_describe_range_breach(given['min'], given['max'])}"
        case "in_set" | "known_values":
            return f"{name} is none of {_shorten_value(given['values'])}"
        case "matches":
            return f"{name} does not match {given['pattern']}"
        case "holds":
            return f"{given['check']} does not hold"
    raise AssertionError(expectation.rule)


def _describe_range_breach(low: float | None, high: float | None) -> str:
    if low is None:
        return f"above {high:g}"
    return f"below {low:g}" if high is None else f"not between {low:g} and {high:g}"


def describe_bad_rows(bad: int, rows: int, first: Sequence[int], examples: Sequence[str]) -> str:
    """`2 of 101 rows (4, 9), such as 'castle'`; row 1 is the first row of data."""
    more = ", ..." if bad > len(first[:EXAMPLE_ROWS]) else ""
    listed = ", ".join(str(number) for number in first[:EXAMPLE_ROWS]) + more
    return f"{bad} of {rows} rows ({listed})" + (
        f", such as {' and '.join(examples[:EXAMPLE_ROWS])}" if examples else ""
    )


def describe_missing_column(name: str, delivered: Sequence[str]) -> str:
    """What the delivery has instead, the nearest name first."""
    near = difflib.get_close_matches(name, delivered, n=MAX_NAMED_COLUMNS)
    listed = [*near, *(each for each in delivered if each not in near)]
    more = f" and {len(listed) - MAX_NAMED_COLUMNS} more" if len(listed) > MAX_NAMED_COLUMNS else ""
    return f"no such column, only {', '.join(map(quote_cell, listed[:MAX_NAMED_COLUMNS]))}{more}"


def describe_type(kind: str, delivered: str | None) -> str:
    """What a column that cannot be read as `kind` was `delivered` as, or how its text is written."""
    if delivered is not None:
        return f", delivered as {delivered}"
    return f"; write a time as {EXAMPLE_TIME}" if kind == "timestamp" else ""


def quote_cell(value: object) -> str:
    """A cell as it may stand in any log or page: quoted, one line, no markup, no formula, at most SHOWN characters."""
    if not isinstance(value, str):
        return str(value)[:CELL_CHARACTERS]
    cut = value if len(value) <= CELL_CHARACTERS else f"{value[: CELL_CHARACTERS - 1]}…"
    return repr(cut).translate({ord(mark): f"\\x{ord(mark):02x}" for mark in "<>&"})


def _shorten_value(value: object) -> str:
    """Long lists are cut: a sentence has to stay one."""
    if isinstance(value, tuple) and len(value) > 12:
        return f"({', '.join(map(repr, value[:8]))}, ... {len(value)} in all)"
    return f"{len(value)} values" if isinstance(value, Mapping) else str(value)
