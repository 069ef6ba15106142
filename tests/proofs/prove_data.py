"""`make prove-data`: every bad input there is a promise about, through the real ingest job against real servers.

Each case has a pipeline and a store of its own, with the day before already published. The job runs as an operator
would start it, as a process. After a refusal: the exit code says whether to try again, one sentence names the place and
the fix, nothing was published (no snapshot, no pointer, no word an event could be made of), nothing temporary is left,
and the next good delivery is published under the id it always has. Kills are enumerated: before each write Python
makes, and by the clock, since native code writes too. The last line is JSON; exit 0 if and only if all held.

    python -m tests.proofs.prove_data [word of a case's name ...]
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console

from include.adapters.store_local import LocalStore
from tests import counterparts
from tests.counterparts import Database, S3Server
from tests.fault_proxy import Fault, fault_proxy
from tests.proofs import bad_input
from tests.proofs.bad_input import FORBIDDEN, INJECTED, Case
from tests.proofs.delivery import DAY, ROOT, BucketPipeline, Ended, Pipeline, as_csv, as_parquet, rows_of

BEFORE, NEXT = DAY - timedelta(days=1), DAY + timedelta(days=1)
KILLING = Path(__file__).parent / "killing"
CLOCK_KILLS = 12
PUBLISHER_ROUNDS = 3
WORKERS = 2
Story = Callable[[], None]


@dataclass
class Proof:
    """The world all cases share, and their outcomes."""

    home: Path
    console: Console = field(default_factory=lambda: Console(width=160, highlight=False))
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    good_id: str = ""
    good_names: set[str] = field(default_factory=set)
    bucket_names: set[str] = field(default_factory=set)
    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _made: int = 0

    # --- what cases are made of ---------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """The store every case starts from, and what one undisturbed good day is called and leaves."""
        template = Pipeline(self.home / "template")
        template.deliver(rows_of(BEFORE), BEFORE)
        must(template.ingest(BEFORE).exit == 0, "the day before could not be published")
        undisturbed = self.pipeline()
        undisturbed.deliver(rows_of())
        began = time.monotonic()
        ended = undisturbed.ingest()
        self.seconds = time.monotonic() - began
        must(ended.exit == 0, ended.log)
        self.good_id, self.good_names = ended.outputs["id"], set(undisturbed.published())

    def new_home(self) -> Path:
        with self._lock:
            self._made += 1
            return self.home / f"case-{self._made:03d}"

    def pipeline(self, suffix: str = "csv", **more: Any) -> Pipeline:
        home = self.new_home()
        if (self.home / "template" / "store").exists():
            shutil.copytree(self.home / "template" / "store", home / "store")
        return Pipeline(home, suffix, **more)

    def refused(
        self, pipeline: Pipeline, ended: Ended, before: dict[str, str], exit: int, kind: str, *told: str
    ) -> None:
        """What holds after every refusal."""
        must((ended.exit, ended.kind) == (exit, kind), f"ended with {ended.exit} {ended.kind}: {ended.log[-600:]}")
        must(not [part for part in told if part not in ended.told], f"says only: {ended.told}")
        must("\n" not in ended.told, f"says more than one line: {ended.told!r}")
        must(not [mark for mark in FORBIDDEN if mark in ended.told + ended.log], f"lets markup through: {ended.log!r}")
        must(ended.verdict == "", "left a verdict an event could be made of")
        must(pipeline.published() == before, f"changed the store: {set(pipeline.published()) ^ set(before)}")
        must(pipeline.leftovers() == [], f"left {pipeline.leftovers()}")

    def recovers(self, pipeline: Pipeline) -> None:
        """The next good run, whatever was before it."""
        ended = pipeline.ingest()
        must(ended.exit == 0, f"the next good run ended with {ended.exit}: {ended.log[-600:]}")
        must(ended.outputs["id"] == self.good_id, f"the next good run published {ended.outputs['id'][:12]}")
        must([s.id for s in pipeline.snapshots() if s.day == DAY][-1:] == [self.good_id], "its snapshot does not count")
        must(pipeline.leftovers() == [], f"the next good run left {pipeline.leftovers()}")

    def recovers_with_good_rows(self, pipeline: Pipeline) -> None:
        pipeline.deliver(rows_of())
        self.recovers(pipeline)

    # --- running them -------------------------------------------------------------------------------------------------

    def run(self, stories: list[tuple[str, Story]], workers: int = WORKERS) -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda named: self._one(*named), stories))

    def _one(self, name: str, story: Story) -> None:
        began, problem = time.monotonic(), ""
        try:
            story()
        except Exception as error:  # a case that breaks in an unforeseen way has failed like any other
            problem = f"{type(error).__name__}: {error}"
        with self._lock:
            self.passed += not problem
            self.failed += [name] * bool(problem)
            self.console.print(
                f"{'FAIL' if problem else 'ok  '} {time.monotonic() - began:5.1f} s  {name}", markup=False
            )
            if problem:
                self.console.print(f"       {problem}", markup=False)


def must(held: bool, problem: str) -> None:
    if not held:
        raise AssertionError(problem)


# --- one delivery, one sentence ---------------------------------------------------------------------------------------


def bad_delivery(proof: Proof, case: Case) -> None:
    pipeline = proof.pipeline(case.suffix, contract=case.contract)
    if case.source:
        files = {"kind": "files", "path": f"{pipeline.inbox}/{{day}}.{case.suffix}"}
        pipeline.source = {**files, **case.source}
        pipeline.configure()
    pipeline.deliver(case.content())
    before, ended = pipeline.published(), pipeline.weighed()
    proof.refused(pipeline, ended, before, case.exit, case.kind, *case.told)
    must(ended.peak_mib <= case.peak_mib, f"took {ended.peak_mib:.0f} MiB")
    with proof._lock:
        proof.figures["peak_mib"] = max(proof.figures.get("peak_mib", 0), round(ended.peak_mib))
    pipeline.deliver(case.good() if case.good else rows_of())
    proof.recovers(pipeline)


# --- days that come late, again, twice, or not at all -----------------------------------------------------------------


def a_day_without_rows(proof: Proof, content: bytes | None, suffix: str) -> None:
    pipeline = proof.pipeline(suffix)
    if content is not None:
        pipeline.deliver(content)
    before, ended = pipeline.published(), pipeline.ingest()
    must((ended.exit, ended.verdict) == (0, "no"), f"ended with {ended.exit} {ended.verdict}: {ended.log}")
    must(ended.told == f"no rows were delivered for {DAY}; nothing was published", f"says {ended.told}")
    must(pipeline.published() == before and pipeline.leftovers() == [], "left something")
    proof.recovers_with_good_rows(pipeline)


def ids_of_another_day(proof: Proof) -> None:
    pipeline = proof.pipeline()
    rows = rows_of()
    rows[5]["customer"] = rows_of(BEFORE)[7]["customer"]
    pipeline.deliver(rows)
    before, ended = pipeline.published(), pipeline.ingest()
    proof.refused(pipeline, ended, before, 65, "DataRefused", "customer: new id", "1 of 100 rows (6)", str(DAY))
    proof.recovers_with_good_rows(pipeline)


def a_late_day(proof: Proof) -> None:
    """The day after is there already; the late one counts from the day it came, and moves no other."""
    pipeline = proof.pipeline()
    pipeline.deliver(rows_of(NEXT), NEXT)
    must(pipeline.ingest(NEXT).exit == 0, "the day after could not be published")
    before = pipeline.published()
    pipeline.deliver(rows_of())
    ended = pipeline.ingest(as_of=DAY + timedelta(days=9))
    must(ended.exit == 0 and ended.outputs["id"] == proof.good_id, ended.log)
    must(ended.outputs["known_on"] == str(DAY + timedelta(days=9)), f"known on {ended.outputs['known_on']}")
    must(before.items() <= pipeline.published().items(), "moved another day")


def the_same_delivery_again(proof: Proof) -> None:
    pipeline = proof.pipeline()
    proof.recovers_with_good_rows(pipeline)
    before, ended = pipeline.published(), pipeline.ingest(as_of=DAY + timedelta(days=9))
    must(ended.exit == 0 and ended.outputs["changed"] is False, ended.log)
    must(pipeline.published() == before, "rewrote something")


def a_corrected_delivery(proof: Proof) -> None:
    """A new version from the day it came; the old one is still there for whoever asks about the days between."""
    pipeline = proof.pipeline()
    proof.recovers_with_good_rows(pipeline)
    before = pipeline.published()
    pipeline.deliver(rows_of(seed=2))
    ended = pipeline.ingest(as_of=DAY + timedelta(days=9))
    must(ended.exit == 0 and ended.outputs["id"] != proof.good_id, ended.log)
    versions = [(s.id, str(s.known_on)) for s in pipeline.snapshots() if s.day == DAY]
    wanted = [(proof.good_id, str(NEXT)), (ended.outputs["id"], str(DAY + timedelta(days=9)))]
    must(versions == wanted, f"versions are {versions}")
    pointer = f"days/{DAY}.json"
    must({**before, pointer: ""}.items() <= {**pipeline.published(), pointer: ""}.items(), "changed what was published")


def the_past_is_not_rewritten(proof: Proof) -> None:
    pipeline = proof.pipeline()
    proof.recovers_with_good_rows(pipeline)
    pipeline.deliver(rows_of(seed=2))
    before, ended = pipeline.published(), pipeline.ingest(intent="historical")
    proof.refused(
        pipeline, ended, before, 65, "DataRefused", str(DAY), "the past is not rewritten", "run ingest for it"
    )
    proof.recovers_with_good_rows(pipeline)


def another_order_of_columns(proof: Proof, suffix: str) -> None:
    """Parquet or CSV, columns in any order: the same rows are the same snapshot."""
    pipeline = proof.pipeline(suffix)
    rows = [dict(reversed(row.items())) for row in rows_of()]
    pipeline.deliver(as_csv(rows) if suffix == "csv" else as_parquet(rows, row_group_size=17, compression="gzip"))
    proof.recovers(pipeline)


def files_that_differ(proof: Proof) -> None:
    pipeline = proof.pipeline()
    pipeline.source = {"kind": "files", "path": f"{pipeline.inbox}/{{day}}-*.csv"}
    pipeline.configure()
    (pipeline.inbox / f"{DAY}-a.csv").write_bytes(as_csv(rows_of()[:50]))
    (pipeline.inbox / f"{DAY}-b.csv").write_bytes(as_csv([row | {"gift": 1} for row in rows_of()[50:]]))
    before, ended = pipeline.published(), pipeline.ingest()
    proof.refused(pipeline, ended, before, 65, "DataRefused", f"{DAY}-b.csv", "'gift'", "with the same columns")
    (pipeline.inbox / f"{DAY}-b.csv").write_bytes(as_csv(rows_of()[50:]))
    proof.recovers(pipeline)


def an_unmounted_folder(proof: Proof) -> None:
    pipeline = proof.pipeline()
    pipeline.deliver(rows_of())
    pipeline.inbox.rename(pipeline.home / "away")
    before, ended = pipeline.published(), pipeline.ingest()
    proof.refused(pipeline, ended, before, 75, "ServiceUnavailable", str(pipeline.inbox), "mount or create it")
    (pipeline.home / "away").rename(pipeline.inbox)
    proof.recovers(pipeline)


def injected_rows_in_data_docs(proof: Proof) -> None:
    """Great Expectations shows examples of bad cells in its pages, which are scripts and markup themselves."""
    pipeline = proof.pipeline(contract={"data_docs": "always"})
    pipeline.deliver(bad_input.changed(9, plan=INJECTED))
    ended = pipeline.ingest()
    must((ended.exit, "plan: in set" in ended.told) == (65, True), ended.log)
    pages = [page.read_text() for page in (pipeline.store / "data_docs").rglob("*.html")]
    must(any("alert(1)" in page for page in pages), "no page shows the bad cell")
    must(not [page for page in pages if "<script>alert(1)" in page], "a page runs the bad cell")


def injected_rows_set_aside(proof: Proof) -> None:
    """A row in quarantine is shown to people: in a page, where it must be text and nothing else."""
    pipeline = proof.pipeline(contract={"max_quarantined": 0.05})
    pipeline.deliver(bad_input.changed(9, plan=INJECTED))
    ended = pipeline.ingest()
    must(ended.exit == 0 and ended.outputs["quarantined"] == 1, ended.log)
    [snapshot] = [each for each in pipeline.snapshots() if each.day == DAY]
    page = LocalStore(pipeline.store).file(snapshot, "quarantine.html").read_text()
    shown = page + ended.log + json.dumps(ended.outputs)
    must(not [mark for mark in FORBIDDEN if mark in shown], "lets markup through")
    must("&lt;script&gt;" in page or "\\x3cscript" in page, "does not show the row")


# --- the disk ---------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(place: Path, kib: int) -> Iterator[None]:
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def may_mount(home: Path) -> bool:
    try:
        with small_disk(home / "may-mount", 64):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def a_full_disk(proof: Proof, kib: int) -> None:
    """At this size the disk is full somewhere between the first byte that lands and the last that is published."""
    pipeline = Pipeline(proof.home / f"disk-{kib}")
    with small_disk(pipeline.store, kib):
        pipeline.deliver(rows_of(count=400))
        ended = pipeline.ingest()
        if ended.exit == 0:
            proof.figures["disk_enough_kib"] = min(kib, proof.figures.get("disk_enough_kib", kib))
            return
        must((ended.exit, ended.kind) == (75, "StorageUnavailable"), f"{ended.exit} {ended.kind}: {ended.log[-600:]}")
        must("No space left on device" in ended.told and str(pipeline.store) in ended.told, f"says {ended.told}")
        must(pipeline.snapshots() == [] and pipeline.leftovers() == [], f"left {pipeline.leftovers()}")
        proof.figures["disk_full_runs"] = proof.figures.get("disk_full_runs", 0) + 1
        subprocess.run(["mount", "-o", "remount,size=64m", str(pipeline.store)], check=True)
        again = pipeline.ingest()
        must(again.exit == 0 and len(pipeline.snapshots()) == 1, f"did not recover: {again.log[-600:]}")


def a_read_only_disk(proof: Proof) -> None:
    pipeline = Pipeline(proof.home / "disk-ro")
    with small_disk(pipeline.store, 4096):
        pipeline.deliver(rows_of())
        subprocess.run(["mount", "-o", "remount,ro", str(pipeline.store)], check=True)
        before, ended = pipeline.published(), pipeline.ingest()
        proof.refused(pipeline, ended, before, 75, "StorageUnavailable", str(pipeline.store), "Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", str(pipeline.store)], check=True)
        must(pipeline.ingest().exit == 0, "did not recover")


def a_file_that_may_not_grow(proof: Proof, nbytes: int) -> None:
    """Where nothing can be mounted: the kernel refuses a write beyond a size, as it does on a full disk."""
    pipeline = proof.pipeline()
    pipeline.deliver(rows_of(count=400))
    before = pipeline.published()
    command = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); "
    command = command.format(nbytes) + "runpy.run_module('include.jobs', run_name='__main__')"
    ended = pipeline.ended(pipeline.start(command=("-c", command)))
    proof.refused(pipeline, ended, before, 75, "StorageUnavailable", "cannot be written (File too large)")
    must(pipeline.ingest().exit == 0, "did not recover")


# --- two at once, and kills -------------------------------------------------------------------------------------------


def two_publishers(proof: Proof, same: bool) -> None:
    for _ in range(PUBLISHER_ROUNDS):
        first, second = proof.pipeline(), proof.pipeline()
        second.store = first.store
        first.deliver(rows_of())
        second.deliver(rows_of(seed=1 if same else 2))
        both_publish(first, second)


def both_publish(first: Pipeline, second: Pipeline) -> None:
    """At once: both end well, and the day's history holds what each of them brought, once."""
    pipelines = (first, second)
    started = [each.start(as_of=DAY + timedelta(days=2)) for each in pipelines]
    ended = [each.ended(process) for each, process in zip(pipelines, started, strict=True)]
    must([each.exit for each in ended] == [0, 0], " ".join(each.log[-300:] for each in ended))
    versions = [each.id for each in first.snapshots() if each.day == DAY]
    wanted = {each.outputs["id"] for each in ended}
    must(len(versions) == len(wanted) and set(versions) == wanted, f"versions are {versions}")
    must(sum(each.outputs["changed"] for each in ended) == len(wanted), "both or none said they published")
    must(first.leftovers() == [], f"left {first.leftovers()}")


