"""`make rollback` beside real slots and a real proxy, with neither Airflow nor MLflow running."""

from __future__ import annotations

import pytest

from include.data.wiring import open_snapshot_store
from include.embedded.commands.rollback import roll_back
from include.kernel.errors import NotBlessed, RequestInvalid
from include.kernel.ledger import Entry
from include.kernel.wiring import open_ledger
from include.manifest import read_manifest
from include.model.artifact import read_meta
from include.registry.wiring import open_registry
from include.release.core.rollout import Route, Step
from include.release.wiring import open_reconciler
from tests import blessed
from tests.job_world import LAST, publish


@pytest.fixture
def history(serving, trained, one_is_live, release, small, monkeypatch, tmp_path):
    """1 served, then 2; gives how to write that another version did."""
    assert release("2", by="next")[-1] is Step.DONE
    spec = small(name=read_meta(trained.root / "1").name)
    for name, value in serving.stack.build_env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EVERGREEN_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("EVERGREEN_MANIFEST", str(tmp_path / "pipeline.yaml"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    publish(open_snapshot_store(), spec, LAST)

    def served(version: str, envelope: str | None) -> None:
        details = {"digest": trained.release(version).digest, "blessing": envelope}
        open_ledger().append(Entry(what="release.live", subject=version, who="deploy", why="", details=details))

    for version in ("1", "2"):
        named = {"version": version, "digest": trained.release(version).digest, "model": spec.name}
        served(version, blessed.envelope(blessed.document(**named)))
    return served


def test_the_traffic_goes_back_while_mlflow_is_away_and_the_ledger_tells_it(serving, history, capsys):
    told = roll_back(read_manifest(), "", "it is wrong", serving.stack.settings.trusted_keys.read_text())
    assert told.step is Step.DONE and serving.answers_with("1")
    assert serving.target.observe().route == Route("blue", None, 3)
    entries = list(open_ledger().read_entries())
    assert [entry.what for entry in entries[2:]] == ["rollback.wanted", "release.done", "release.live"]
    assert entries[-1].why == "it is wrong" and entries[-1].subject == "1"
    output = capsys.readouterr()
    assert "switch" in output.out and "The champion alias was not moved: MLflow" in output.err


def test_a_version_that_never_served_moves_nothing(serving, history):
    with pytest.raises(RequestInvalid, match="Version 9 never served"):
        roll_back(read_manifest(), "9", "", serving.stack.settings.trusted_keys.read_text())
    assert serving.answers_with("2")


def test_a_blessing_that_was_written_by_hand_moves_nothing(serving, trained, history):
    history("1", blessed.envelope(blessed.document(version="1"), blessed.OTHER_KEY))
    with pytest.raises(NotBlessed):
        roll_back(read_manifest(), "1", "", serving.stack.settings.trusted_keys.read_text())
    assert serving.answers_with("2")


def test_the_alias_that_mlflow_could_not_move_is_named_by_make_reconcile_and_the_traffic_stays(serving, history):
    roll_back(read_manifest(), "", "it is wrong", serving.stack.settings.trusted_keys.read_text())
    outcome = open_reconciler(read_manifest(), open_registry(read_manifest().name), at_once=True).run("a test")
    assert (outcome.has_compared_registry, outcome.unresolved) == (False, [])
    assert serving.answers_with("1")
