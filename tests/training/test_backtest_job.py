"""A walk-forward backtest against a real MLflow server: what a fold knows, and that it can be made again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from include.kernel.errors import DataRefused, RequestInvalid
from include.kernel.job import JobResult
from tests import edge
from tests.job_world import FIRST

AS_OF = FIRST + timedelta(days=3)  # two days to train on, one held out; the fold before knows one day less
Backtest = Callable[..., JobResult]


@pytest.fixture
def past(place, small, ask) -> Backtest:
    """Folds of one day, over the four days of the store."""
    small(name=place.name, **{"backtest.follow_days": 1, "train.candidates": {"logistic": {"C": 1.0}}})
    return lambda as_of=AS_OF, **options: ask("backtest", as_of=as_of, intent="historical", **options)


def days(ids: tuple[str, ...]) -> list[int]:
    known = {snapshot.id: snapshot.day.day for snapshot in edge.store().list_snapshots()}
    return [known[each] for each in ids]


def lying_there() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in edge.backtests().page.parent.glob("[!.]*")}


def test_a_fold_is_trained_on_what_was_known_and_judged_by_what_followed(past, registry):
    result = past()
    [fold] = edge.backtests().read_folds()
    assert (days(fold.trained_on), days(fold.judged_by)) == ([1, 2], [4])
    assert (fold.first, fold.last, fold.rows) == (AS_OF, AS_OF, 1113)
    assert 0.6 < fold.model.auc.low < fold.model.auc.value < fold.model.auc.high < 1
    assert fold.before is not None and fold.before.as_of == AS_OF - timedelta(days=1)
    assert fold.before.digest != fold.model.digest and fold.saved is not None
    assert fold.saved.value == pytest.approx(fold.before.cost.value - fold.model.cost.value)
    assert result.verdict == "yes" and result.summary == fold.sentence


def test_it_registers_no_version_and_blesses_nothing(past, registry):
    past()
    with registry.open_client() as client:
        assert list(client.search_model_versions(f"name = '{registry.name}'")) == []
    assert registry.find_champion() is None
    assert {entry.details["intent"] for entry in edge.ledger().read_entries("model.trained")} == {"historical"}
    assert {entry.what for entry in edge.ledger().read_entries()} == {"model.trained"}


def test_made_again_by_another_run_it_is_the_same_to_the_byte_and_trains_nothing(past):
    first = past(key="one")
    before = lying_there()
    again = past(key="another")
    assert lying_there() == before
    assert (first.outputs["changed"], again.outputs["changed"]) == (True, False)
    assert first.outputs["url"] == again.outputs["url"]


def test_in_any_order_the_folds_are_the_same_and_the_model_before_is_the_fold_before(past):
    second = past().outputs["fold"]
    first = past(as_of=AS_OF - timedelta(days=1)).outputs["fold"]
    assert first["before"] is None and first["saved"] is None
    assert second["before"]["digest"] == first["model"]["digest"]
    page = edge.backtests().page.read_text()
    assert [fold.as_of for fold in edge.backtests().read_folds()] == [AS_OF - timedelta(days=1), AS_OF]
    assert page.count("<tr>") == 3 and "2 folds" in page and page.count("<circle") == 3
    assert "src=" not in page and "href=" not in page  # self-contained


def test_too_little_before_or_after_is_a_no_that_says_so(past):
    early, late = past(as_of=FIRST + timedelta(days=1)), past(as_of=FIRST + timedelta(days=5))
    assert (early.verdict, late.verdict) == ("no", "no")
    assert early.summary.startswith("As of 2026-08-02 only 1114 labelled rows on 1 days are known")
    assert late.summary.startswith("The 1 days from 2026-08-06 on and their labels are known on 2026-08-07 only")
    assert edge.backtests().read_folds() == []


def test_a_live_run_is_no_backtest(place, ask):
    with pytest.raises(RequestInvalid, match="A backtest looks at the past"):
        ask("backtest", as_of=AS_OF)


def test_a_fold_that_cannot_be_read_is_named_with_what_to_do(place):
    kept = edge.backtests()
    kept.page.parent.mkdir(parents=True)
    (kept.page.parent / "2026-08-03.json").write_text('{"as_of": ')
    with pytest.raises(
        DataRefused, match=r"2026-08-03.json is no fold that this code can read; remove it and backfill"
    ):
        kept.read_folds()