def count_writes(proof: Proof) -> int:
    """Writes Python makes in one undisturbed run."""
    pipeline = proof.pipeline()
    pipeline.deliver(rows_of())
    must(pipeline.ended(_killable(pipeline, 0)).exit == 0, "the run to count in failed")
    return int((pipeline.home / "kills").read_text().split()[0])


def _killable(pipeline: Pipeline, at: int) -> subprocess.Popen[str]:
    return pipeline.start(
        PYTHONPATH=f"{KILLING}{os.pathsep}{ROOT}",
        KILL_AT=str(at),
        KILL_LOG=str(pipeline.home / "kills"),
        KILL_UNDER=str(pipeline.home),
    )


def killed_before_write(proof: Proof, at: int) -> None:
    pipeline = proof.pipeline()
    pipeline.deliver(rows_of())
    ended = pipeline.ended(_killable(pipeline, at))
    must(ended.exit == -signal.SIGKILL, f"was not killed but ended with {ended.exit}")
    recovers_from_a_kill(proof, pipeline)


def killed_by_the_clock(proof: Proof, after: float) -> None:
    pipeline = proof.pipeline()
    pipeline.deliver(rows_of())
    process = pipeline.start()
    time.sleep(after)  # the moment is the point: it is spread over the whole run
    process.kill()
    pipeline.ended(process)
    recovers_from_a_kill(proof, pipeline)


