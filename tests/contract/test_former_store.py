"""What a former version left on the disk is read by this one, and nothing it trained is lost or trained twice.

The stack of today starts on a home that a former version made (tests/stored), and everything is asked through the doors
that stay: the make targets' modules, the job protocol, the servers, MLflow. Answers are compared with those of then.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from include.alerting.outbox import Outbox
from tests import ground
from tests.stored import make_example as example

STORED = Path(example.__file__).parent / "2026-11-30"
EXPECTED: dict[str, Any] = json.loads((STORED / "expected.json").read_text())
LOADS_A_MODEL = """
import json, sys
told, (uri, run, code) = json.load(sys.stdin), sys.argv[1:]
if code == "ours":
    import include.model.mlflow_model
import mlflow.pyfunc, pandas
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model(f"runs:/{run}/model")
kinds = {spec.name: float for spec in model.metadata.get_input_schema() if spec.type.name == "double"}
answer = model.predict(pandas.DataFrame(told).astype(kinds))
import include.model.mlflow_model as loader
print(json.dumps({"loader": loader.__file__, "answer": list(map(float, answer))}))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The former version's, at a place of our own."""
    place = tmp_path_factory.mktemp("former") / "home"
    with tarfile.open(STORED / "home.tar.xz") as packed:
        packed.extractall(place, filter="data")
    for path in (place / "store" / "reports").rglob("*.*"):
        path.write_text(path.read_text().replace("@HOME@", str(place)))
    return place


@pytest.fixture(scope="module")
def before(home: Path) -> dict[str, bytes]:
    """The files as the former version left them."""
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def environment(home: Path, before: dict[str, bytes]) -> Iterator[dict[str, str]]:
    """What a task of today's stack sees, which runs on that home."""
    programs = json.dumps([*example.PROGRAMS, "exporter"])
    told = example.prepare_environment(home, ground.free_ports(len(example.PORTS))) | {"EVERGREEN_PROGRAMS": programs}
    with example.run_stack(told):
        yield told


def make(target: str, *arguments: str, environment: dict[str, str]) -> str:
    """What the module behind a make target prints; it must end well."""
    return example.run_module(example.command_of(target), *arguments, environment=environment)


def answer_again(job: str, home: Path, environment: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result of then and that of now, for the same request."""
    then = EXPECTED["jobs"][job]
    now = example.run_job(home, environment, then["request"])
    assert (now["job"], now["verdict"]) == (job, then["result"]["verdict"]), now["summary"]
    return then["result"]["outputs"], now["outputs"]


@pytest.fixture(scope="module")
def judged(home: Path, environment: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What evaluate said of the former training then, and says now."""
    return answer_again("evaluate", home, environment)


def close(value: Any) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True)


def test_the_version_that_served_serves_with_its_blessing_and_gives_the_numbers_of_then(environment):
    answered = example.predict(environment, EXPECTED["rows"], "again")
    expected = EXPECTED["predictions"][EXPECTED["live"]]
    assert answered["version"] == expected["version"] == "1"
    assert answered["probabilities"] == close(expected["probabilities"])


def test_the_record_is_whole_and_untouched(home, before, environment):
    told = make("history", "--all", environment=environment)
    assert {kind for kind in EXPECTED["ledger"]["kinds"] if kind not in told} == set()
    entries = int(re.search(r"(\d+) entries, the chain is whole", told)[1])
    assert entries >= EXPECTED["ledger"]["entries"]
    assert (home / "store" / "ledger.jsonl").read_bytes().startswith(before["store/ledger.jsonl"])


def test_registry_ledger_and_servers_agree(environment):
    assert "agree" in make("reconcile", environment=environment)


def test_a_version_leads_to_its_days_and_a_row_to_its_versions(home, environment):
    told = make("lineage", "--model", EXPECTED["standby"], environment=environment)
    run = EXPECTED["runs"][EXPECTED["versions"][EXPECTED["standby"]]["run_id"]]
    assert f"version {EXPECTED['standby']}" in told and run["tags"]["evergreen.digest"] in told
    rows = make("lineage", "--row", "A20260802-0003", environment=environment)
    assert "2026-08-02" in rows and "version 1" in rows and "version 2" in rows


