"""The contract run by Great Expectations on a data frame: the oracle of the columnar engine, and what its page shows.

Great Expectations imports for seconds and holds a day in memory, so it does not carry the load. It says the same in
another way: every rule becomes one of its own expectations, and tests hold both engines to the same verdicts and the
same numbers of bad rows. Columns are read with pandas and the standard library here, so that a mistake in one engine
does not hide in the other.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from include.data import row_rules
from include.data.core.contract import NUMBER_TEXT, TIME_TEXT, ZONE_TEXT, Expectation, Outcome, describe_missing_column

if TYPE_CHECKING:
    import pandas as pd

DELIVERED, READ, KNOWN = "{} (as delivered)", "{} (can be read)", "{} (known values)"
DERIVED_SUFFIXES = tuple(pattern.format("") for pattern in (DELIVERED, READ, KNOWN))
CHECK = "check: {}"
DELIVERED_RULES = ("typed", "complete", "zoned")
NUMBER_TYPES = [
    "int",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "float",
    "float64",
    "float32",
]


def validate(rows: pd.DataFrame, rules: Sequence[Expectation], published: Iterable[str] = ()) -> list[Outcome]:
    """One outcome a rule, in order. Rules about a column that is not there pass: `exists` names it.

    `published` are the ids of other days, for the rule `new_id`.
    """
    return _run_rules(rows, cast_frame(rows, rules), rules, published)


def validate_typed(rows: pd.DataFrame, rules: Sequence[Expectation]) -> list[Outcome]:
    """The same for rows that were delivered in the types of their contract: nothing is read again, nothing copied."""
    checks = {
        _choose_column(rule, rows): rule.arguments["check"]
        for rule in rules
        if rule.rule == "holds" and can_run(rule, rows)
    }
    return _run_rules(
        rows, rows.assign(**{name: _evaluate_check(rows, check) for name, check in checks.items()}), rules, ()
    )


def _run_rules(
    rows: pd.DataFrame, frame: pd.DataFrame, rules: Sequence[Expectation], published: Iterable[str]
) -> list[Outcome]:
    runnable = [rule for rule in rules if can_run(rule, rows)]
    results = run(frame, runnable, published)
    found = dict(zip(map(id, runnable), results, strict=True))
    return [_build_outcome(rule, rows, found.get(id(rule))) for rule in rules]


def can_run(rule: Expectation, rows: pd.DataFrame) -> bool:
    """Whether the columns of a rule are there; `exists` is answered without the engine."""
    if rule.rule == "holds":
        return all(name in rows.columns for name in row_rules.list_columns(row_rules.parse(rule.arguments["check"])))
    return rule.rule != "exists" and (rule.column is None or rule.column in rows.columns)


def _build_outcome(rule: Expectation, rows: pd.DataFrame, result: Any) -> Outcome:
    if rule.rule == "exists":
        there = rule.column in rows.columns
        return Outcome(rule, there, "" if there else describe_missing_column(str(rule.column), list(rows.columns)))
    if result is None:
        return Outcome(rule, True)
    return Outcome(
        rule, bool(result.success), _describe_observed(result), int(result.result.get("unexpected_count") or 0)
    )


def _describe_observed(result: Any) -> str:
    found = result.result or {}
    if "observed_value" in found:
        return str(found["observed_value"])
    if found.get("unexpected_count"):
        return f"{found['unexpected_count']} of {found['element_count']} rows"
    return ""


def cast_frame(rows: pd.DataFrame, rules: Sequence[Expectation]) -> pd.DataFrame:
    """The rows with each column in the type of its contract, as delivered beside it, and what other rules look at.

    A cell that cannot be read is missing in the typed column and stays what it was in the delivered one.
    """
    import pandas as pd

    kinds = {str(rule.column): rule.arguments["kind"] for rule in rules if rule.rule == "typed"}
    columns: dict[str, Any] = {}
    for name in rows.columns:
        if name not in kinds:
            columns[name] = rows[name]
        else:
            column = _unfold_booleans(rows[name], kinds[name])
            columns[name] = READERS[kinds[name]](column)
            given = columns[DELIVERED.format(name)] = _clean_delivered(column, kinds[name])
            columns[READ.format(name)] = columns[name].notna().astype(object).where(given.notna(), None)
    frame = pd.DataFrame(columns, index=rows.index)
    for rule in rules:
        if rule.rule == "holds" and can_run(rule, rows):
            frame[_choose_column(rule, frame)] = _evaluate_check(frame, rule.arguments["check"])
        elif rule.rule == "mix_shift" and can_run(rule, rows):
            frame[_choose_column(rule, frame)] = frame[rule.column].where(
                frame[rule.column].isin(rule.arguments["shares"])
            )
    return frame


def _is_missing(value: object) -> bool:
    import pandas as pd

    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _unfold_booleans(column: pd.Series[Any], kind: str) -> pd.Series[Any]:
    """A boolean is a number 0 or 1, and a category of two."""
    if kind not in ("number", "integer", "category") or not any(isinstance(value, bool) for value in column):
        return column
    if kind == "category":
        return column.astype(object).map({True: "true", False: "false"}).astype(object)
    return column.astype(object).astype("float64")


def _clean_delivered(column: pd.Series[Any], kind: str) -> pd.Series[Any]:
    """As it came, value by value unless numbers came as numbers; a text that says NaN for a number is missing."""
    if kind in ("number", "integer") and _is_numeric(column):
        return column
    column = column.astype(object)
    if kind not in ("number", "integer"):
        return column
    said = column.map(lambda value: isinstance(value, str) and re.fullmatch(r"(?i:[+-]?nan)", value) is not None)
    return column.mask(said, None)


def _parse_number(value: object) -> float | None:
    from decimal import Decimal

    if _is_missing(value):
        return None
    if isinstance(value, str):
        return float(value) if re.fullmatch(NUMBER_TEXT, value) else None
    return float(value) if isinstance(value, int | float | Decimal) else None


def _is_numeric(column: pd.Series[Any]) -> bool:
    import pandas as pd

    return pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)


def _read_numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    if _is_numeric(column):
        return column.astype("float64")
    return column.astype(object).map(_parse_number).astype("float64")


def _read_integers(column: pd.Series[Any]) -> pd.Series[Any]:
    numbers = _read_numbers(column)
    return numbers.where((numbers % 1 == 0) & (numbers.abs() < 2**63))


def _read_texts(column: pd.Series[Any]) -> pd.Series[Any]:
    return column.astype(object).map(lambda value: value if isinstance(value, str) else None).astype(object)


def _read_ids(column: pd.Series[Any]) -> pd.Series[Any]:
    return column.astype(object).map(_parse_id).astype(object)


def _parse_id(value: object) -> str | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if whole or isinstance(value, str) else None


def _parse_time(value: object) -> float | None:
    """Microseconds since 1970, UTC; exact in a float until the year 2255."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value) if re.fullmatch(TIME_TEXT, value) else None
        except ValueError:
            return None
    if not isinstance(value, datetime) or _is_missing(value):
        return None
    return float((_attach_utc(value) - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution))