def recovers_from_a_kill(proof: Proof, pipeline: Pipeline) -> None:
    """What counts is whole: the day is published or it is not. The next run leaves what an undisturbed one leaves."""
    found = {each.id for each in pipeline.snapshots() if each.day == DAY}
    must(found <= {proof.good_id}, f"a half-published day: {found}")
    proof.recovers(pipeline)
    names = set(pipeline.published())
    must(names == proof.good_names, f"differs from an undisturbed run: {sorted(names ^ proof.good_names)}")


# --- a bucket ---------------------------------------------------------------------------------------------------------


class Bucket:
    """One bucket of the shared S3 server, and a pipeline that reads from it."""

    def __init__(self, proof: Proof, server: S3Server, suffix: str = "csv", url: str = "") -> None:
        self.pipeline = proof.pipeline(suffix)
        self.name = f"lake-{self.pipeline.home.name}"
        self.client = server.client()
        self.client.create_bucket(Bucket=self.name)
        uri = f"s3://{self.name}/in/{{day}}.{suffix}"
        quick = {"connect_timeout_s": 1.0, "read_timeout_s": 1.0, "attempts": 2}
        self.pipeline.source = {"kind": "s3", "uri": uri, **quick}
        self.pipeline.environment = server.environment() | ({"AWS_ENDPOINT_URL_S3": url} if url else {})
        self.pipeline.configure()
        self.key = f"in/{DAY}.{suffix}"
        self.uri = f"s3://{self.name}/{self.key}"

    def put(self, body: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=self.key, Body=body)


