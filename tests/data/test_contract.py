from __future__ import annotations

import pytest
import yaml

from include import manifest as manifests
from include.data.core.contract import (
    Expectation,
    Outcome,
    choose_severity,
    compute_divergence,
    compute_mix_noise,
    compute_shares,
    explain_refusal,
    judge_day,
    list_expectations,
    list_warnings,
    quote_cell,
    should_render_docs,
)
from include.data.spec import ColumnSpec, ContractSpec, LabelSpec, RowCount
from include.kernel.errors import ManifestInvalid

LABEL = LabelSpec(column="status", positive="bad", negative="good", delay_days=3)
CONTRACT = ContractSpec(
    id="loan",
    rows=RowCount(min=2, max=9),
    columns={
        "age": ColumnSpec(kind="number", min=18),
        "home": ColumnSpec(kind="category", values=("rent", "own"), max_missing=0.1),
        "note": ColumnSpec(kind="category"),
    },
)
RULES = list_expectations(CONTRACT, LABEL)


def about(column: str | None) -> list[str]:
    return [str(rule) for rule in RULES if rule.column == column]


def test_the_number_of_rows_comes_first_then_whether_every_column_is_there() -> None:
    assert str(RULES[0]) == "rows: row count (min=2, max=9)"
    assert [rule.column for rule in RULES if rule.rule == "exists"] == ["loan", "status", "age", "home", "note"]
    assert str(RULES[1]) == "rows: declared (columns=('loan', 'status', 'age', 'home', 'note'))"
    assert {rule.rule for rule in RULES[2:7]} == {"exists"}


def test_the_id_is_complete_and_unique() -> None:
    assert about("loan") == [
        "loan: exists",
        "loan: typed (kind=id)",
        "loan: complete (max_missing=0.0)",
        "loan: unique",
    ]


def test_the_label_is_complete_and_one_of_its_two_classes() -> None:
    assert about("status")[2:] == ["status: in set (values=('good', 'bad'))", "status: complete (max_missing=0.0)"]


def test_a_number_is_typed_complete_finite_and_in_range() -> None:
    told = ["typed (kind=number)", "complete (max_missing=0.0)", "finite", "in range (min=18.0, max=None)"]
    assert about("age")[1:] == [f"age: {rule}" for rule in told]


def test_a_category_is_typed_complete_and_one_of_its_values() -> None:
    told = ["home: typed (kind=category)", "home: complete (max_missing=0.1)", "home: in set (values=('rent', 'own'))"]
    assert about("home")[1:] == told


def test_a_category_without_listed_values_may_hold_any() -> None:
    assert about("note")[1:] == ["note: typed (kind=category)", "note: complete (max_missing=0.0)"]


def test_every_column_of_the_shipped_manifest_is_under_contract() -> None:
    shipped = manifests.load()
    found = list_expectations(shipped.contract, shipped.label)
    for name in shipped.contract.columns:
        assert {"exists", "typed", "complete"} <= {rule.rule for rule in found if rule.column == name}
    assert len(set(map(str, found))) == len(found)


def test_rows_that_keep_every_rule_may_pass() -> None:
    assert explain_refusal([Outcome(rule, True) for rule in RULES], "the day") is None
    assert explain_refusal([], "the day") is None


def test_a_refusal_names_the_place_and_every_broken_rule_with_what_was_found_instead() -> None:
    broken = [
        Outcome(Expectation("unique", "loan"), False, "2 duplicates"),
        Outcome(Expectation("exists", "age"), True),
        Outcome(Expectation("exists", "home"), False),
    ]
    told = explain_refusal(broken, "2026-08-01")
    assert told is not None
    assert told.startswith("2026-08-01 breaks 2 rule(s) of the contract and was not published: ")
    assert "loan: unique, found 2 duplicates; home: exists. " in told
    assert "age" not in told


def broken(rule: str, column: str | None, bad: int, severity: str = "critical", **arguments: object) -> Outcome:
    return Outcome(Expectation(rule, column, arguments, severity), False, f"{bad} rows", bad)  # type: ignore[arg-type]


def tolerant(share: float) -> manifests.Manifest:
    shipped = manifests.load()
    contract = shipped.contract.model_copy(update={"max_quarantined": share, "rows": RowCount(min=20, max=200)})
    return shipped.model_copy(update={"contract": contract})