def _attach_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _read_times(column: pd.Series[Any]) -> pd.Series[Any]:
    return column.astype(object).map(_parse_time).astype("float64")


READERS: dict[str, Callable[[Any], Any]] = {
    "number": _read_numbers,
    "integer": _read_integers,
    "category": _read_texts,
    "id": _read_ids,
    "timestamp": _read_times,
}


def _evaluate_check(frame: pd.DataFrame, check: str) -> pd.Series[Any]:
    """Whether the rule holds; missing where one of its cells is missing or infinite."""
    tree = row_rules.parse(check)
    named = frame[list(row_rules.list_columns(tree))]
    judged = (named.notna() & ~named.isin([math.inf, -math.inf])).all(axis=1)
    holds: pd.Series[Any] = row_rules.evaluate(tree, lambda name: frame[name])
    return holds.astype(object).where(judged)


def run(frame: pd.DataFrame, rules: Sequence[Expectation], published: Iterable[str] = ()) -> list[Any]:
    """The engine's own results, one a rule, in order; `frame` comes from `readable`."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    source = context.data_sources.add_pandas("memory")
    batch = source.add_dataframe_asset("day").add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(
        gx.ExpectationSuite(name="contract", expectations=translate_rules(frame, rules, published))
    )
    definition = gx.ValidationDefinition(name="contract", data=batch, suite=suite)
    validation = context.validation_definitions.add(definition)
    result = validation.run(batch_parameters={"dataframe": frame}, result_format={"result_format": "SUMMARY"})
    return _sort_results(result.results, suite)


def _sort_results(results: list[Any], suite: Any) -> list[Any]:
    """Great Expectations may group its results by metric; the suite's ids put them back into order."""
    by_id = {result.expectation_config.id: result for result in results}
    return [by_id[expectation.id] for expectation in suite.expectations]


