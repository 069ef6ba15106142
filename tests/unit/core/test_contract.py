from __future__ import annotations

from include.core import manifest as manifests
from include.core.contract import Expectation, Outcome, expectations, refusal
from include.core.manifest import ColumnSpec, ContractSpec, LabelSpec, RowCount

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
RULES = expectations(CONTRACT, LABEL)


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
    found = expectations(shipped.contract, shipped.label)
    for name in shipped.contract.columns:
        assert {"exists", "typed", "complete"} <= {rule.rule for rule in found if rule.column == name}
    assert len(set(map(str, found))) == len(found)


def test_rows_that_keep_every_rule_may_pass() -> None:
    assert refusal([Outcome(rule, True) for rule in RULES], "the day") is None
    assert refusal([], "the day") is None


def test_a_refusal_names_the_place_and_every_broken_rule_with_what_was_found_instead() -> None:
    broken = [
        Outcome(Expectation("unique", "loan"), False, "2 duplicates"),
        Outcome(Expectation("exists", "age"), True),
        Outcome(Expectation("exists", "home"), False),
    ]
    told = refusal(broken, "2026-08-01")
    assert told is not None
    assert told.startswith("2026-08-01 breaks 2 rule(s) of the contract and was not published: ")
    assert "loan: unique, found 2 duplicates; home: exists. " in told
    assert "age" not in told
