"""Pieces by their names and bytes, and how shards share work."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.kernel import work_units
from include.kernel.errors import RequestInvalid
from include.kernel.job import Intent, JobRequest
from include.kernel.work_units import Shard, WorkUnit, build_work_unit, list_shards

DAY = date(2026, 8, 1)


@given(st.binary(max_size=200))
def test_a_piece_gives_back_the_bytes_it_was_made_of(content: bytes) -> None:
    made = build_work_unit("profiles", DAY, "a")
    assert made.unwrap(made.wrap(content)) == content


@given(st.binary(min_size=1, max_size=60), st.data())
def test_a_piece_that_was_changed_in_any_byte_or_cut_is_none(content: bytes, data: st.DataObject) -> None:
    made = build_work_unit("profiles", DAY, "a")
    whole = made.wrap(content)
    place = data.draw(st.integers(0, len(whole) - 1))
    turned = bytes([*whole[:place], whole[place] ^ data.draw(st.integers(1, 255)), *whole[place + 1 :]])
    assert made.unwrap(turned) is None
    assert made.unwrap(whole[:place]) is None


def test_a_piece_is_none_under_any_other_name() -> None:
    made = build_work_unit("profiles", DAY, "a", "b")
    others = [
        build_work_unit("tuning", DAY, "a", "b"),
        build_work_unit("profiles", DAY, "ab"),
        build_work_unit("profiles", DAY, "b", "a"),
    ]
    others.append(build_work_unit("profiles", DAY + timedelta(days=1), "a", "b"))
    assert len({made.place, *(other.place for other in others)}) == 5
    assert [other.unwrap(made.wrap(b"x")) for other in others] == [None] * 4
    assert WorkUnit("profiles", DAY, made.key) == made  # a name is the same in every process


@given(st.integers(0, 40), st.integers(1, 12))
def test_the_shares_of_all_shards_are_the_work_each_part_once(parts: int, count: int) -> None:
    work = list(range(parts))
    shares = [shard.select_share(work) for shard in list_shards(count)]
    assert sorted(part for share in shares for part in share) == work
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_piece_is_past_its_time_by_the_day_in_its_name() -> None:
    days = [DAY - timedelta(days=age) for age in (0, 90, 91, 400)]
    places = [build_work_unit("profiles", day, "a").place for day in days]
    assert work_units.list_expired(places, DAY, 90) == places[2:]


def request(**params: object) -> JobRequest:
    return JobRequest(job="ingest", run_key="k", as_of=DAY, intent=Intent.LIVE, params=params)


def test_a_request_names_its_shard_and_without_a_name_it_is_all_of_the_work() -> None:
    assert work_units.read_shard(request()).select_share("abc") == "abc"
    assert [work_units.read_shard(request(**shard.params)) for shard in list_shards(3)] == [
        Shard(0, 3),
        Shard(1, 3),
        Shard(2, 3),
    ]


@pytest.mark.parametrize(
    "params", [{"shard": 3, "shards": 3}, {"shard": -1, "shards": 2}, {"shard": "a"}, {"shard": 1}]
)
def test_a_shard_there_is_not_is_refused_in_a_sentence(params: dict[str, object]) -> None:
    with pytest.raises(RequestInvalid, match=r"ingest cannot do shard .* of .*; params\.shard counts from 0"):
        work_units.read_shard(request(**params))