def test_few_bad_rows_are_set_aside_and_more_refuse_the_day_with_both_numbers() -> None:
    outcomes = [broken("in_range", "age", 2, min=18, max=None)]
    assert judge_day(outcomes, 200, 2, tolerant(0.01), "the day") is None
    told = judge_day(outcomes, 199, 2, tolerant(0.01), "the day")
    assert told is not None and told.endswith("2 of 199 rows are bad; contract.max_quarantined lets 1 be set aside.")


def test_a_broken_rule_about_the_day_refuses_it_however_many_rows_may_be_set_aside() -> None:
    for outcome in (broken("exists", "age", 0), broken("complete", "age", 9, max_missing=0.3)):
        assert judge_day([outcome], 100, 0, tolerant(1.0), "the day") is not None


def test_a_missing_cell_is_a_bad_row_only_where_none_is_allowed() -> None:
    assert broken("complete", "age", 1, max_missing=0.0).expectation.about_rows
    assert not broken("complete", "age", 1, max_missing=0.1).expectation.about_rows


def test_what_is_left_after_setting_rows_aside_must_still_be_a_day() -> None:
    assert judge_day([broken("unique", "loan", 6)], 25, 6, tolerant(1.0), "the day") is not None


def test_a_rule_that_warns_is_told_and_refuses_nothing() -> None:
    outcomes = [broken("in_set", "home", 50, "warning", values=("rent",))]
    assert judge_day(outcomes, 100, 0, tolerant(0.0), "the day") is None
    assert list_warnings(outcomes) == ("home: in set (values=('rent',)), found 50 rows",)


def test_no_severity_lets_a_cell_of_the_wrong_type_or_an_infinity_through() -> None:
    spec = ColumnSpec(kind="number", min=1, severity="warning", warn_on=("in_range",))
    assert [choose_severity(spec, rule) for rule in ("typed", "finite", "exists", "in_range", "complete")] == [
        "critical", "critical", "critical", "warning", "warning",
    ]  # fmt: skip


def test_a_cell_in_a_sentence_is_one_short_line_without_markup_or_formula() -> None:
    for nasty in ("=1+1", "<script>\n", "a" * 500, "\x1b[31m", "\u2028"):
        told = quote_cell(nasty)
        assert told[0] in "'\"" and len(told) < 60 and told.isprintable() and not set("<>&") & set(told)


def test_two_samples_of_one_mix_lie_within_the_noise_and_a_turned_mix_does_not() -> None:
    expected = compute_shares({"own": 500, "rent": 300, "other": 200})
    noise = compute_mix_noise(3, 100, 1000, z=4.0)
    assert compute_divergence({"own": 55, "rent": 27, "other": 18}, expected) < noise
    assert compute_divergence({"own": 5, "rent": 5, "other": 90}, expected) > 0.1 + noise
    assert compute_divergence({}, expected) == float("inf")


def test_only_live_and_refused_days_pay_for_a_page_unless_the_manifest_says_otherwise() -> None:
    asked = [(policy, live, refused) for policy in ("live", "always", "never") for live in (0, 1) for refused in (0, 1)]
    assert [should_render_docs(policy, bool(live), bool(refused)) for policy, live, refused in asked] == [  # type: ignore[arg-type]
        False, True, True, True, True, True, True, True, False, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"checks": ["Amount <= Prize"]}, "contract.checks: there is no column 'Prize'"),
        ({"checks": ["Amount / Price < 1"]}, "contract.checks.0.check: 'Amount / Price'"),
        ({"event_time": {"column": "Age"}}, "event_time.column 'Age' must be declared as a timestamp"),
        ({"extras": {"Age": {"kind": "number"}}}, "'Age' stands under columns and under extras"),
        ({"extras": {"Status": {"kind": "category"}}}, "must not name the id or label column 'Status'"),
        ({"max_quarantind": 0.1}, "did you mean 'max_quarantined'"),
        ({"extras": {"note": {"kind": "category", "matches": "a$"}}}, "the whole cell is matched"),
        ({"extras": {"note": {"kind": "category", "matches": "(?=a)a"}}}, "look-arounds"),
        ({"extras": {"note": {"kind": "category", "matches": "a++"}}}, "possessive"),
        ({"extras": {"note": {"kind": "category", "matches": "[a"}}}, "is no regular expression"),
        ({"rows": {"min": 9, "max": 2}}, "min must not be larger than max"),
    ],
)
def test_a_contract_that_contradicts_itself_is_refused_by_name(changes: dict[str, object], told: str) -> None:
    content = yaml.safe_load(manifests.DEFAULT_PATH.read_text())
    content["contract"] |= changes
    with pytest.raises(ManifestInvalid, match=told):
        manifests.parse(yaml.safe_dump(content))
