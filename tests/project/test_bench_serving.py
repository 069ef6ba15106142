"""What bench-serving rests on: its judgement of ratios, and that who is not measured costs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import bench_serving, contestants
from tests.benchmarks.bench_serving import Figure, Figures, Goal


def figures(**rounds: list[tuple[float, float]]) -> Figures:
    """Rounds of servers at 64 connections as (requests/s, p99)."""
    found = Figures()
    for name, each in rounds.items():
        for per_second, p99 in each:
            found.add(name, 64, Figure(per_second, p99 / 2, p99, 0, 100.0))
    return found


def test_a_ratio_is_taken_within_a_round_and_for_latencies_the_other_way_round() -> None:
    found = figures(ours=[(100, 1), (300, 2)], peer=[(10, 10), (100, 10)])
    assert Goal("ours", "peer", 64, 5).ratios(found) == [10, 3]
    assert Goal("ours", "peer", 64, 5, "p99_ms").ratios(found) == [10, 5]


@pytest.mark.parametrize(
    ("ours", "ok"),
    [([100, 100, 100], True), ([100, 79, 120], True), ([100, 99, 99], False)],
)
def test_the_median_round_must_hold_and_the_worst_one_stands_beside_it(ours: list[float], ok: bool) -> None:
    found = figures(ours=[(each, 1) for each in ours], peer=[(10, 10)] * 3)
    [judged] = bench_serving.judged(found, [Goal("ours", "peer", 64, 10)])
    assert judged["ok"] is ok and judged["worst"] == min(ours) / 10


def test_the_table_for_the_readme_has_a_cell_for_each_measured_load() -> None:
    found = figures(ours=[(1234.5, 1.5)])
    told = {"servers": {"ours": bench_serving.told(found, "ours")}}
    assert bench_serving.markdown(told).splitlines()[-1] == "| ours |  |  | 1,234 (1.5) |"


def test_a_frozen_server_takes_no_cpu_and_answers_when_it_is_thawed(tmp_path: Path) -> None:
    with contestants.started(contestants.fastapi("noop", "noop", tmp_path), tmp_path, None) as server:
        server.freeze()
        before = server.cpu_s()
        with pytest.raises(contestants.httpx.TimeoutException):
            server.http.get("/openapi.json", timeout=0.5)
        assert server.cpu_s() == before
        server.thaw()
        assert server.http.get("/openapi.json").status_code == 200
    with pytest.raises(contestants.httpx.ConnectError):
        contestants.httpx.get(f"http://127.0.0.1:{server.port}/openapi.json", trust_env=False)


def test_a_server_that_cannot_start_ends_the_bench_with_what_it_said(tmp_path: Path) -> None:
    naive = contestants.fastapi("naive", "naive", tmp_path / "none")
    says = pytest.raises(SystemExit, match=r"(?s)naive did not become ready.*No such file")
    with says, contestants.started(naive, tmp_path, None):
        pass