def a_bucket_that_fails(proof: Proof, server: S3Server, action: Any, told: str) -> None:
    with fault_proxy(server.url) as proxy:
        bucket = Bucket(proof, server, url=proxy.url)
        bucket.put(as_csv(rows_of()))
        proxy.faults = [Fault(action, f"GET /{bucket.name}/{bucket.key}")]
        before, ended = bucket.pipeline.published(), bucket.pipeline.ingest()
        proof.refused(bucket.pipeline, ended, before, 75, "ServiceUnavailable", bucket.uri, told, "try again later")
        must(sum(done == action for _, done in proxy.log) == 2, f"was not asked twice: {proxy.log}")
        proxy.faults = [Fault(action, f"GET /{bucket.name}/{bucket.key}", times=1)]
        proof.recovers(bucket.pipeline)  # one broken answer, and then a whole one


def a_multipart_upload_under_way(proof: Proof, server: S3Server) -> None:
    bucket = Bucket(proof, server)
    whole = as_csv(rows_of())
    name = {"Bucket": bucket.name, "Key": bucket.key}
    upload = bucket.client.create_multipart_upload(**name)["UploadId"]
    tag = bucket.client.upload_part(**name, UploadId=upload, PartNumber=1, Body=whole)["ETag"]
    before, ended = bucket.pipeline.published(), bucket.pipeline.ingest()
    must((ended.exit, ended.verdict) == (0, "no"), f"{ended.exit} {ended.verdict}: {ended.log}")
    must(bucket.pipeline.published() == before, "published half an upload")
    parts = {"Parts": [{"PartNumber": 1, "ETag": tag}]}
    bucket.client.complete_multipart_upload(**name, UploadId=upload, MultipartUpload=parts)
    proof.recovers(bucket.pipeline)


