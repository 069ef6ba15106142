"""How a search is dealt to studies, and what they come to together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from include.kernel.work_units import Shard, list_shards
from include.training.core import search
from include.training.core.search import Study, Trial

LOSS = st.one_of(st.none(), st.floats(0, 1))
TRIALS = st.builds(
    Trial,
    state=st.sampled_from(["complete", "pruned"]),
    loss=LOSS,
    params=st.dictionaries(st.sampled_from("abc"), st.one_of(st.floats(-1e9, 1e9), st.integers(-9, 9))),
)
STUDIES = st.lists(st.lists(TRIALS, max_size=5).map(tuple), min_size=1, max_size=4)


def trial(loss: float | None, name: str, state: str = "complete") -> Trial:
    return Trial.model_validate({"state": state, "loss": loss, "params": {"name": name}})


@given(st.integers(1, 200), st.integers(1, 64))
def test_the_studies_have_all_trials_between_them_and_differ_by_one(trials: int, count: int) -> None:
    dealt = [search.count_trials(trials, shard) for shard in list_shards(count)]
    assert sum(dealt) == trials and max(dealt) - min(dealt) <= 1


def test_one_study_is_the_search_as_it_was_before_there_were_several() -> None:
    alone = Shard(0, 1)
    assert (search.count_trials(30, alone), search.count_random_trials(alone)) == (30, 8)
    assert [search.derive_seed(20, alone, number) for number in (0, 7)] == [200_140, 200_147]


@given(st.integers(0, 10_000), st.integers(2, 64))
def test_no_two_trials_of_a_search_draw_from_one_seed(base: int, count: int) -> None:
    seeds = [search.derive_seed(base, shard, number) for shard in list_shards(count) for number in range(200)]
    assert len({*seeds}) == len(seeds) and max(seeds) < 2**32


def test_the_best_is_the_lowest_loss_and_of_equals_the_first_trial_of_the_first_study() -> None:
    one: Study = (trial(0.3, "a"), trial(0.1, "pruned", "pruned"), trial(0.2, "b"))
    other: Study = (trial(0.2, "c"), trial(0.2, "d"))
    assert search.choose_best([one, other]) == {"name": "b"}
    assert search.choose_best([other, one]) == {"name": "c"}
    assert search.choose_best([(trial(0.0, "e"),), one]) == {"name": "e"}
    assert search.choose_best([(trial(0.1, "pruned", "pruned"),), ()]) is None


@given(STUDIES)
def test_a_study_is_stored_to_the_last_bit(studies: list[Study]) -> None:
    assert [search.load_study(search.dump_study(study)) for study in studies] == studies


@given(STUDIES)
def test_the_table_has_a_row_a_trial_and_names_the_study_where_there_are_several(studies: list[Study]) -> None:
    rows = search.list_trials(studies)
    assert len(rows) == sum(map(len, studies))
    several = len(studies) > 1
    assert [row.get("study") for row in rows] == [
        number if several else None for number, study in enumerate(studies) for _ in study
    ]
