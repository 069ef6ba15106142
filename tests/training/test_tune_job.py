"""A search dealt to several tasks comes to the same model, whoever makes the studies and whatever happens to them."""

from __future__ import annotations

import json

import pytest

from include.kernel.job import Intent, JobRequest
from include.kernel.work_units import list_shards
from include.training import fitting
from include.training.wiring import plan_training
from tests import edge
from tests.job_world import LAST
from tests.killed import killed

SPACE = {"logistic": {"C": {"low": 0.01, "high": 10.0, "log": True}}}


@pytest.fixture
def spread(place, small):
    """Five trials in three studies."""
    changes = {"train.tuning": {"trials": 5, "space": SPACE}, "fan_out": {"tuning": 3}}
    return small(name=place.name, **{"train.candidates": {"logistic": {"C": 1.0}}, **changes})


def made() -> dict[str, bytes]:
    objects = edge.store().objects
    return {key: objects.read(key).data for key in objects.list_keys("pieces/tuning/")}


def forget_all() -> None:
    for key in made():
        edge.store().objects.remove(key)


def no_search(*_):
    raise AssertionError("the study was made already")


def test_the_training_finds_what_the_tasks_made_and_is_the_one_that_makes_it_itself(
    spread, ask, registry, tmp_path, monkeypatch
):
    told = [ask("tune", **shard.params) for shard in list_shards(3)]
    assert [result.outputs["trials"] for result in told] == [2, 2, 1] and "2 of 3: 2 trials of" in told[1].summary
    assert len(made()) == 3 and list(edge.studies().glob("*")) == []
    alone = ask("train", intent="historical")
    monkeypatch.setattr(fitting, "search_params", no_search)
    found = ask("train")
    with registry.open_client() as client:
        runs = [client.get_run(result.outputs["run_id"]) for result in (found, alone)]
        for run in runs:
            client.download_artifacts(run.info.run_id, "trials.json", str(tmp_path / run.info.run_id))
    assert runs[0].data.tags["evergreen.digest"] == runs[1].data.tags["evergreen.digest"]
    trials = [json.loads((tmp_path / run.info.run_id / "trials.json").read_text()) for run in runs]
    assert trials[0] == trials[1] and [trial["study"] for trial in trials[0]] == [0, 0, 1, 1, 2]
    assert trials[0][0]["C"] == 1.0  # the manifest's
    best = min((t for t in trials[0] if t["state"] == "complete"), key=lambda trial: trial["loss"])
    assert float(runs[0].data.params["C"]) == best["C"]


def test_a_task_that_was_killed_and_a_piece_that_was_damaged_cost_time_and_nothing_else(spread, ask, tmp_path):
    for shard in list_shards(3)[:2]:
        ask("tune", **shard.params)
    request = JobRequest(
        job="tune", run_key="k", as_of=LAST, intent=Intent.LIVE, params={"columns": None, **list_shards(3)[2].params}
    )
    killed(request, "include.training.fitting", "score_fold", 3, tmp_path / "result.json")
    assert len(made()) == 2 and [path.suffix for path in edge.studies().glob("*.journal")] == [".journal"]
    damaged = min(made())
    (tmp_path / "store" / damaged).write_bytes(b"half of a st")
    result = ask("train")
    assert list(edge.studies().glob("*")) == []
    after_all = made()
    assert len(after_all) == 3
    forget_all()
    for shard in list_shards(3):
        ask("tune", **shard.params)
    assert made() == after_all
    assert ask("train").outputs == result.outputs


def test_another_number_of_studies_is_another_training(spread):
    request = JobRequest(job="train", run_key="k", as_of=LAST, intent=Intent.LIVE)
    other = spread.model_copy(update={"fan_out": spread.fan_out.model_copy(update={"tuning": 2})})
    assert plan_training(request, spread).key != plan_training(request, other).key


def test_studies_of_long_ago_are_swept_by_the_training(spread, ask):
    old = "pieces/tuning/2026-01-01/abc"
    assert edge.store().objects.write(old, b"x", None)
    ask("train")
    assert old not in made() and len(made()) == 3


def test_without_a_space_there_is_nothing_to_do(place, ask):
    assert ask("tune").summary == "1 of 1: nothing to search"