def test_the_prediction_log_is_read_and_tidied_without_loss(home, before, environment):
    make("tidy-log", environment=environment)
    log = pl.concat([pl.read_parquet(path) for path in (home / "store" / "predictions").rglob("*.parquet")])
    kept = log.filter(pl.col("request_id").is_in(["first", "second"]))
    assert kept.group_by("request_id", "version").len().sort("request_id").rows() == [
        ("first", "1", example.ASKED),
        ("second", "2", example.ASKED),
    ]
    scores = kept.filter(pl.col("version") == "2").sort("row")["score"].to_list()
    assert scores == close(EXPECTED["predictions"]["2"]["probabilities"])
    assert log.height >= EXPECTED["logged"]


def test_outcomes_that_were_told_already_are_known(home, environment):
    assert "were kept already" in make("feedback", str(home / "outcomes.csv"), environment=environment)


def test_an_alert_that_nobody_was_told_of_is_told_now(home, before):
    told = []

    class Pager:
        name, least = "pager", "info"

        def send(self, alert: Any, link: str) -> None:
            told.append((alert.title, link))

    waiting = [name for name in before if name.startswith("store/alerts/waiting/")]
    outbox = Outbox(home / "store" / "alerts", "runbook", timedelta(days=1))
    assert outbox.deliver([Pager()]) == 0
    assert len(told) == len(waiting) == 2
    assert {title for title, _ in told} == {"A rollback to version 1 begins", "Version 1 serves all traffic"}
    assert outbox.deliver([Pager()]) == 0 and len(told) == 2, "those told by the former version are not told again"


def test_prometheus_is_told_of_what_the_former_version_found(environment):
    url = f"http://127.0.0.1:{environment['EVERGREEN_EXPORTER_PORT']}/metrics"
    with example.httpx.Client(trust_env=False, timeout=30) as client:
        told = client.get(url).raise_for_status().text
    assert re.search(r'^evergreen_\w+\{.*version="1".*\} ', told, re.MULTILINE)


def test_a_scored_day_is_found_and_not_scored_again(home, environment):
    then, now = answer_again("score", home, environment)
    assert now["parts_scored"] == 0
    assert (now["rows"], now["digest"], now["snapshots"]) == (then["rows"], then["digest"], then["snapshots"])
    assert (now["mean"], now["share"]) == close((then["mean"], then["share"]))


def test_the_monitor_finds_what_it_found(home, environment):
    then, now = answer_again("monitor", home, environment)
    assert (now["version"], now["as_of"], now["rows"]) == (then["version"], then["as_of"], then["rows"])
    assert now["moved"] == close(then["moved"])
    assert len(now["signals"]) == len(then["signals"]) > 0


def test_the_gate_judges_the_former_training_as_it_did(judged):
    then, now = judged
    assert now["digest"] == then["digest"] and now["gate"]["verdict"] == "passed"
    for what in ("challenger", "champion"):
        assert now["gate"]["metrics"][what] == close(then["gate"]["metrics"][what])