Translation = tuple[str, dict[str, Any]]


def translate_rules(frame: pd.DataFrame, rules: Sequence[Expectation], published: Iterable[str] = ()) -> list[Any]:
    """Each rule as an expectation of Great Expectations, with its severity."""
    import great_expectations.expectations as known

    ids = sorted(published)
    named = [(rule, *_translate(rule, frame, ids)) for rule in rules]
    return [getattr(known, name)(severity=rule.severity, **arguments) for rule, name, arguments in named]


def build_expectation(what: str, column: str, **arguments: Any) -> Translation:
    return f"ExpectColumn{what}", {"column": column, **arguments}


def _translate(rule: Expectation, frame: pd.DataFrame, published: list[str]) -> Translation:
    column, given = _choose_column(rule, frame), rule.arguments
    match rule.rule:
        case "row_count":
            return "ExpectTableRowCountToBeBetween", {"min_value": given["min"], "max_value": given["max"]}
        case "declared":
            return "ExpectTableColumnsToMatchSet", {"column_set": _list_allowed_columns(frame, given["columns"])}
        case "typed":
            return _translate_type(rule, column, frame)
        case "unique":
            return build_expectation("ValuesToBeUnique", column)
        case "complete":
            return build_expectation("ValuesToNotBeNull", column, mostly=round(1 - given["max_missing"], 12))
        case "new_id":
            return build_expectation("ValuesToNotBeInSet", column, value_set=published)
        case "holds":
            return build_expectation("ValuesToBeInSet", column, value_set=[True])
        case "in_set" | "known_values":
            return build_expectation("ValuesToBeInSet", column, value_set=list(given["values"]))
    return _translate_bound(rule, column)


def _translate_bound(rule: Expectation, column: str) -> Translation:
    given, most = rule.arguments, sys.float_info.max
    match rule.rule:
        case "finite":
            return build_expectation("ValuesToBeBetween", column, min_value=-most, max_value=most)
        case "in_range":
            return build_expectation("ValuesToBeBetween", column, min_value=given["min"], max_value=given["max"])
        case "matches":
            return build_expectation("ValuesToMatchRegex", column, regex=rf"\A(?:{given['pattern']})\Z")
        case "zoned":
            either = "ValuesToMatchRegex" if given["zone"] == "required" else "ValuesToNotMatchRegex"
            return build_expectation(either, column, regex=rf"{ZONE_TEXT}\Z")
        case "in_day":
            since, until = _parse_time(given["since"]), _parse_time(given["until"])
            return build_expectation("ValuesToBeBetween", column, min_value=since, max_value=until, strict_max=True)
        case "mean_shift":
            return build_expectation("MeanToBeBetween", column, min_value=given["min"], max_value=given["max"])
        case "mix_shift":
            expected = {"values": list(given["shares"]), "weights": list(given["shares"].values())}
            return build_expectation(
                "KLDivergenceToBeLessThan", column, partition_object=expected, threshold=given["max"]
            )
    raise AssertionError(rule.rule)


def _choose_column(rule: Expectation, frame: pd.DataFrame) -> str:
    """The column of the frame a rule is about."""
    if rule.rule == "holds":
        return CHECK.format(rule.arguments["check"])
    if rule.rule == "mix_shift":
        return KNOWN.format(rule.column)
    delivered = DELIVERED.format(rule.column)
    return delivered if rule.rule in DELIVERED_RULES and delivered in frame.columns else str(rule.column)


def _list_allowed_columns(frame: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    """What may be there: the declared columns that are, and ours beside them."""
    derived = [name for name in frame.columns if name.endswith(DERIVED_SUFFIXES) or name.startswith(CHECK.format(""))]
    return [*(name for name in columns if name in frame.columns), *derived]


def _translate_type(rule: Expectation, column: str, frame: pd.DataFrame) -> Translation:
    match rule.arguments["kind"]:
        case "category":
            return build_expectation("ValuesToBeInTypeList", column, type_list=["str"])
        case "id":
            return build_expectation("ValuesToBeInTypeList", column, type_list=["str", "int"])
        case "number" if frame[column].dtype == object:
            return build_expectation("ValuesToMatchRegex", column, regex=rf"\A(?:{NUMBER_TEXT})\Z")
        case "number":
            return build_expectation("ValuesToBeInTypeList", column, type_list=NUMBER_TYPES)
    return build_expectation("ValuesToBeInSet", READ.format(rule.column), value_set=[True])