def withdrawn_keys(proof: Proof) -> None:
    with counterparts.s3_server() as server:  # its own: it looks at everybody's keys now
        bucket = Bucket(proof, server)
        bucket.put(as_csv(rows_of()))
        keys, renewed = server.reader(), server.reader()
        bucket.pipeline.environment = server.environment(**keys)
        with server.check_keys():
            server.revoke(keys)
            before, ended = bucket.pipeline.published(), bucket.pipeline.ingest()
            told = (bucket.uri, "refused the keys (403", "Airflow Connection evergreen_s3")
            proof.refused(bucket.pipeline, ended, before, 65, "AccessRefused", *told)
            must(keys["AWS_SECRET_ACCESS_KEY"] not in ended.told + ended.log, "tells the key")
            bucket.pipeline.environment = server.environment(**renewed)
            proof.recovers(bucket.pipeline)


def a_bucket_nobody_made(proof: Proof, server: S3Server) -> None:
    bucket = Bucket(proof, server)
    bucket.client.delete_bucket(Bucket=bucket.name)
    before, ended = bucket.pipeline.published(), bucket.pipeline.ingest()
    proof.refused(bucket.pipeline, ended, before, 65, "DataRefused", bucket.uri, "does not exist; create it")
    bucket.client.create_bucket(Bucket=bucket.name)
    bucket.put(as_csv(rows_of()))
    proof.recovers(bucket.pipeline)


def an_object_nobody_delivered(proof: Proof, server: S3Server) -> None:
    bucket = Bucket(proof, server)
    ended = bucket.pipeline.ingest()
    must((ended.exit, ended.verdict) == (0, "no"), f"{ended.exit} {ended.verdict}: {ended.log}")
    bucket.put(as_csv(rows_of()))
    proof.recovers(bucket.pipeline)


def a_truncated_object(proof: Proof, server: S3Server) -> None:
    bucket = Bucket(proof, server, "parquet")
    bucket.put(as_parquet(rows_of())[:-100])
    before, ended = bucket.pipeline.published(), bucket.pipeline.ingest()
    proof.refused(bucket.pipeline, ended, before, 65, "DataRefused", bucket.uri, "cannot be read", "again, whole")
    bucket.put(as_parquet(rows_of()))
    proof.recovers(bucket.pipeline)


def no_s3_server(proof: Proof, server: S3Server) -> None:
    bucket = Bucket(proof, server, url="http://127.0.0.1:9")
    bucket.put(as_csv(rows_of()))
    before, ended = bucket.pipeline.published(), bucket.pipeline.ingest()
    proof.refused(bucket.pipeline, ended, before, 75, "ServiceUnavailable", bucket.uri, "cannot be reached")
    bucket.pipeline.environment = server.environment()
    proof.recovers(bucket.pipeline)


