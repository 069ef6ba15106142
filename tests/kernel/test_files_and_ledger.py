from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from include.kernel.files import hold_lock, write_atomic
from include.kernel.ledger import Entry
from include.kernel.ledger_file import LocalLedger

ROOT = Path(__file__).resolve().parents[2]


class TestWriteAtomic:
    def test_the_directory_is_made_and_nothing_but_the_file_is_left_in_it(self, tmp_path):
        write_atomic(tmp_path / "a" / "b.json", "text")
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]
        assert (tmp_path / "a" / "b.json").read_text() == "text"

    def test_a_write_that_fails_leaves_the_old_text_and_no_scratch_file(self, tmp_path):
        path = tmp_path / "b.json"
        write_atomic(path, "old")
        with pytest.raises(UnicodeEncodeError):
            write_atomic(path, "new \ud800")
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_reader_never_sees_half_of_it(self, tmp_path):
        path, texts, done = tmp_path / "b.json", {"a" * 100_000, "b" * 100_000}, threading.Event()
        write_atomic(path, "a" * 100_000)

        def write() -> None:
            for _ in range(30):
                for text in sorted(texts):
                    write_atomic(path, text)
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        seen = set()
        while not done.is_set():
            seen.add(path.read_text())
        writer.join()
        assert seen <= texts

    def test_a_file_is_its_owners_alone(self, tmp_path):
        write_atomic(tmp_path / "b", "text")
        assert stat.S_IMODE((tmp_path / "b").stat().st_mode) & 0o007 == 0


def test_a_lock_is_dropped_by_the_kernel_when_its_holder_is_killed(tmp_path):
    holder = f"""
import time
from pathlib import Path
from include.kernel.files import hold_lock
with hold_lock(Path({str(tmp_path / "lock")!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", holder], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    process.kill()
    process.wait()
    with hold_lock(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()


def entry(key: str | None = None, what: str = "release.live", subject: str = "1") -> Entry:
    return Entry(what=what, subject=subject, who="a test", why="to see", key=key)


class TestLedger:
    @pytest.fixture
    def ledger(self, tmp_path) -> LocalLedger:
        return LocalLedger(tmp_path / "store" / "ledger.jsonl")

    def test_what_was_appended_is_read_back_oldest_first(self, ledger):
        first, second = entry(subject="1"), entry(subject="2")
        assert ledger.append(first) and ledger.append(second)
        assert [each.model_copy(update={"previous": None}) for each in ledger.read_entries()] == [first, second]

    def test_an_empty_ledger_has_no_entries_and_one_may_ask_for_one_kind(self, ledger):
        assert list(ledger.read_entries()) == []
        ledger.append(entry(what="gate.passed"))
        ledger.append(entry())
        assert [found.what for found in ledger.read_entries("gate.passed")] == ["gate.passed"]

    def test_a_key_is_held_once_and_without_a_key_everything_counts(self, ledger):
        assert ledger.append(entry("k")) is True
        assert ledger.append(entry("k", subject="2")) is False
        assert ledger.append(entry()) and ledger.append(entry())
        assert [found.subject for found in ledger.read_entries()] == ["1", "1", "1"]

    def test_a_key_is_held_once_even_when_many_write_at_a_time(self, ledger):
        taken = []
        writers = [threading.Thread(target=lambda: taken.append(ledger.append(entry("k")))) for _ in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert sorted(taken) == [False] * 7 + [True]
        assert len(list(ledger.read_entries())) == 1

    def test_a_line_cut_off_by_a_kill_is_passed_over_and_swallows_nothing(self, ledger, tmp_path):
        path = tmp_path / "store" / "ledger.jsonl"
        ledger.append(entry(subject="1"))
        ledger.append(entry("k", subject="2"))
        os.truncate(path, path.stat().st_size - 25)
        assert [found.subject for found in ledger.read_entries()] == ["1"]
        assert ledger.append(entry("k", subject="2")) is True  # it was never acknowledged
        assert [found.subject for found in ledger.read_entries()] == ["1", "2"]

    def test_a_line_break_in_a_reason_breaks_no_line(self, ledger):
        strange = Entry(what="a.b", subject="s", who="w", why="one\ntwo\u2028three\x85four\x0cfive")
        ledger.append(strange)
        assert [found.why for found in ledger.read_entries()] == [strange.why]
