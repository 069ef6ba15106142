"""The prediction log of a real server process when its disk is full, its bucket is away, or the server is killed.

In each: every request is answered, what was answered is in the log once it can be, and no record is there twice.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from include.data.store.local_store import LocalObjectStore
from include.data.store.s3_store import S3ObjectStore
from include.feedback.segments import Segments
from include.model import artifact
from tests import credit
from tests.counterparts import S3Server
from tests.fault_proxy import Fault, fault_proxy
from tests.feedback.test_prediction_reading import DAY, Log
from tests.ground import free_ports, wait_for, write_manifest
from tests.proofs.data_disks import may_mount, small_disk
from tests.serving.conftest import stage_in

ROOT = Path(__file__).resolve().parents[2]
ROW = credit.rows()[0]
Started = Callable[..., "Server"]


class Server:
    """A slot process with a log of its own; asked one row at a time."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        [port] = free_ports(1)
        told = {"EVERGREEN_SLOT": "blue", "EVERGREEN_SERVING_DIR": str(home), "EVERGREEN_PORT": str(port)}
        told["EVERGREEN_MANIFEST"] = str(home / "pipeline.yaml")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "include.serving"],
            cwd=ROOT, env={**os.environ, **told, **environment}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)
        self.answered: list[str] = []
        wait_for(lambda: self.client.get("/ready").status_code == 200, 60)

    def ask(self, count: int) -> list[str]:
        """The ids of these requests; all of them must be answered."""
        ids = [uuid.uuid4().hex for _ in range(count)]
        for name in ids:
            answer = self.client.post("/predict", json={"row": ROW}, headers={"x-request-id": name})
            assert answer.status_code == 200, answer.text
            self.answered.append(name)
        return ids

    def count(self, name: str) -> float:
        """A metric of the predictions' log; all reasons together."""
        lines = self.client.get("/metrics").text.splitlines()
        found = [line for line in lines if line.startswith(f"evergreen_log_{name}") and 'stream="predictions"' in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(20)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("source")
    model = credit.trained("logistic")
    artifact.save(model.pipeline, model.meta, directory)
    return directory


@pytest.fixture
def started(source: Path, tmp_path: Path) -> Iterator[Started]:
    """Starts servers on one directory, one after the other; none outlives the test."""
    stage_in(tmp_path, source, "blue")
    made: list[Server] = []

    def start(store: str = "", log: dict[str, Any] | None = None, **environment: str) -> Server:
        write_manifest(tmp_path / "pipeline.yaml", {"serving.log": {"flush_s": 0.4, **(log or {})}})
        place = {"EVERGREEN_STORE": str(tmp_path / "store"), "EVERGREEN_SNAPSHOTS": store}
        made.append(Server(tmp_path, {**place, **environment}))
        return made[-1]

    yield start
    for server in made:
        server.process.kill()
        server.process.wait()
        server.client.close()


def local(root: Path) -> list[str]:
    """Every request id in a directory's log, as often as it is there."""
    files = Segments(LocalObjectStore(root)).list_days("predictions")
    return [name for keys in files.values() for key in keys for name in pl.read_parquet(root / key)["request_id"]]


def in_bucket(server: S3Server, bucket: str) -> list[str]:
    client = server.client()
    keys = [each["Key"] for each in client.list_objects_v2(Bucket=bucket).get("Contents", ())]
    bodies = [client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys]
    return [name for body in bodies for name in pl.read_parquet(io.BytesIO(body))["request_id"]]


def test_a_server_that_is_told_to_stop_under_load_leaves_every_answer_in_the_log(started, tmp_path):
    server = started(log={"flush_s": 60})
    load = threading.Thread(target=lambda: _until_refused(server))
    load.start()
    wait_for(lambda: len(server.answered) > 200)
    server.stop()
    load.join()
    assert sorted(local(tmp_path / "store")) == sorted(server.answered)
    assert not list((tmp_path / "spool").iterdir())


def _until_refused(server: Server) -> None:
    try:
        while True:
            server.ask(1)
    except (httpx.HTTPError, AssertionError):
        pass


def test_a_server_that_is_killed_loses_no_more_than_the_last_moment_and_the_next_one_stores_the_rest_once(
    started, tmp_path
):
    server = started(log={"flush_s": 60})
    ids = server.ask(100)
    [spool] = wait_for(lambda: list((tmp_path / "spool").glob("predictions@*")))
    wait_for(lambda: ids[-1].encode() in spool.read_bytes())
    server.stop(signal.SIGKILL)
    assert local(tmp_path / "store") == []
    again = started(log={"flush_s": 60})
    wait_for(lambda: again.count("written_rows_total") == 100)
    more = again.ask(10)
    again.stop()
    assert sorted(local(tmp_path / "store")) == sorted(ids + more)
    assert not list((tmp_path / "spool").iterdir())


@contextmanager
def tmpfs(store: Path) -> Iterator[Callable[[Server, bool], None]]:
    with small_disk(store, 1024):  # room for a segment of every few rows, where the machine is slow

        def full(server: Server, wanted: bool) -> None:
            (store / "ballast").write_bytes(b"") if not wanted else _fill(store / "ballast")

        yield full


def _fill(file: Path) -> None:
    with open(file, "wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            pass


@contextmanager
def file_size(store: Path) -> Iterator[Callable[[Server, bool], None]]:
    """The kernel refuses the process every byte it writes to a file, as on a full disk; the spool too."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(server: Server, wanted: bool) -> None:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0 if wanted else hard, hard))

    yield full


@pytest.mark.parametrize("disk", [tmpfs, file_size])
def test_with_a_full_disk_it_serves_on_counts_what_is_lost_and_heals(started, tmp_path, disk):
    if disk is tmpfs and not may_mount(tmp_path):
        pytest.skip("nothing can be mounted here")
    store = tmp_path / "store"
    with disk(store) as full, ExitStack() as later:
        server = started(log={"buffer_rows": 60, "rows_per_segment": 20})
        later.callback(server.stop, signal.SIGKILL)  # or its disk cannot be unmounted
        before = server.ask(20)
        wait_for(lambda: server.count("written_rows_total") == 20)
        full(server, True)
        during = server.ask(100)
        wait_for(lambda: server.count("refused_total") >= 1)
        assert server.count("lost_rows_total") == 40
        assert len(local(store)) == 20
        full(server, False)
        wait_for(lambda: server.count("written_rows_total") == 80)
        after = server.ask(20)
        server.stop()
        found = local(store)
        assert sorted(found) == sorted(before + during[:60] + after)


@pytest.mark.parametrize("fault", ["503", "reset", "silence"])
def test_with_a_bucket_that_is_away_it_serves_on_and_every_record_is_there_once_when_it_is_back(started, moto, fault):
    bucket = f"log-{uuid.uuid4().hex}"
    moto.client().create_bucket(Bucket=bucket)
    with fault_proxy(moto.url) as proxy:
        environment = {**moto.environment(), "AWS_ENDPOINT_URL_S3": proxy.url}
        server = started(store=f"s3://{bucket}", **environment)
        proxy.faults = [Fault(fault, "PUT", times=1 if fault == "silence" else 2)]
        ids = server.ask(60)
        wait_for(lambda: server.count("refused_total") >= 1, 30)
        ids += server.ask(20)
        wait_for(lambda: server.count("written_rows_total") == 80, 60)
        server.stop()
        assert sorted(in_bucket(moto, bucket)) == sorted(ids)


def test_a_server_that_stops_while_the_bucket_is_away_leaves_its_records_to_the_next_one(started, moto, tmp_path):
    bucket = f"log-{uuid.uuid4().hex}"
    moto.client().create_bucket(Bucket=bucket)
    with fault_proxy(moto.url) as proxy:
        environment = {**moto.environment(), "AWS_ENDPOINT_URL_S3": proxy.url}
        server = started(store=f"s3://{bucket}", **environment)
        proxy.faults = [Fault("503", "PUT")]
        ids = server.ask(30)
        wait_for(lambda: server.count("refused_total") >= 1, 30)
        server.stop()
        assert in_bucket(moto, bucket) == [] and list((tmp_path / "spool").iterdir())
        proxy.faults = []
        again = started(store=f"s3://{bucket}", **environment)
        wait_for(lambda: again.count("written_rows_total") == 30, 30)
        again.stop()
        assert sorted(in_bucket(moto, bucket)) == sorted(ids)
        assert not list((tmp_path / "spool").iterdir())


def test_a_bucket_is_read_and_kept_up_like_a_directory(buckets, tmp_path):
    bucket = f"log-{uuid.uuid4().hex}"
    buckets.client().create_bucket(Bucket=bucket)
    log = Log(tmp_path)
    (tmp_path / "room").mkdir()
    log.segments.place = S3ObjectStore(f"s3://{bucket}/risk", tmp_path / "cache")
    for number in range(5):
        key = log.predicted({"request_id": f"a{number}"}, {"request_id": "twice"})
        log.segments.place.add(key, b"other bytes under a name that is taken")
    log.told({"request_id": "a3", "label": "bad"})
    before = log.read().sort("request_id")
    assert len(before) == 6 and before["outcome"].drop_nulls().to_list() == ["bad"]
    assert log.upkeep().replaced == 5
    assert len(log.segments.list_keys("predictions", [DAY])) == 1
    assert log.read().sort("request_id").equals(before)
    log.upkeep(keep_days=1)
    assert log.read().is_empty()
