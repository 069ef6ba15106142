"""The store is a DVC remote: the real DVC, in an environment of its own, pulls a snapshot by its pointer.

DVC is installed once a test run, from the package index; Evergreen itself does not need it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from include.data.store.local_store import LocalSnapshotStore
from include.data.store.s3_store import S3SnapshotStore
from include.data.store.snapshot_store import SnapshotStore
from tests.counterparts import S3Server
from tests.delivered import described, rows, written

DVC = "dvc[s3]==3.67.1"
REMOTE = """[core]
    remote = evergreen
['remote "evergreen"']
    url = {uri}
    verify = true
"""
Dvc = Callable[..., str]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dvc command. Where uv is at hand, installing takes seconds; pip takes half a minute."""
    home = tmp_path_factory.mktemp("dvc") / "env"
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    python = str(home / "bin/python")
    made, install = [sys.executable, "-m", "venv", str(home)], [python, "-m", "pip", "--quiet", "install"]
    if uv:
        made, install = [uv, "venv", "--quiet", str(home)], [uv, "pip", "install", "--quiet", "--python", python]
        made += ["--python", sys.executable]
    subprocess.run(made, check=True, timeout=60)
    subprocess.run([*install, DVC], check=True, timeout=240)
    return home / "bin/dvc"


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SnapshotStore:
    if request.param == "local":
        return LocalSnapshotStore(tmp_path / "store")
    server: S3Server = request.getfixturevalue("buckets")
    server.client().create_bucket(Bucket="snapshots")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return S3SnapshotStore(f"s3://snapshots/{tmp_path.name}", tmp_path / "cache")


@pytest.fixture
def dvc(program: Path, store: SnapshotStore, tmp_path: Path) -> Dvc:
    """Runs dvc in somebody's own repository, with the store as its remote."""
    repository = tmp_path / "theirs"
    repository.mkdir()

    def run(*arguments: str, code: int = 0) -> str:
        command = [str(program), *arguments]
        environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
        done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    run("init", "--no-scm")
    with open(repository / ".dvc/config.local", "w") as config:
        config.write(REMOTE.format(uri=store._objects.uri))
        if store._objects.uri.startswith("s3://"):
            config.write(f"    endpointurl = {os.environ['AWS_ENDPOINT_URL_S3']}\n")
    return run


@pytest.fixture
def pulled(dvc: Dvc, store: SnapshotStore, tmp_path: Path) -> Path:
    """Where a published snapshot's rows will be, its pointer copied there and nothing pulled yet."""
    path = written(rows(*map(float, range(5000))), tmp_path / "delivered")
    store.publish(described(path), path)
    [snapshot] = store.list_snapshots()
    pointer = store._objects.read(f"snapshots/{snapshot.day}/{snapshot.id}/rows.parquet.dvc")
    assert pointer is not None
    (tmp_path / "theirs/rows.parquet.dvc").write_bytes(pointer.data)
    return tmp_path / "theirs/rows.parquet"


def test_dvc_pulls_a_snapshot_by_its_pointer_and_finds_it_to_be_what_was_published(dvc, pulled, tmp_path):
    pointer = pulled.with_suffix(".parquet.dvc").read_text()
    dvc("pull")
    assert pulled.read_bytes() == (tmp_path / "delivered/accepted.parquet").read_bytes()
    assert "in sync" in dvc("status", "--cloud")
    dvc("commit", "--force")
    assert pulled.with_suffix(".parquet.dvc").read_text() == pointer  # as DVC itself writes it


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_dvc_does_not_take_a_damaged_object_for_the_snapshot(dvc, pulled, store):
    md5 = store.list_snapshots()[0].files[0].md5
    kept = Path(store._objects.uri, "files/md5", md5[:2], md5[2:])
    kept.unlink()  # and not in place: the publisher's own file shares its bytes
    kept.write_bytes(b"damaged")
    assert "failed to pull" in dvc("pull", code=1)
    assert not pulled.exists()
