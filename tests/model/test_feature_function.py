from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from include.kernel.errors import ArtifactRejected, Permanent
from include.model import artifact, conformance
from include.model.artifact import ServableModel
from include.model.features import apply, check_row_wise, resolve
from tests import credit

HERE = __name__
TABLE = pd.DataFrame({"Debt": [1.0, 2.0], "Assets": [4.0, 4.0]})
LIST = [1]


def with_ratio(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(ratio=table["Debt"] / table["Assets"])


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(rank=table["Debt"].rank(pct=True))


def filled(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(Debt=table["Debt"].fillna(table["Debt"].median()))


def numbered(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(place=table.index)


def one_column_a_value(table: pd.DataFrame) -> pd.DataFrame:
    return pd.get_dummies(table["Home"])


def sorted_by_debt(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values("Debt")


def banded(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(band=pd.qcut(table["Debt"], 4, labels=False))


def row_wise(table: pd.DataFrame) -> pd.DataFrame:
    table["Debt"] /= 3.0
    return table.assign(
        log=np.log1p(table["Debt"]), own=table["Home"].eq("rent"), home=table["Home"].str.upper(), none=np.nan
    )


def half(table: pd.DataFrame) -> pd.DataFrame:
    return table.iloc[:1]


def to_list(table: pd.DataFrame) -> list[int]:
    return LIST


def _roots() -> tuple[str, ...]:
    return (HERE.partition(".")[0],)


def test_without_a_name_the_table_stays_what_it_is() -> None:
    assert apply(None, TABLE) is TABLE


def test_a_named_function_is_applied() -> None:
    assert list(apply(f"{HERE}:with_ratio", TABLE, _roots())["ratio"]) == [0.25, 0.5]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("include.model.schema", "must be written module:function"),
        ("os:system", "must live under include"),
        ("include.nowhere:f", "cannot be imported"),
        ("include.model.schema:nothing", "is not a function defined in include.model.schema"),
        (
            "include.model.integrity.artifact_integrity:shutil",
            "is not a function defined in include.model.integrity.artifact_integrity",
        ),
        ("include.model.artifact:digest", "is not a function defined in include.model.artifact"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused_in_one_sentence(name: str, says: str) -> None:
    with pytest.raises(Permanent, match=says) as refusal:
        resolve(name)
    assert str(refusal.value).count("\n") == 0


def test_a_function_that_drops_rows_is_refused() -> None:
    with pytest.raises(Permanent, match="made 1 rows of 2"):
        apply(f"{HERE}:half", TABLE, _roots())


def test_a_function_that_returns_no_table_is_refused() -> None:
    with pytest.raises(Permanent, match="returned list; return a DataFrame"):
        apply(f"{HERE}:to_list", TABLE, _roots())


def test_an_artifact_cannot_name_a_function_outside_the_project(tmp_path: Path) -> None:
    model = credit.trained("logistic")
    artifact.save(model.pipeline, model.meta.model_copy(update={"features": "os:system"}), tmp_path)
    with pytest.raises(ArtifactRejected, match="os:system"):
        artifact.load(tmp_path)


MANY = pd.DataFrame(
    {
        "Debt": [None if number == 7 else float(number**1.5) for number in range(300)],
        "Assets": 4.0,
        "Home": [("rent", "own", None)[number % 3] for number in range(300)],
    }
)


@pytest.mark.parametrize("function", [ranked, filled, numbered, one_column_a_value, sorted_by_debt, banded])
def test_a_function_that_looks_at_the_rows_beside_a_row_is_refused_by_its_name(function) -> None:
    with pytest.raises(Permanent, match=f"{HERE}:{function.__name__}"):
        check_row_wise(f"{HERE}:{function.__name__}", MANY, _roots())


def test_a_function_of_each_row_alone_passes_and_changes_no_table_but_its_own() -> None:
    before = MANY.copy()
    check_row_wise(f"{HERE}:row_wise", MANY, _roots())
    pd.testing.assert_frame_equal(MANY, before)


def test_a_model_behind_such_a_function_misses_its_golden_rows_when_they_are_asked_alone(monkeypatch) -> None:
    """As every place that loads a model asks: the server, the gate, batch scoring."""
    for function in (resolve, apply):
        monkeypatch.setattr(function, "__defaults__", (_roots(),))
    trained = credit.trained("logistic")
    neighbourly = trained.meta.model_copy(update={"features": f"{HERE}:centred"})
    rows = [golden.row for golden in trained.meta.golden]
    scores = ServableModel(neighbourly, trained.pipeline).predict_proba(rows)
    golden = tuple(
        item.model_copy(update={"probability": float(score)})
        for item, score in zip(trained.meta.golden, scores, strict=True)
    )
    model = ServableModel(neighbourly.model_copy(update={"golden": golden}), trained.pipeline)
    assert f"{HERE}:centred" in str(conformance.check_golden(model))


def centred(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(Income=table["Income"] - table["Income"].mean())


def infinite(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(ratio=table["Debt"] / 0.0)


def wanting(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(ratio=table["Salary"])


def twice(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table], axis=1)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (infinite, "gives infinity in column 'ratio'"),
        (wanting, "fails: KeyError: 'Salary'"),
        (twice, "the column name 'Debt'"),
    ],
)
def test_whatever_a_function_does_wrong_is_one_sentence_with_its_name(function, says: str) -> None:
    with pytest.raises(Permanent, match=says) as refusal:
        apply(f"{HERE}:{function.__name__}", TABLE, _roots())
    assert f"{HERE}:{function.__name__}" in str(refusal.value)
