"""Airflow Connections -> the adapters and the environment of a job. Hosts and secrets come from here alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from include.adapters import factory
from include.core.manifest import Manifest

if TYPE_CHECKING:
    from include.adapters.ledger_local import LocalLedger
    from include.adapters.registry_mlflow import MlflowRegistry
    from include.adapters.releasing import Rollout
    from include.adapters.serving_local import LocalTarget

MLFLOW_CONNECTION = "mlflow_default"


class WorldHook(BaseHook):
    """The world as Airflow knows it. Adapters are built on request, so a DAG file that imports this pays nothing."""

    def environment(self) -> dict[str, str]:
        """What a job needs to reach the world: the variables of this process, with MLflow from its Connection."""
        return {**os.environ, "MLFLOW_TRACKING_URI": self.mlflow_uri()}

    def mlflow_uri(self) -> str:
        try:
            connection = self.get_connection(MLFLOW_CONNECTION)
        except AirflowNotFoundException:
            return factory.setting("MLFLOW_TRACKING_URI")
        scheme = connection.conn_type if connection.conn_type in ("http", "https") else "http"
        return f"{scheme}://{connection.host}:{connection.port or 5000}"

    @property
    def manifest(self) -> Manifest:
        return factory.manifest()

    def registry(self) -> MlflowRegistry:
        return factory.registry(self.mlflow_uri())

    def ledger(self) -> LocalLedger:
        return factory.ledger()

    def target(self) -> LocalTarget:
        return factory.target()

    def rollout(self) -> Rollout:
        return factory.rollout(self.registry())
