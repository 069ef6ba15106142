"""An artifact in the real server process, on a port of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from include.gate.core.checks import Verdict, check_infra
from include.gate.infra_validation import run_server
from include.gate.spec import InfraSpec
from include.kernel.errors import ServiceUnavailable
from include.model import artifact, export
from include.model.artifact import Golden, ServableModel
from tests import credit
from tests.ground import wait_for

ROOT = Path(__file__).resolve().parents[2]
LIMITS = InfraSpec(parity=1e-6, max_p99_ms=500, max_rss_mb=1000, max_size_mb=10)
HOLD = """
import sys
from pathlib import Path
from include.gate.infra_validation import run_server
with run_server(Path(sys.argv[1]), sys.argv[2]) as made:
    print(made._process.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put(credit.trained("logistic"), tmp_path_factory.mktemp("artifact"))


def put(model: ServableModel, place: Path) -> Path:
    artifact.save(model.pipeline, model.meta, place)
    return place


def verdicts(place: Path, limits: InfraSpec = LIMITS) -> dict[str, Verdict]:
    with run_server(place, artifact.compute_digest(place)) as made:
        return {check.name: check.verdict for check in check_infra(made.measure(30), limits)}


def test_a_good_artifact_is_within_its_budget_and_equal_to_the_training_side(saved):
    with run_server(saved, artifact.compute_digest(saved)) as made:
        found = made.measure(30)
    assert found.why is None and found.parity < 1e-9
    assert 0 < found.p99_ms < 500 and 20 < found.rss_mb < 1000 and 0 < found.size_mb < 10
    assert all(check.verdict is Verdict.PASSED for check in check_infra(found, LIMITS))


def test_every_number_over_its_budget_is_refused_by_name(saved):
    tight = InfraSpec(parity=1e-30, max_p99_ms=1e-3, max_rss_mb=1, max_size_mb=1e-6)
    found = verdicts(saved, tight)
    assert {name for name, verdict in found.items() if verdict is Verdict.REFUSED} >= {"p99", "rss", "size"}


def test_an_artifact_that_misses_its_golden_rows_is_refused_with_the_servers_reason(tmp_path):
    good = credit.trained("logistic")
    golden = tuple(Golden(row=g.row, probability=1 - g.probability) for g in good.meta.golden)
    place = put(ServableModel(good.meta.model_copy(update={"golden": golden}), good.pipeline), tmp_path)
    with run_server(place, artifact.compute_digest(place)) as made:
        [check] = check_infra(made.measure(30), LIMITS)
    assert check.verdict is Verdict.REFUSED and "misses its golden rows" in check.reason


def test_golden_rows_are_asked_of_the_server_alone_and_in_other_company_too(saved, monkeypatch):
    """A server that computes a row with the rows beside it, which it does right as long as all are asked at once."""
    with run_server(saved, artifact.compute_digest(saved)) as made:
        assert made.measure(30).parity < 1e-9
        ask, count = made._ask, len(credit.trained("logistic").meta.golden)
        monkeypatch.setattr(made, "_ask", lambda rows: ask(rows) if len(rows) == count else [0.5] * len(rows))
        found = made.measure(30)
    assert found.parity > 0.01


def test_an_artifact_that_cannot_be_loaded_is_refused_and_is_no_failure(saved, tmp_path):
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(b"this was a model" if file.name == "model.skops" else file.read_bytes())
    assert verdicts(tmp_path) == {"served": Verdict.REFUSED}


def test_a_golden_row_that_the_server_would_not_take_from_a_client_is_refused(tmp_path):
    good = credit.trained("logistic")
    odd = good.meta.golden[0].model_copy(update={"row": {**good.meta.golden[0].row, "Amount": None}})
    probability = float(good.predict_proba([odd.row])[0])
    golden = (odd.model_copy(update={"probability": probability}),)
    place = put(ServableModel(good.meta.model_copy(update={"golden": golden}), good.pipeline), tmp_path)
    with run_server(place, artifact.compute_digest(place)) as made:
        [check] = check_infra(made.measure(30), LIMITS)
    assert check.verdict is Verdict.REFUSED and "422, Amount must be given" in check.reason


def test_a_server_that_is_killed_says_nothing_about_the_model(saved):
    with run_server(saved, artifact.compute_digest(saved)) as made:
        made._process.kill()
        made._process.wait()
        with pytest.raises(ServiceUnavailable, match="retries by itself"):
            made.measure(30)


def test_the_server_dies_with_a_job_that_is_killed(saved):
    command = [sys.executable, "-c", HOLD, str(saved), artifact.compute_digest(saved)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as job:
        served = int(job.stdout.readline())
        assert psutil.pid_exists(served)
        job.send_signal(signal.SIGKILL)
        wait_for(lambda: not psutil.pid_exists(served))


@pytest.mark.parametrize("kind", ["logistic", "boosting"])
def test_the_golden_rows_are_explained_where_the_manifest_asks_for_it(kind, tmp_path):
    model = credit.trained(kind)
    explained = LIMITS.model_copy(update={"explain": True})
    export.write(model, tmp_path, credit.rows()[:50])
    with run_server(tmp_path, artifact.compute_digest(tmp_path)) as made:
        found = made.measure(60, explain=True)
    assert found.unexplained == ""
    assert {check.name: check.verdict for check in check_infra(found, explained)}["explained"] is Verdict.PASSED


def test_an_artifact_that_keeps_nothing_to_explain_it_is_refused_where_it_must(saved):
    explained = LIMITS.model_copy(update={"explain": True})
    with run_server(saved, artifact.compute_digest(saved)) as made:
        found = {check.name: check for check in check_infra(made.measure(30, explain=True), explained)}
    assert found["explained"].verdict is Verdict.REFUSED and "train the model again" in found["explained"].reason