def test_a_backtest_is_judged_by_the_same_days(home, environment):
    then, now = answer_again("backtest", home, environment)
    for name in ("as_of", "first", "last", "rows", "positives", "trained_rows", "trained_on", "judged_by"):
        assert now["fold"][name] == then["fold"][name]
    if now["fold"]["code"] == then["fold"]["code"] and now["fold"]["manifest"] == then["fold"]["manifest"]:
        assert not now["changed"], "the fold is the same, byte by byte"


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which one line of what decides about a model is another one."""
    place = tmp_path_factory.mktemp("changed")
    for folder in ("include", "plugins"):
        shutil.copytree(example.CODE / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
    with open(place / "include" / "model" / "__init__.py", "a") as file:
        file.write("\nANOTHER_LINE = True\n")
    return place


class TestTraining:
    @staticmethod
    def train(home: Path, environment: dict[str, str], code: Path) -> dict[str, str]:
        """Run id by candidate."""
        result = example.run_job(home, environment, EXPECTED["jobs"]["train"]["request"], code)
        return {kind: run["run_id"] for kind, run in result["outputs"]["candidates"].items()}

    @staticmethod
    def former() -> dict[str, str]:
        candidates = EXPECTED["jobs"]["train"]["result"]["outputs"]["candidates"]
        return {kind: run["run_id"] for kind, run in candidates.items()}

    def test_it_is_found_by_the_code_that_made_it_and_made_once_by_any_other(self, home, before, environment, judged):
        now, tags = judged[1], EXPECTED["runs"][self.former()["logistic"]]["tags"]
        same = (now["code"], now["manifest"]) == (tags["evergreen.code"], tags["evergreen.manifest"])
        self.is_trained_once(home, environment, example.CODE, found=same)
        self.nothing_is_lost(home, before, environment)

    def test_changed_code_trains_under_another_key_once(self, home, before, environment, changed):
        self.is_trained_once(home, environment, changed, found=False)
        self.nothing_is_lost(home, before, environment)

    def is_trained_once(self, home: Path, environment: dict[str, str], code: Path, found: bool) -> None:
        known = example.describe_registry(environment)["runs"]
        first = self.train(home, environment, code)
        now = example.describe_registry(environment)["runs"]
        if found:
            assert first == self.former() and now.keys() == known.keys()
            return
        assert self.train(home, environment, code) == first, "who asks again finds the work done"
        assert example.describe_registry(environment)["runs"] == now
        assert set(first.values()) == now.keys() - known.keys()
        for kind, run_id in first.items():
            then, made = EXPECTED["runs"][self.former()[kind]]["tags"], now[run_id]["tags"]
            assert made["evergreen.key"] != then["evergreen.key"]
            assert made["evergreen.data"] == then["evergreen.data"], "only what decides about the key is another"

    def nothing_is_lost(self, home: Path, before: dict[str, bytes], environment: dict[str, str]) -> None:
        """Every former run, version and artifact is as it was; only what a judgement writes is written anew."""
        now = example.describe_registry(environment)
        for run_id, run in EXPECTED["runs"].items():
            assert (now["runs"][run_id]["status"], now["runs"][run_id]["tags"]) == ("FINISHED", run["tags"])
            assert now["runs"][run_id]["metrics"] == close(run["metrics"])
        for version, told in EXPECTED["versions"].items():
            assert now["versions"][version] == told
        drawn = ("gate.json", "gate.html", "curves.svg")
        kept = {name for name in before if name.startswith("mlflow/artifacts/") and not name.endswith(drawn)}
        assert [name for name in sorted(kept) if (home / name).read_bytes() != before[name]] == []


# The former version left one module of the ONNX form out of the code that it stored: that form needs a checkout beside.
@pytest.mark.parametrize(("kind", "code"), [("boosting", "stored"), ("logistic", "ours")])
def test_mlflow_loads_a_model_by_the_code_it_stored_or_by_that_of_today(kind, code, home, tmp_path, environment):
    run_id = TestTraining.former()[kind]
    [artifact] = home.glob(f"mlflow/artifacts/*/{run_id}/artifacts/serving/artifact.json")
    golden = json.loads(artifact.read_text())["golden"]
    seen = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    if code == "ours":
        seen["PYTHONPATH"] = str(example.CODE)
    command = [sys.executable, "-W", "ignore", "-c", LOADS_A_MODEL, environment["MLFLOW_TRACKING_URI"], run_id, code]
    asked = {"input": json.dumps([each["row"] for each in golden]), "cwd": tmp_path, "env": seen}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **asked)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["loader"].startswith(f"{example.CODE}{os.sep}") == (code == "ours")
    assert told["answer"] == close([each["probability"] for each in golden])


def test_a_rollback_finds_the_version_that_served_before(environment):
    """The last test: the traffic moves."""
    with pytest.raises(SystemExit, match=r"Each other version that served \(2\) was turned down since"):
        make("rollback", "--why", "it is tried", environment=environment)  # which a rollback of then had left
    told = make("rollback", "--why", "it is tried", "--version", EXPECTED["standby"], environment=environment)
    assert f"Version {EXPECTED['standby']}: done" in told
    answered = example.predict(environment, EXPECTED["rows"], "after")
    expected = EXPECTED["predictions"][EXPECTED["standby"]]
    assert answered["version"] == expected["version"] == "2"
    assert answered["probabilities"] == close(expected["probabilities"])
