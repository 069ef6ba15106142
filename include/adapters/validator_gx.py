"""Runs the contract's expectations with Great Expectations; the verdict stays in `include.core.contract`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from include.core.contract import Expectation, Outcome

if TYPE_CHECKING:
    import pandas as pd


def validate(rows: pd.DataFrame, expectations: list[Expectation]) -> list[Outcome]:
    """One outcome an expectation, in order. Rules about a column that is not there fail without being run."""
    absent = {e.column for e in expectations if e.rule == "exists" and e.column not in rows.columns}
    runnable = [e for e in expectations if e.rule != "exists" and e.column not in absent]
    results = iter(_run(rows, runnable))
    return [_outcome(expectation, absent, results) for expectation in expectations]


def _outcome(expectation: Expectation, absent: set[str | None], results: Any) -> Outcome:
    if expectation.rule == "exists":
        return Outcome(expectation, expectation.column not in absent, "no such column" * (expectation.column in absent))
    if expectation.column in absent:
        return Outcome(expectation, True)  # named once, by its missing column
    result = next(results)
    return Outcome(expectation, bool(result.success), _observed(result))


def _observed(result: Any) -> str:
    found = result.result or {}
    if "observed_value" in found:
        return str(found["observed_value"])
    if found.get("unexpected_count"):
        examples = found.get("partial_unexpected_list") or []
        shown = f", such as {examples[0]!r}" if examples and examples[0] is not None else ""
        return f"{found['unexpected_count']} of {found['element_count']} rows{shown}"
    return ""


def _run(rows: pd.DataFrame, expectations: list[Expectation]) -> list[Any]:
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    source = context.data_sources.add_pandas("memory")
    batch = source.add_dataframe_asset("day").add_batch_definition_whole_dataframe("all")
    suite = gx.ExpectationSuite(name="contract", expectations=[_translate(e) for e in expectations])
    suite = context.suites.add(suite)
    definition = gx.ValidationDefinition(name="contract", data=batch, suite=suite)
    run = context.validation_definitions.add(definition)
    result = run.run(batch_parameters={"dataframe": rows}, result_format={"result_format": "SUMMARY"})
    return _in_order(result.results, suite)


def _in_order(results: list[Any], suite: Any) -> list[Any]:
    """Great Expectations may group its results by metric; the suite's ids put them back into order."""
    by_id = {result.expectation_config.id: result for result in results}
    return [by_id[expectation.id] for expectation in suite.expectations]


def _translate(expectation: Expectation) -> Any:
    import great_expectations.expectations as expectations

    gxe: Any = expectations  # it names its classes in a way that type checkers do not see
    column, arguments = expectation.column, expectation.arguments
    match expectation.rule:
        case "row_count":
            return gxe.ExpectTableRowCountToBeBetween(min_value=arguments["min"], max_value=arguments["max"])
        case "complete":
            return gxe.ExpectColumnValuesToNotBeNull(column=column, mostly=1 - arguments["max_missing"])
        case "unique":
            return gxe.ExpectColumnValuesToBeUnique(column=column)
        case "in_range":
            return gxe.ExpectColumnValuesToBeBetween(
                column=column, min_value=arguments["min"], max_value=arguments["max"]
            )
        case "in_set":
            return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=list(arguments["values"]))
        case "typed":
            return gxe.ExpectColumnValuesToBeInTypeList(column=column, type_list=_types(arguments["kind"]))
    raise AssertionError(expectation.rule)


def _types(kind: str) -> list[str]:
    if kind == "number":
        return ["int", "int64", "int32", "float", "float64", "float32", "Int64", "Float64"]
    return ["str", "object", "object_", "string", "category"]
