from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from include.monitoring.core.episodes import Episode, MonitorReport, find_current_episode

FIRST = date(2026, 9, 1)


def report(day: int, alarm: bool = True, version: str = "3", **more: object) -> MonitorReport:
    content = {"verdict": "drifted" if alarm else "healthy", "rows": 300, "moved": {"Income": 0.4} if alarm else {}}
    return MonitorReport.model_validate(
        {"as_of": FIRST + timedelta(days=day), "version": version, "alarm": alarm, **content, **more}
    )


alarms = st.lists(st.booleans(), max_size=12)


def days(history: list[bool], start: int = 0) -> list[MonitorReport]:
    return [report(start + day, alarm) for day, alarm in enumerate(history)]


def key(reports: list[MonitorReport]) -> str | None:
    episode = find_current_episode(reports)
    return episode.key if episode else None


def test_no_report_is_no_episode() -> None:
    assert find_current_episode([]) is None


@given(alarms)
def test_an_episode_lasts_exactly_while_the_newest_report_is_an_alarm(history: list[bool]) -> None:
    assert (find_current_episode(days(history)) is not None) is (history[-1:] == [True])


@given(alarms, st.integers(1, 10))
def test_the_key_stays_however_long_an_episode_goes_on(before: list[bool], more: int) -> None:
    began = days([*before, True])
    assert key(began + days([True] * more, len(began))) == key(began)


@given(alarms, st.integers(1, 5))
def test_the_key_stays_however_often_the_newest_day_is_reported(before: list[bool], times: int) -> None:
    began = days([*before, True])
    assert key(began + [began[-1]] * times) == key(began)


@given(alarms, st.integers(1, 5))
def test_what_was_before_a_quiet_day_does_not_matter(before: list[bool], length: int) -> None:
    episode = days([True] * length, 20)
    assert find_current_episode([*days(before), report(19, alarm=False), *episode]) == find_current_episode(episode)


def test_an_episode_after_a_quiet_day_is_another_one() -> None:
    assert key([report(0)]) != key([report(0), report(1, alarm=False), report(2)])


def test_an_episode_of_another_version_is_another_one_even_on_the_same_day() -> None:
    reports = [report(0, version="3"), report(1, version="3"), report(1, version="4")]
    assert key(reports[:2]) == "drift-3-2026-09-01"
    assert key(reports) == "drift-4-2026-09-02"


def test_an_episode_tells_when_it_began_its_last_day_and_what_moved_last() -> None:
    reports = [report(0, moved={"Age": 0.3}), report(1), report(2, moved={"Age": 0.3, "Job": 0.5})]
    expected = Episode("3", FIRST, FIRST + timedelta(days=2), ("Age", "Job"))
    assert find_current_episode(reports) == expected


def test_a_report_survives_the_way_through_a_file() -> None:
    full = report(0, auc=0.71, auc_low=0.66, auc_high=0.75, auc_rows=800, page="s3://reports/1.html")
    assert MonitorReport.model_validate_json(full.model_dump_json()) == full


def test_a_report_is_told_in_one_sentence() -> None:
    assert report(0).sentence == "version 3 as of 2026-09-01: drifted, Income (PSI 0.40)"
    quiet = report(0, alarm=False, auc=0.7123, auc_rows=800).sentence
    assert quiet == "version 3 as of 2026-09-01: healthy, no feature moved; AUC on 800 matured rows 0.712"
