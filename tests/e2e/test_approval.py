"""A person's yes, no and silence in a real Airflow, answered over its REST API as its form would."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from include import manifest as manifests
from include.embedded.commands.airflow_api import AirflowApi, PlayStopped, wait_for
from include.embedded.stack.stack import Stack
from include.kernel.code_digest import JUDGING, compute_code_digest
from include.kernel.errors import NotBlessed
from include.kernel.ledger_file import LocalLedger
from include.model.blessing.blessing import parse_public_keys, verify
from include.registry.mlflow_registry import MlflowRegistry
from tests import ground
from tests.blessed import REPORT

AIRFLOW = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
PATIENCE_S = 60  # the third question is left open for this long; the first two are answered at once
READING_S = 4  # before which nobody answers
DIGEST = "7" * 64


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("approval")
    changes = {"gate.approval": "inconclusive", "gate.approval_hours": PATIENCE_S / 3600}
    manifest = ground.write_manifest(home / "pipeline.yaml", ground.SMALL | changes)
    with ground.stack(home, "mlflow", *AIRFLOW, dags=Path(__file__).parent / "dags", manifest=manifest) as made:
        yield made


@pytest.fixture(scope="module")
def registry(stack: Stack) -> MlflowRegistry:
    return MlflowRegistry(manifests.load(stack.settings.manifest).name, stack.settings.mlflow_url)


@pytest.fixture(scope="module")
def runs(stack: Stack, registry: MlflowRegistry) -> Iterator[tuple[AirflowApi, dict[str, str]]]:
    """Three runs of the same inconclusive gate, all waiting: one for a yes, one for a no, one for nobody."""
    api = AirflowApi(stack.settings.airflow_url, stack.settings.user, stack.settings.password)
    wait_for("the DAG", lambda: True if "approvals" in api.list_dag_ids() else None, 240)
    assert api.list_import_errors() == []
    api.unpause("approvals")
    yield api, {name: api.start_run("approvals", told=told(stack, registry)) for name in ("yes", "no", "silence")}


def told(stack: Stack, registry: MlflowRegistry) -> dict[str, Any]:
    """What evaluate would say of a run in MLflow."""
    with registry.open_client() as client:
        run_id = client.create_run("0").info.run_id
    outputs = {
        "gate": REPORT | {"verdict": "inconclusive", "sentence": "inconclusive: too few rows"},
        "digest": DIGEST,
        "run_id": run_id,
        "snapshots": ["c" * 64],
        "manifest": manifests.load(stack.settings.manifest).digest,
        "code": compute_code_digest(*JUDGING),
    }
    return {"verdict": "no", "summary": "inconclusive: too few rows", "outputs": outputs}


def answer(api: AirflowApi, run_id: str, option: str, why: str, dag: str = "approvals") -> None:
    """Answers a question once it has stood for as long as a person reads, and again if its task was lost and asks anew.

    Airflow resumes an answered task at once. Where the executor has not yet told the scheduler that the asking half is
    over, the scheduler takes that news for the end of the resumed half and fails the try; nothing in its API tells
    when that moment has passed.
    """
    asked: dict[int, float] = {}

    def taken() -> bool:
        task = api.get(f"/dags/{dag}/dagRuns/{run_id}/taskInstances/approve")
        since = asked.setdefault(task["try_number"], time.monotonic())
        if task["state"] != "awaiting_input":
            asked.pop(task["try_number"])
        elif time.monotonic() - since > READING_S:
            with suppress(PlayStopped):  # answered, and not taken yet
                api.answer(dag, run_id, "approve", option, why=why)
        return task["state"] in ("success", "failed")

    ground.wait_for(taken, 600)


def ended(api: AirflowApi, run_id: str, dag: str = "approvals") -> tuple[str, dict[str, str]]:
    """The state of a run that has ended, and those of its tasks."""
    return api.wait_for_end(dag, run_id, 480)["state"], api.read_task_states(dag, run_id)


@pytest.mark.timeout(1800)  # the stack's start is part of it
def test_yes_blesses_no_and_silence_fail_the_run(runs, stack, registry):
    api, started = runs
    answer(api, started["yes"], "Approve", "better for the young")
    answer(api, started["no"], "Reject", "unfair")
    ends = {name: ended(api, run_id) for name, run_id in started.items()}
    assert {name: state for name, (state, _) in ends.items()} == {"yes": "success", "no": "failed", "silence": "failed"}
    for name in ("no", "silence"):
        assert (ends[name][1]["approve"], ends[name][1]["bless"]) == ("failed", "upstream_failed")

    trusted = parse_public_keys(stack.settings.trusted_keys.read_text())
    blessing = verify(registry.fetch_blessing("1"), trusted, registry.name, "1", DIGEST)
    assert (blessing.verdict, blessing.approval.who, blessing.approval.why) == (
        "inconclusive",
        "admin",
        "better for the young",
    )
    entries = list(LocalLedger(stack.settings.store_dir / "ledger.jsonl").read_entries())
    answers = {entry.what: (entry.who, entry.why) for entry in entries if entry.what.startswith("approval.")}
    assert answers["approval.given"] == ("admin", "better for the young")
    assert answers["approval.refused"] == ("admin", "unfair")
    assert "Nobody answered" in answers["approval.expired"][1]
    assert [entry.subject for entry in entries if entry.what == "model.blessed"] == ["1"]
    with pytest.raises(NotBlessed, match="the blessing of version 1"):
        verify(registry.fetch_blessing("1"), trusted, registry.name, "2")


def test_the_question_shows_the_gates_table(runs):
    api, started = runs
    detail = api.get(f"/dags/approvals/dagRuns/{started['no']}/taskInstances/approve/-1/hitlDetails")
    assert "| auc | passed |" in detail["body"] and "http://mlflow.example/run" in detail["body"]


@pytest.mark.timeout(1800)
def test_a_release_waits_for_its_yes_and_the_rollout_goes_on_whatever_the_answer(runs, stack):
    api, _ = runs
    api.unpause("release_approvals")
    verdicts = {}
    for generation, option in ((1, "Approve"), (2, "Reject")):
        told = {"verdict": "ask", "summary": "it waits", "outputs": asked(generation)}
        run_id = api.start_run("release_approvals", told=told)
        answer(api, run_id, option, "a Friday", dag="release_approvals")
        state, tasks = ended(api, run_id, "release_approvals")
        assert (state, tasks["rollout"]) == ("success", "success"), tasks
        place = stack.settings.serving_dir / "verdicts" / str(generation) / "approved.json"
        verdicts[option] = json.loads(place.read_text())
    assert verdicts == {
        "Approve": {"verdict": "passed", "why": "given by admin: a Friday"},
        "Reject": {"verdict": "failed", "why": "refused by admin: a Friday"},
    }


@pytest.mark.timeout(1800)
def test_a_release_that_ended_before_the_question_is_not_asked_about_and_the_rollout_says_so(runs):
    api, _ = runs
    run_id = api.start_run("release_approvals", told={"verdict": "no", "summary": "it was rejected", "outputs": {}})
    state, tasks = ended(api, run_id, "release_approvals")
    assert (state, tasks["approve"], tasks["rollout"]) == ("success", "skipped", "success"), tasks
    told = api.read_result("release_approvals", run_id, "reconcile")
    assert (told["state"], told["sentence"]) == ("empty", "empty: nothing disagrees"), "there is no slot, but an MLflow"


def asked(generation: int) -> dict[str, Any]:
    """What a rollout hands to the question."""
    found = {"accepted": {"verdict": "passed", "why": "smoke requests answered as expected"}}
    return {"generation": generation, "version": "7", "digest": DIGEST, "evidence": found}
