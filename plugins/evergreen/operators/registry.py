"""Calls MLflow's registry: bless a challenger that passed the gate, make a release that soaked the champion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from evergreen.assets import MODEL_BLESSED, MODEL_LIVE
from evergreen.errors import as_airflow
from evergreen.hooks.connections import WorldHook
from evergreen.links import CardLink, MlflowLink
from evergreen.run_context import Edge, edge
from include.gate import model_card
from include.gate.spec import GateManifest
from include.kernel.code_digest import JUDGING, digest_code
from include.kernel.errors import NotBlessed
from include.kernel.ledger import Entry, live_key
from include.kernel.words import ledger_kinds as kinds
from include.model.blessing import blessing as blessings
from include.model.blessing.approval import Approval
from include.model.blessing.blessing import Blessing

if TYPE_CHECKING:
    from include.registry.mlflow_registry import MlflowRegistry


class BlessOperator(BaseOperator):
    """Registers the challenger, once however many runs ask, and signs its blessing. Only a live run can bless.

    `told` is the result of evaluate, `approval` that of the task that asked a person, or None (both templated).
    """

    template_fields: Sequence[str] = ("told", "approval")
    operator_extra_links = (MlflowLink(), CardLink())
    ui_color = "#cfe5f5"

    def __init__(self, *, told: Any, approval: Any = None, **options: Any) -> None:
        super().__init__(outlets=[MODEL_BLESSED], **options)
        self.told = told
        self.approval = approval

    def execute(self, context: Context) -> dict[str, Any]:
        run, found = edge(context), self.told["outputs"]
        if not run.is_live:
            raise AirflowSkipException(f"A {run.intent.value} training is never blessed.")
        world, registry = WorldHook(), WorldHook().registry()
        approval = Approval.model_validate(self.approval) if self.approval else None
        with as_airflow():
            key = world.signer()
            _must_be_current(found, world.manifest)
            blessings.may_be_blessed(found["gate"], run.intent, approval)
            version = registry.register(found["run_id"], f"runs:/{found['run_id']}/model")
            blessing = _blessing(world.manifest.name, version, run, found, approval)
            envelope = blessings.sign(blessing, key)
            self.card_url = _describe(world.manifest, registry, blessing, found["gate"])
            registry.bless(version, envelope)  # the last thing: what is blessed has its card
        self.mlflow_url = registry.version_url(version)
        details = {"digest": found["digest"], "blessing": blessings.envelope_digest(envelope)}
        _write(kinds.MODEL_BLESSED, version, run, self.told["summary"], details)
        extra = {"version": version, "as_of": str(run.as_of), "intent": run.intent.value}
        context["outlet_events"][MODEL_BLESSED].extra.update(extra)
        return extra


def _must_be_current(found: dict[str, Any], manifest: GateManifest) -> None:
    """Raises `NotBlessed` when the model was judged by another manifest, or other code, than is in force now."""
    now = {"manifest": manifest.digest, "code": digest_code(*JUDGING)}
    for what, digest in now.items():
        if found[what] != digest:
            raise NotBlessed(f"The {what} was changed after this model was judged; train again under the new one.")


def _blessing(model: str, version: str, run: Edge, found: dict[str, Any], approval: Approval | None) -> Blessing:
    report = found["gate"]
    return Blessing(
        model=model,
        version=version,
        digest=found["digest"],
        run_id=found["run_id"],
        run_key=run.key,
        intent=run.intent,
        as_of=run.as_of,
        manifest=found["manifest"],
        code=found["code"],
        policy=(report.get("policy") or {}).get("sha256"),
        data=tuple(found["snapshots"]),
        report=blessings.report_digest(report),
        verdict=report["verdict"],
        checks=blessings.findings(report),
        gate=report["sentence"],
        approval=approval,
    )


def _describe(manifest: GateManifest, registry: MlflowRegistry, blessing: Blessing, report: dict[str, Any]) -> str:
    """Writes the model card; gives its address."""
    params, url, drawing = registry.run(blessing.run_id)
    facts = model_card.Facts(manifest, blessing, report, params, url, drawing)
    registry.describe(blessing.version, blessing.run_id, model_card.summary(facts), model_card.papers(facts))
    return f"{url}/artifacts/card/{model_card.HTML}"


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
        _write(kinds.RELEASE_LIVE, version, run, self.told["summary"], found, live_key(found))
        context["outlet_events"][MODEL_LIVE].extra.update({"version": version, "intent": run.intent.value})
        return {"version": version}


def _write(what: str, version: str, run: Edge, why: str, details: dict[str, Any], known_as: str | None = None) -> None:
    key = known_as or f"{what}-{run.key}"
    WorldHook().ledger().append(Entry(what=what, subject=version, who=run.who, why=why, details=details, key=key))