# --- snapshots in a bucket --------------------------------------------------------------------------------------------


def in_a_bucket(proof: Proof, server: S3Server, url: str = "") -> BucketPipeline:
    """A pipeline whose snapshots go to an empty bucket, by way of `url` where that is given."""
    pipeline = BucketPipeline(proof.new_home())
    pipeline.environment = server.environment() | ({"AWS_ENDPOINT_URL_S3": url} if url else {})
    pipeline.place(f"snapshots-{pipeline.home.name}", server.client())
    pipeline.deliver(rows_of())
    return pipeline


def a_store_that_fails(proof: Proof, server: S3Server, where: str) -> None:
    """S3 is busy for good at this point of publishing: nothing counts, and the next run finishes the work."""
    with fault_proxy(server.url) as proxy:
        pipeline = in_a_bucket(proof, server, proxy.url)
        proxy.faults = [Fault("503", f"PUT /snapshots-{pipeline.home.name}/credit/{where}")]
        ended = pipeline.ingest()
        must((ended.exit, ended.kind) == (75, "ServiceUnavailable"), f"{ended.exit} {ended.kind}: {ended.log[-600:]}")
        must("answered 503 (SlowDown) to every attempt; try again later" in ended.told, f"says {ended.told}")
        must(pipeline.snapshots() == [] and pipeline.leftovers() == [], f"left {pipeline.leftovers()}")
        proxy.faults = []
        proof.recovers(pipeline)


def count_requests(proof: Proof, server: S3Server) -> int:
    """Requests of one undisturbed run that write to the bucket; what it leaves is what every other run must leave."""
    with fault_proxy(server.url) as proxy:
        pipeline = in_a_bucket(proof, server, proxy.url)
        must(pipeline.ingest().exit == 0, "the run to count in failed")
        proof.bucket_names = set(pipeline.published())
        return sum(_is_write(line) for line, _ in proxy.log)


def _is_write(line: str) -> bool:
    return line.startswith(("PUT", "POST", "DELETE"))


def killed_at_request(proof: Proof, server: S3Server, at: int, when: str) -> None:
    """Before the bucket sees the request, or after it obeyed and before the answer comes back."""
    with fault_proxy(server.url) as proxy:
        pipeline = in_a_bucket(proof, server, proxy.url)
        process, seen = pipeline.start(), 0

        def watch(now: str, line: str) -> None:
            nonlocal seen
            seen += now == when and _is_write(line)
            if seen == at and now == when and process.poll() is None:
                process.kill()
                process.wait()
                if when == "before":
                    raise ConnectionResetError

        proxy.watch = watch
        ended = pipeline.ended(process)
        must(ended.exit == -signal.SIGKILL, f"was not killed but ended with {ended.exit}")
        proxy.watch = lambda now, line: None
        found = {each.id for each in pipeline.snapshots()}
        must(found <= {proof.good_id}, f"a half-published day: {found}")
        proof.recovers(pipeline)
        names = set(pipeline.published())
        must(names == proof.bucket_names, f"differs from an undisturbed run: {sorted(names ^ proof.bucket_names)}")


def two_publishers_in_a_bucket(proof: Proof, server: S3Server, same: bool) -> None:
    first, second = in_a_bucket(proof, server), in_a_bucket(proof, server)
    second.environment = first.environment
    second.deliver(rows_of(seed=1 if same else 2))
    both_publish(first, second)


# --- a table ----------------------------------------------------------------------------------------------------------


class Table:
    """One schema of the shared PostgreSQL server with the good day in it, and a pipeline that reads from it."""

    def __init__(self, proof: Proof, server: Database) -> None:
        self.pipeline = proof.pipeline()
        self.server = server
        self.name = f"{self.pipeline.home.name.replace('-', '_')}.customers"
        with server.connect() as connection:
            connection.execute(f"CREATE SCHEMA {self.name.split('.')[0]}")
            connection.execute(
                f"CREATE TABLE {self.name} (customer text, at timestamptz, tenure int, plan text, spend float8,"
                " outcome text)"
            )
            with connection.cursor() as cursor:
                places = "%(customer)s, %(at)s, %(tenure)s, %(plan)s, %(spend)s, %(outcome)s"
                cursor.executemany(f"INSERT INTO {self.name} VALUES ({places})", rows_of())  # type: ignore[arg-type]
        self.point(self.name)
        self.pipeline.environment = {"EVERGREEN_POSTGRES_DSN": server.dsn()}

    def point(self, table: str, **more: Any) -> None:
        self.pipeline.source = {"kind": "postgres", "table": table, "interval_column": "at", **more}
        self.pipeline.configure()


def a_table_that_is_not_there(proof: Proof, server: Database) -> None:
    table = Table(proof, server)
    table.point(f"{table.name}_")
    before, ended = table.pipeline.published(), table.pipeline.ingest()
    told = (f"there is no table {table.name}_", "create it, or correct source.table")
    proof.refused(table.pipeline, ended, before, 65, "DataRefused", *told)
    table.point(table.name)
    proof.recovers(table.pipeline)


