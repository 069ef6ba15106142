"""`make history`: releases as people read them, and an exit code for those who touched the record."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from include.embedded.commands.history import app
from include.kernel.ledger import Entry
from include.kernel.wiring import open_ledger


@pytest.fixture(autouse=True)
def written(tmp_path, monkeypatch):
    monkeypatch.setenv("EVERGREEN_STORE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    evidence = {"accepted": {"verdict": "failed", "why": "answered 422"}}
    book = open_ledger()
    book.append(Entry(what="gate.passed", subject="7", who="train", why="good"))
    book.append(Entry(what="release.live", subject="7", who="deploy", why="better", details={"digest": "7" * 64}))
    book.append(Entry(what="release.rejected", subject="8", who="deploy", why="no", details={"evidence": evidence}))
    return tmp_path / "ledger.jsonl"


def history(*arguments: str):
    return CliRunner().invoke(app, [*arguments], catch_exceptions=False)


def test_releases_are_told_with_their_evidence_and_the_hash_to_note(written):
    told = history()
    assert told.exit_code == 0
    assert "release.live" in told.output and "digest 777777777777" in told.output
    assert "accepted failed: answered 422" in told.output and "gate.passed" not in told.output
    assert f"3 entries, the chain is whole; the newest is {open_ledger().compute_head_hash()}." in told.output
    assert "gate.passed" in history("--all").output


def test_an_entry_that_was_changed_is_named_by_the_one_after_it(written):
    written.write_bytes(written.read_bytes().replace(b"better", b"worse!"))
    told = history()
    assert told.exit_code == 65
    assert "Entry 3 of 3 (release.rejected) does not follow the one before it" in told.output


def test_an_empty_ledger_is_whole_too(written):
    written.unlink()
    assert "Nothing was released yet." in history().output
