from pathlib import Path

import pandas as pd
import pytest

from include.kernel.errors import ArtifactRejected, Permanent
from include.model import artifact
from include.model.features import apply, resolve
from tests import credit

HERE = __name__
TABLE = pd.DataFrame({"Debt": [1.0, 2.0], "Assets": [4.0, 4.0]})
LIST = [1]


def with_ratio(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(ratio=table["Debt"] / table["Assets"])


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
