"""Calls MLflow's registry: bless a challenger that passed the gate, make a release that soaked the champion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from evergreen.assets import MODEL_BLESSED, MODEL_LIVE
from evergreen.edge import Edge, edge
from evergreen.errors import as_airflow
from evergreen.hooks.world import WorldHook
from evergreen.links import MlflowLink
from include.adapters import factory
from include.core.ledger import Entry
from include.core.ports import Blessing


class BlessOperator(BaseOperator):
    """Registers the challenger, once however many runs ask, and writes its blessing. Only a live run can bless."""

    template_fields: Sequence[str] = ("told",)
    operator_extra_links = (MlflowLink(),)
    ui_color = "#cfe5f5"

    def __init__(self, *, told: Any, **options: Any) -> None:
        super().__init__(outlets=[MODEL_BLESSED], **options)
        self.told = told

    def execute(self, context: Context) -> dict[str, Any]:
        run, found = edge(context), self.told["outputs"]
        if not run.is_live:
            raise AirflowSkipException(f"A {run.intent.value} training is never blessed.")
        registry = WorldHook().registry()
        with as_airflow():
            version = registry.register(found["run_id"], f"runs:/{found['run_id']}/model")
            registry.bless(_blessing(version, run, found))
        self.mlflow_url = registry.version_url(version)
        _write("model.blessed", version, run, self.told["summary"], {"digest": found["digest"]})
        extra = {"version": version, "as_of": str(run.as_of), "intent": run.intent.value}
        context["outlet_events"][MODEL_BLESSED].extra.update(extra)
        return extra


def _blessing(version: str, run: Edge, found: dict[str, Any]) -> Blessing:
    return Blessing(
        version=version,
        digest=found["digest"],
        run_key=run.key,
        intent=run.intent,
        as_of=run.as_of,
        manifest=factory.manifest().digest,
        code=factory.code_digest(),
        data=tuple(snapshot[:12] for snapshot in found["snapshots"]),
        gate=found["gate"]["sentence"],
    )


class PromoteOperator(BaseOperator):
    """The one named point where a release becomes the champion: the alias moves and model.live is emitted."""

    template_fields: Sequence[str] = ("told",)
    operator_extra_links = (MlflowLink(),)
    ui_color = "#cfe5f5"

    def __init__(self, *, told: Any, **options: Any) -> None:
        super().__init__(outlets=[MODEL_LIVE], **options)
        self.told = told

    def execute(self, context: Context) -> dict[str, Any]:
        run, found = edge(context), self.told["outputs"]
        if self.told["verdict"] != "yes":
            raise AirflowSkipException(f"No version went live: {self.told['summary']}.")
        registry, version = WorldHook().registry(), found["version"]
        with as_airflow():
            registry.promote(version)
        self.mlflow_url = registry.version_url(version)
        _write("release.live", version, run, self.told["summary"], found)
        context["outlet_events"][MODEL_LIVE].extra.update({"version": version, "intent": run.intent.value})
        return {"version": version}


def _write(what: str, version: str, run: Edge, why: str, details: dict[str, Any]) -> None:
    key = f"{what}-{run.key}"
    WorldHook().ledger().append(Entry(what=what, subject=version, who=run.who, why=why, details=details, key=key))
