"""What every snapshot store promises: days named by their content, whole or absent, with a history of versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from include.data.core.snapshots import Snapshot
from include.data.store.snapshot_store import SnapshotStore
from include.data.wiring import open_snapshot_store
from include.kernel.errors import DataRefused
from tests.counterparts import S3Server
from tests.delivered import DAY, described, rows, written

ROOT = Path(__file__).resolve().parents[2]
Publish = Callable[..., tuple[Snapshot, bool]]


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place for snapshots, in force by the environment as the factory reads it."""
    monkeypatch.setenv("EVERGREEN_STORE", str(tmp_path / "store"))
    if request.param == "local":
        return str(tmp_path / "store")
    server: S3Server = request.getfixturevalue("buckets")
    bucket = f"snapshots-{uuid.uuid4().hex}"
    server.client().create_bucket(Bucket=bucket)
    monkeypatch.setenv("EVERGREEN_SNAPSHOTS", f"s3://{bucket}/credit/risk")
    return f"s3://{bucket}/credit/risk"


@pytest.fixture
def store(place: str) -> SnapshotStore:
    return open_snapshot_store()


@pytest.fixture
def publish(store: SnapshotStore, tmp_path: Path) -> Publish:
    """Publishes a table; gives its description and whether that changed anything."""

    def published(table: Any, day: date = DAY, as_of: date | None = None, **extras: Path) -> tuple[Snapshot, bool]:
        path = written(table, tmp_path / "delivered")
        snapshot = described(path, day, as_of)
        kept = {f"{name}.parquet": file for name, file in extras.items()}
        return snapshot, store.publish(snapshot, path, kept)

    return published


def objects(store: SnapshotStore) -> dict[str, str]:
    """Every object of the store with the tag of its version."""
    place: Any = store._objects
    return {key: place.read(key).tag for prefix in ("days/", "snapshots/", "files/") for key in place.list_keys(prefix)}


def test_an_empty_store_has_no_days(store):
    assert (store.list_snapshots(), store.read_history(), store.find_newest_day()) == ([], [], None)


def test_what_was_published_is_read_back(store, publish):
    snapshot, changed = publish(rows(1.5, None, 3.0))
    [found] = store.list_snapshots()
    assert changed is True
    assert found.model_copy(update={"files": (), "known_on": None}) == snapshot
    assert [file.name for file in found.files] == ["rows.parquet"]
    assert store.read_rows([found])["Income"].tolist()[::2] == [1.5, 3.0]
    assert store.read_rows([found], ["Home"]).columns.tolist() == ["Home"]
    assert store.find_newest_day() == DAY


def test_publishing_the_same_day_again_rewrites_nothing(store, publish):
    publish(rows(1.0))
    before = objects(store)
    assert publish(rows(1.0))[1] is False
    assert objects(store) == before


def test_a_corrected_day_counts_from_then_on_and_the_old_one_stays(store, publish):
    wrong, _ = publish(rows(1.0))
    right, changed = publish(rows(2.0), as_of=date(2026, 8, 9))
    assert changed is True
    assert [found.id for found in store.list_snapshots()] == [right.id]
    history = store.read_history()
    assert [(found.id, found.known_on.day) for found in history] == [(wrong.id, 2), (right.id, 9)]
    assert store.read_rows(history[:1])["Income"].tolist() == [1.0]


def test_rows_that_were_right_after_all_count_again(store, publish):
    first, _ = publish(rows(1.0))
    publish(rows(2.0), as_of=date(2026, 8, 3))
    again, changed = publish(rows(1.0), as_of=date(2026, 8, 4))
    assert (changed, again.id) == (True, first.id)
    assert [found.known_on.day for found in store.read_history()] == [2, 3, 4]


def test_the_past_is_not_rewritten_and_nothing_of_the_attempt_is_kept(store, publish):
    publish(rows(1.0), as_of=date(2026, 8, 9))
    before = objects(store)
    with pytest.raises(DataRefused, match="the past is not rewritten"):
        publish(rows(2.0))
    assert objects(store) == before


def test_days_come_in_order_however_they_were_published(store, publish):
    for day in (3, 1, 2):
        publish(rows(1.0), date(2026, 8, day))
    assert [found.day.day for found in store.list_snapshots()] == [1, 2, 3]
    assert store.find_newest_day() == date(2026, 8, 3)


def test_what_was_set_aside_is_kept_beside_the_rows(store, publish, tmp_path):
    publish(rows(1.0), quarantine=written(rows(-1.0), tmp_path / "aside"))
    [found] = store.list_snapshots()
    assert (
        store.fetch_file(found, "quarantine.parquet").read_bytes() == (tmp_path / "aside/accepted.parquet").read_bytes()
    )