def a_column_that_is_not_there(proof: Proof, server: Database) -> None:
    table = Table(proof, server)
    columns = ["customer", "at", "tenure", "plan", "spend", "outcome"]
    table.point(table.name, columns=[*columns[:4], "expense", "outcome"])
    before, ended = table.pipeline.published(), table.pipeline.ingest()
    told = (table.name, 'column "expense" does not exist', "correct the manifest")
    proof.refused(table.pipeline, ended, before, 65, "DataRefused", *told)
    table.point(table.name, columns=columns)
    proof.recovers(table.pipeline)


def a_wrong_password(proof: Proof, server: Database) -> None:
    table = Table(proof, server)
    reader = table.pipeline.home.name.replace("-", "_")
    with server.connect() as connection:
        connection.execute(f"CREATE USER {reader} PASSWORD 'right'")
        connection.execute(f"GRANT USAGE ON SCHEMA {reader} TO {reader}")
        connection.execute(f"GRANT SELECT ON {table.name} TO {reader}")
    table.pipeline.environment = {"EVERGREEN_POSTGRES_DSN": server.dsn(reader, "canary-secret")}
    before, ended = table.pipeline.published(), table.pipeline.ingest()
    told = (table.name, "password authentication failed", "Airflow Connection evergreen_postgres")
    proof.refused(table.pipeline, ended, before, 65, "AccessRefused", *told)
    must("canary-secret" not in ended.told + ended.log, "tells the password")
    table.pipeline.environment = {"EVERGREEN_POSTGRES_DSN": server.dsn(reader, "right")}
    proof.recovers(table.pipeline)


def a_bad_row_in_a_table(proof: Proof, server: Database) -> None:
    table = Table(proof, server)
    with server.connect() as connection:
        connection.execute(f"UPDATE {table.name} SET spend = 'infinity' WHERE customer LIKE '%-00003'")
        before, ended = table.pipeline.published(), table.pipeline.ingest()
        told = (table.name, "spend: finite", "1 of 100 rows (4)")
        proof.refused(table.pipeline, ended, before, 65, "DataRefused", *told)
        spend = rows_of()[3]["spend"]
        connection.execute(f"UPDATE {table.name} SET spend = {spend} WHERE customer LIKE '%-00003'")
    proof.recovers(table.pipeline)


def a_server_that_is_down(proof: Proof, server: Database) -> None:
    table = Table(proof, server)
    server.stop("immediate")
    try:
        before, ended = table.pipeline.published(), table.pipeline.ingest()
        proof.refused(table.pipeline, ended, before, 75, "ServiceUnavailable", table.name, "try again later")
    finally:
        server.start()
    wait_until_it_answers(server)
    proof.recovers(table.pipeline)


