"""A rollback stays rolled back: what the ledger tells, walked through every short story, held against a plain model."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.kernel.errors import NotBlessed, RequestInvalid
from include.kernel.ledger import Entry
from include.release.core.release_history import (
    TurnedDown,
    describe_left,
    find_followed_request,
    read_release_history,
)
from include.release.core.rollback_target import find_rollback_target
from include.release.core.rollout import Release


def release(version: str) -> Release:
    return Release(version, version * 8)


def _turned_down(story: Story) -> list[TurnedDown]:
    return list(read_release_history(story.ledger).turned_down.values())


def told(what: str, version: str, who: str = "deploy", **details: object) -> Entry:
    about = {"digest": version * 8, "blessing": f"signed {version}"}
    return Entry(what=what, subject=version, who=who, why="it was wrong", details={**about, **details})


class Story:
    """A target and its ledger, in as few words as possible; `live` is what serves."""

    def __init__(self) -> None:
        self.ledger: list[Entry] = []
        self.live: Release | None = None

    def deploy(self, version: str) -> None:
        self.live = release(version)
        self.ledger.append(told("release.live", version))

    def turn_down(self, version: str, what: str) -> None:
        self.ledger.append(told(f"release.{what}", version))

    def roll_back(self, version: str | None = None, is_live: bool = True) -> str:
        """The version it goes to; `is_live`: whether the traffic came there."""
        target, _ = find_rollback_target(read_release_history(self.ledger), self.live, version)
        wanted = Entry(what="rollback.wanted", subject=target, who="Ann", why="it was wrong")
        self.ledger.append(wanted.model_copy(update={"details": {"generation": 1, **describe_left(self.live)}}))
        if is_live:
            self.deploy(target)
        return target

    @property
    def turned_down(self) -> set[str]:
        return {each.version for each in read_release_history(self.ledger).turned_down.values()}


@pytest.fixture
def story() -> Story:
    made = Story()
    for version in "123":
        made.deploy(version)
    return made


def test_each_rollback_goes_one_further_back_and_the_last_says_there_is_none(story: Story) -> None:
    assert [story.roll_back(), story.roll_back()] == ["2", "1"]
    with pytest.raises(RequestInvalid, match=r"Each other version that served \(2, 3\) was turned down since"):
        story.roll_back()
    assert story.roll_back("3") == "3", "a person may name any that served"
    assert story.turned_down == {"1", "2"}


def test_a_deployment_after_a_rollback_is_gone_back_from_to_what_served_before_it(story: Story) -> None:
    story.roll_back()
    story.deploy("4")
    assert [story.roll_back(), story.roll_back()] == ["2", "1"]


def test_what_goes_live_again_is_no_more_turned_down(story: Story) -> None:
    story.roll_back()
    assert story.turned_down == {"3"}
    story.deploy("3")
    assert story.turned_down == set()
    assert story.roll_back() == "2"


@pytest.mark.parametrize("what", ["rejected", "reverted"])
def test_what_was_turned_down_is_told_with_who_and_why_until_it_goes_live(story: Story, what: str) -> None:
    story.turn_down("4", what)
    refused = read_release_history(story.ledger).turned_down["4" * 8]
    assert f"Version 4 was {what} by deploy (it was wrong) and has not gone live since" in refused.explain()
    story.deploy("4")
    assert story.turned_down == set()


def test_a_rollback_whose_traffic_did_not_move_yet_counts_from_the_moment_a_person_asked(story: Story) -> None:
    story.roll_back(is_live=False)
    assert story.turned_down == {"3"}
    assert read_release_history(story.ledger).turned_down["3" * 8].who == "Ann"


def test_a_rollback_that_could_not_serve_is_not_tried_again(story: Story) -> None:
    story.roll_back(is_live=False)
    story.turn_down("2", "rejected")
    assert story.roll_back() == "1"


def test_a_release_that_soaked_when_a_person_rolled_back_is_left_too(story: Story) -> None:
    story.live = release("4")  # serves, and is not in the ledger yet
    assert story.roll_back() == "3"
    assert story.turned_down == {"4"}


def test_an_entry_of_an_earlier_version_leaves_what_had_gone_live_last(story: Story) -> None:
    story.ledger.append(Entry(what="rollback.wanted", subject="2", who="Ann", why="", details={"generation": 4}))
    assert story.turned_down == {"3"}


def test_the_same_content_under_another_version_is_known_by_its_digest(story: Story) -> None:
    story.roll_back()
    again = told("release.live", "9", digest="3" * 8)
    assert again.details["digest"] in read_release_history(story.ledger).turned_down


def test_what_was_never_signed_is_named(story: Story) -> None:
    story.ledger.insert(2, told("release.live", "2", blessing=None))
    with pytest.raises(NotBlessed, match="Version 2 served before blessings were signed"):
        story.roll_back()


def test_nothing_served_and_nothing_else_served() -> None:
    empty = Story()
    with pytest.raises(RequestInvalid, match="No other version ever served"):
        empty.roll_back()
    empty.deploy("1")
    with pytest.raises(RequestInvalid, match="No other version ever served"):
        empty.roll_back()
    with pytest.raises(RequestInvalid, match="Version 2 never served"):
        empty.roll_back("2")


def test_a_rollback_that_skips_versions_leaves_them_too(story: Story) -> None:
    assert story.roll_back("1") == "1"
    assert story.turned_down == {"2", "3"}
    with pytest.raises(RequestInvalid, match="was turned down since"):
        story.roll_back()


def test_what_gave_way_to_an_older_version_comes_back_by_a_rollback_and_by_no_event(story: Story) -> None:
    story.deploy("2")
    assert "Version 3 was replaced by an older version by deploy" in next(
        each.explain() for each in read_release_history(story.ledger).turned_down.values()
    )
    assert story.roll_back() == "3"
    assert story.turned_down == {"2"}


@pytest.mark.parametrize("length", range(1, 6))
def test_in_every_short_story_no_rollback_leads_to_what_one_left(length: int) -> None:
    """All sequences of deployments of three versions and of rollbacks, named ones too, held against a plain model."""
    for acts in product(("1", "2", "3", "back", "back 1"), repeat=length):
        made, left, lives = Story(), set[str](), list[str]()
        for act in acts:
            before = made.live
            if not act.startswith("back"):
                made.deploy(act)
                left.discard(act)
                lives.append(act)
                continue
            try:
                target = made.roll_back(act[5:] or None)
            except RequestInvalid:
                assert act == "back 1" or before is None or set(lives) <= left | {before.version}
                continue
            assert before is not None
            if act == "back":
                assert target != before.version and target not in left
            skipped = lives[len(lives) - lives[::-1].index(target) :]
            left |= {before.version, *skipped} - {target}
            left.discard(target)
            lives.append(target)
        rolled_back = {each.version for each in _turned_down(made) if each.how == "rolled back"}
        assert rolled_back == left


@given(st.lists(st.sampled_from("12345"), min_size=1, max_size=8))
def test_rollbacks_walk_back_through_all_that_served_once_each(served: list[str]) -> None:
    made, walked = Story(), []
    for version in served:
        made.deploy(version)
    with pytest.raises(RequestInvalid):
        while True:
            walked.append(made.roll_back())
    assert walked == list(dict.fromkeys(reversed(served)))[1:]


def test_a_run_asks_once() -> None:
    entries = [told("deploy.wanted", "2", generation=4).model_copy(update={"key": "deploy.wanted-a"})]
    assert find_followed_request(entries, "deploy.wanted-a", 5) == entries[0]
    assert find_followed_request(entries, "deploy.wanted-a", 4) is None
    assert find_followed_request(entries, "deploy.wanted-b", 5) is None