def test_a_sample_is_plain_json_with_the_asked_columns_and_no_nan(store, publish):
    publish(rows(1.5, None, float("nan")))
    assert store.read_sample(store.list_snapshots()[0], ["Income", "Home"]) == [
        {"Income": income, "Home": "own"} for income in (1.5, None, None)
    ]


def test_a_sample_does_not_grow_with_the_day(store, publish):
    publish(rows(*map(float, range(500))))
    assert len(store.read_sample(store.list_snapshots()[0], ["Income"])) == 50


def test_a_history_that_is_none_is_named_with_its_fix(store, publish):
    publish(rows(1.0))
    place: Any = store._objects
    key = f"days/{DAY}.json"
    assert place.write(key, b"garbage", place.read(key).tag)
    with pytest.raises(DataRefused, match=rf"{DAY}.json is not a list of versions; "):
        store.list_snapshots()


def test_only_who_saw_the_newest_version_of_an_object_may_replace_it(store):
    place: Any = store._objects
    assert place.write("days/x.json", b"1", None) is True
    assert place.write("days/x.json", b"2", None) is False
    tag = place.read("days/x.json").tag
    assert place.write("days/x.json", b"2", tag) is True
    assert place.write("days/x.json", b"3", tag) is False
    assert place.read("days/x.json").data == b"2"


PUBLISHER = """
import sys
from pathlib import Path
from include.data.wiring import open_snapshot_store
from tests.delivered import described, rows, written
first, place = float(sys.argv[1]), Path(sys.argv[2])
for turn in range(5):
    for income in (first, 0.0):
        path = written(rows(*[income] * 200), place, f"{turn}-{income}.parquet")
        open_snapshot_store().publish(described(path), path)
"""


def test_publishers_of_one_day_at_once_all_stand_in_its_history_and_all_of_it_is_whole(store, tmp_path):
    running = [
        subprocess.Popen([sys.executable, "-c", PUBLISHER, number, str(tmp_path / number)], cwd=ROOT, env=os.environ)
        for number in ("1", "2")
    ]
    assert [each.wait(120) for each in running] == [0, 0]
    history = store.read_history()
    assert {store.read_rows([found])["Income"].iloc[0] for found in history} == {0.0, 1.0, 2.0}
    assert all(one.id != other.id for one, other in pairwise(history))


# Publishes one day after the other; each time it is killed one step later: before the n-th change of a file or the
# n-th piece that goes out to the server. Then somebody else publishes the same day. All of it happens in children,
# since the threads of polars do not survive a fork: the parent must not have started them.
KILLED = """
import json, os, signal, sys, traceback
from datetime import timedelta
from itertools import count
from pathlib import Path
import pandas, polars  # once, and not in every child
from include.data.wiring import open_snapshot_store
from tests.delivered import DAY, described, rows, written

CHANGES = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "http.client.send"}

def die_before(step):
    left = step
    def look(event, args):
        nonlocal left
        if event in CHANGES or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(look)

def in_child(work, *arguments):
    child = os.fork()
    if not child:
        try:
            work(*arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def killed_while_publishing(step, snapshot, path):
    die_before(step)
    store.publish(snapshot, path)

def incomes(day):
    return [store.read_rows([found])["Income"].tolist() for found in store.list_snapshots() if found.day == day]

def finished(ended, mine, snapshot, path):
    seen = incomes(snapshot.day)
    changed = store.publish(snapshot, path)
    after = incomes(snapshot.day)
    print(json.dumps([ended, seen in ([], mine), changed == (not seen), after == mine]), flush=True)

store = open_snapshot_store()
for step in count(1):
    path = written(rows(float(step)), Path(sys.argv[1]), f"{step}.parquet")
    snapshot = described(path, DAY + timedelta(days=step))
    ended = in_child(killed_while_publishing, step, snapshot, path)
    if in_child(finished, ended, [[float(step)]], snapshot, path) or ended >= 0:
        break
"""


def test_a_publisher_killed_at_any_step_has_published_all_or_nothing_and_the_next_finishes(store, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "delivered")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *killed, finished = map(json.loads, done.stdout.splitlines())
    assert finished == [0, True, True, True]
    assert len(killed) >= 10 and all(each == [-9, True, True, True] for each in killed), killed
    left = [path for path in tmp_path.rglob("*") if "work-" in path.name or path.name.startswith(".snapshot")]
    assert left == []