def wait_until_it_answers(server: Database, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            server.connect().close()
            return
        except psycopg.OperationalError:
            must(time.monotonic() < deadline, "PostgreSQL did not come back")
            time.sleep(0.1)


# --- the whole list ---------------------------------------------------------------------------------------------------


def of_days(proof: Proof) -> list[tuple[str, Story]]:
    header = as_csv(rows_of()[:1]).splitlines(keepends=True)[0]
    stories: list[tuple[str, Story]] = [
        ("empty day: nothing delivered", partial(a_day_without_rows, proof, None, "csv")),
        ("empty day: a header alone", partial(a_day_without_rows, proof, header, "csv")),
        ("empty day: Parquet without rows", partial(a_day_without_rows, proof, as_parquet([]), "parquet")),
        ("ids of another day", partial(ids_of_another_day, proof)),
        ("late: the day after is published already", partial(a_late_day, proof)),
        ("delivered again, the same", partial(the_same_delivery_again, proof)),
        ("delivered again, corrected", partial(a_corrected_delivery, proof)),
        ("delivered again, corrected by a backfill", partial(the_past_is_not_rewritten, proof)),
        ("columns in another order (CSV)", partial(another_order_of_columns, proof, "csv")),
        ("columns in another order (Parquet)", partial(another_order_of_columns, proof, "parquet")),
        ("two files of a day that differ", partial(files_that_differ, proof)),
        ("a folder that is not mounted", partial(an_unmounted_folder, proof)),
        ("formula, HTML and newline in quarantine", partial(injected_rows_set_aside, proof)),
        ("formula, HTML and newline in Data Docs", partial(injected_rows_in_data_docs, proof)),
        ("two publishers of the same rows", partial(two_publishers, proof, True)),
        ("two publishers of different rows", partial(two_publishers, proof, False)),
    ]
    return stories


def of_disks(proof: Proof) -> list[tuple[str, Story]]:
    if not may_mount(proof.home):
        proof.figures["full_disk"] = "RLIMIT_FSIZE"
        sizes = (0, 1000, 4000)
        return [(f"full disk: no file over {n} bytes", partial(a_file_that_may_not_grow, proof, n)) for n in sizes]
    proof.figures["full_disk"] = "tmpfs"
    stories: list[tuple[str, Story]] = [
        (f"full disk: {kib} KiB", partial(a_full_disk, proof, kib))
        for kib in (4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 96)
    ]
    return [*stories, ("read-only disk", partial(a_read_only_disk, proof))]


def of_buckets(proof: Proof, server: S3Server) -> list[tuple[str, Story]]:
    return [
        ("S3: timeouts", partial(a_bucket_that_fails, proof, server, "silence", "cannot be reached (Read timeout")),
        ("S3: 503", partial(a_bucket_that_fails, proof, server, "503", "answered 503 (SlowDown) to every attempt")),
        ("S3: connections reset", partial(a_bucket_that_fails, proof, server, "reset", "cannot be reached")),
        ("S3: a body that ends early", partial(a_bucket_that_fails, proof, server, "cut", "came damaged 2 times")),
        ("S3: a bit turned on the way", partial(a_bucket_that_fails, proof, server, "flip", "came damaged 2 times")),
        ("S3: partial multipart upload", partial(a_multipart_upload_under_way, proof, server)),
        ("S3: withdrawn keys", partial(withdrawn_keys, proof)),
        ("S3: unknown bucket", partial(a_bucket_nobody_made, proof, server)),
        ("S3: unknown key", partial(an_object_nobody_delivered, proof, server)),
        ("S3: truncated Parquet", partial(a_truncated_object, proof, server)),
        ("S3: no server", partial(no_s3_server, proof, server)),
    ]


def of_stores(proof: Proof, server: S3Server) -> list[tuple[str, Story]]:
    requests = count_requests(proof, server)
    proof.figures["kill_requests"] = 2 * requests
    stories: list[tuple[str, Story]] = [
        ("store in S3: two publishers of the same rows", partial(two_publishers_in_a_bucket, proof, server, True)),
        ("store in S3: two publishers of different rows", partial(two_publishers_in_a_bucket, proof, server, False)),
    ]
    for where in ("files", "snapshots", "days"):
        stories.append((f"store in S3: 503 at {where}", partial(a_store_that_fails, proof, server, where)))
    for at, when in ((at, when) for at in range(1, requests + 1) for when in ("before", "after")):
        name = f"store in S3: kill -9 {when} request {at} of {requests}"
        stories.append((name, partial(killed_at_request, proof, server, at, when)))
    return stories


def of_tables(proof: Proof, server: Database) -> list[tuple[str, Story]]:
    return [
        ("PostgreSQL: missing table", partial(a_table_that_is_not_there, proof, server)),
        ("PostgreSQL: missing column", partial(a_column_that_is_not_there, proof, server)),
        ("PostgreSQL: wrong password", partial(a_wrong_password, proof, server)),
        ("PostgreSQL: a bad row", partial(a_bad_row_in_a_table, proof, server)),
    ]


def of_kills(proof: Proof) -> list[tuple[str, Story]]:
    writes = count_writes(proof)
    proof.figures |= {"kill_points": writes, "clock_kills": CLOCK_KILLS}
    moments = [proof.seconds * (number + 0.5) / CLOCK_KILLS for number in range(CLOCK_KILLS)]
    return [
        *(
            (f"kill -9 before write {at} of {writes}", partial(killed_before_write, proof, at))
            for at in range(1, writes + 1)
        ),
        *((f"kill -9 after {after:.2f} s", partial(killed_by_the_clock, proof, after)) for after in moments),
    ]


def main(words: list[str]) -> int:
    began = time.monotonic()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evergreen-proof-")))
        proof = Proof(home)
        proof.prepare()
        proof.console.print(f"one undisturbed run takes {proof.seconds:.1f} s", markup=False)
        stories = [(case.name, partial(bad_delivery, proof, case)) for case in bad_input.CASES]
        stories += of_days(proof) + of_disks(proof)
        s3, database = stack.enter_context(counterparts.s3_server()), stack.enter_context(counterparts.database())
        os.environ.update(s3.environment())  # to look into its buckets
        stories += of_buckets(proof, s3) + of_stores(proof, s3) + of_tables(proof, database) + of_kills(proof)
        wanted = [named for named in stories if not words or any(word in named[0] for word in words)]
        proof.run(wanted)
        if not words or "down" in words:
            proof.run([("PostgreSQL: the server is down", partial(a_server_that_is_down, proof, database))], workers=1)
    cases = proof.passed + len(proof.failed)
    ok = cases > 0 and not proof.failed
    told = {"ok": ok, "cases": cases, "passed": proof.passed, **proof.figures, "failed": proof.failed}
    print(json.dumps({**told, "seconds": round(time.monotonic() - began, 1)}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
