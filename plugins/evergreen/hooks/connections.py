"""Airflow Connections -> the adapters and the environment of a job. Hosts and secrets come from here alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from include.alerting.wiring import open_outbox
from include.data.sources.base import POSTGRES_CONNECTION, POSTGRES_VARIABLE
from include.data.spec import PostgresSource
from include.data.store import s3_client
from include.data.wiring import open_job_results, open_snapshot_store
from include.kernel.environment import read_setting
from include.kernel.errors import KeyInvalid
from include.kernel.wiring import open_ledger
from include.manifest import Manifest, read_manifest
from include.model.blessing import blessing as blessings
from include.registry.wiring import open_registry
from include.release.wiring import open_driver, open_reconciler, open_target
from include.retraining.wiring import open_wait_conditions

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from include.alerting.outbox import Outbox
    from include.data.store.job_results import JobResults
    from include.data.store.snapshot_store import SnapshotStore
    from include.kernel.ledger_file import LocalLedger
    from include.registry.mlflow_registry import MlflowRegistry
    from include.release.service.driver import ReleaseDriver
    from include.release.service.reconciler import Reconciler
    from include.release.targets.base import ServingTarget
    from include.retraining.wait_conditions import WaitConditions

MLFLOW_CONNECTION = "mlflow_default"
SIGNER_CONNECTION = "blessing_signer"  # the private key; read by the step that blesses and by nobody else
TRUST_CONNECTION = "blessing_trust"  # the public keys, one or several; read by deploy and rollback


class ConnectionsHook(BaseHook):
    """The world as Airflow knows it. Adapters are built on request, so a DAG file that imports this pays nothing."""

    def build_environment(self) -> dict[str, str]:
        """What a job needs to reach the world: the variables of this process, and what the Connections say.

        Without the Connection of the signing key, since no job signs anything.
        """
        process_variables = {
            name: value for name, value in os.environ.items() if name != f"AIRFLOW_CONN_{SIGNER_CONNECTION.upper()}"
        }
        environment = {**process_variables, "MLFLOW_TRACKING_URI": self.find_mlflow_uri()}
        return self._add_postgres(self._add_s3(environment))

    def read_connection_variables(self) -> dict[str, str]:
        """The variables that Connections say, and nothing of this process: what a pod gets as a Secret of its own."""
        uri = {"MLFLOW_TRACKING_URI": self.find_mlflow_uri()} if self._find_connection(MLFLOW_CONNECTION) else {}
        return self._add_postgres(self._add_s3(uri))

    def _add_s3(self, environment: dict[str, str]) -> dict[str, str]:
        """Keys of this process and of the Connection are never mixed: with a Connection, only its own count."""
        connection = self._find_connection(s3_client.CONNECTION)
        if connection is None:
            return environment
        extra = connection.extra_dejson
        variables = {
            "AWS_ACCESS_KEY_ID": connection.login,
            "AWS_SECRET_ACCESS_KEY": connection.password,
            "AWS_SESSION_TOKEN": extra.get("aws_session_token"),
            "AWS_ENDPOINT_URL_S3": extra.get("endpoint_url"),
            "AWS_REGION": extra.get("region_name"),
        }
        other_variables = {name: value for name, value in environment.items() if name not in variables}
        return other_variables | {name: str(value) for name, value in variables.items() if value}

    def _add_postgres(self, environment: dict[str, str]) -> dict[str, str]:
        """The password leaves Airflow only for a pipeline that reads from PostgreSQL."""
        is_needed = isinstance(self.manifest.source, PostgresSource)
        connection = self._find_connection(POSTGRES_CONNECTION) if is_needed else None
        if connection is None:
            return environment
        settings = {
            "host": connection.host,
            "port": connection.port,
            "user": connection.login,
            "password": connection.password,
            "dbname": connection.schema,
            "sslmode": connection.extra_dejson.get("sslmode"),
        }
        return environment | {
            POSTGRES_VARIABLE: " ".join(f"{key}={_quote_value(v)}" for key, v in settings.items() if v)
        }

    def _find_connection(self, name: str) -> Connection | None:
        try:
            return self.get_connection(name)
        except AirflowNotFoundException:
            return None

    def find_mlflow_uri(self) -> str:
        connection = self._find_connection(MLFLOW_CONNECTION)
        if connection is None:
            return read_setting("MLFLOW_TRACKING_URI")
        scheme = connection.conn_type if connection.conn_type in ("http", "https") else "http"
        return f"{scheme}://{connection.host}:{connection.port or 5000}"

    def read_signing_key(self) -> Ed25519PrivateKey:
        """The key that blesses. Raises `KeyInvalid`."""
        return blessings.parse_private_key(self._read_key_text(SIGNER_CONNECTION))

    def read_trusted_keys(self) -> blessings.TrustedKeys:
        """The public keys whose blessings count, by key id. Raises `KeyInvalid`."""
        return blessings.parse_public_keys(self._read_key_text(TRUST_CONNECTION))

    def verify_blessing(self, version: str, envelope: str, digest: str | None = None) -> blessings.Blessing:
        """What the envelope says, once its signature holds for this version. Raises `NotBlessed`, `KeyInvalid`."""
        return blessings.verify(envelope, self.read_trusted_keys(), self.manifest.name, version, digest)

    def _read_key_text(self, name: str) -> str:
        """A Connection holds a key as its password, or names its file as `path` in its extra."""
        connection = self._find_connection(name)
        if connection is None:
            raise KeyInvalid(f"There is no Airflow Connection {name}; make it as docs/training.md, Blessing, says.")
        if connection.password:
            return str(connection.password)
        path = str(connection.extra_dejson.get("path", ""))
        try:
            return Path(path).read_text()
        except OSError as error:
            raise KeyInvalid(
                f"The key file {path or 'without a name'} of the Airflow Connection {name} cannot be read: "
                f"{error.strerror}; correct the Connection's path."
            ) from error

    @property
    def manifest(self) -> Manifest:
        """As it is now; tasks and triggers have it from here alone."""
        return read_manifest()

    def open_registry(self) -> MlflowRegistry:
        return open_registry(self.manifest.name, self.find_mlflow_uri())

    def open_ledger(self) -> LocalLedger:
        return open_ledger()

    def open_outbox(self) -> Outbox:
        return open_outbox(self.manifest)

    def open_snapshot_store(self) -> SnapshotStore:
        return open_snapshot_store()

    def open_job_results(self) -> JobResults:
        return open_job_results()

    def open_wait_conditions(self) -> WaitConditions:
        return open_wait_conditions(self.manifest)

    def open_target(self) -> ServingTarget:
        return open_target(self.manifest)

    def open_reconciler(self) -> Reconciler:
        return open_reconciler(self.manifest, self.open_registry())

    def open_driver(self) -> ReleaseDriver:
        return open_driver(self.manifest, self.open_registry())


def _quote_value(value: object) -> str:
    """A value of a libpq connection string."""
    return "'" + str(value).replace("\\", r"\\").replace("'", r"\'") + "'"
