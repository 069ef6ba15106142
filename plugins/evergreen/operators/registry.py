"""Calls MLflow's registry: bless a challenger that passed the gate, make a release that soaked the champion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from evergreen.assets import MODEL_BLESSED, MODEL_LIVE
from evergreen.errors import translate_errors
from evergreen.hooks.connections import ConnectionsHook
from evergreen.links import CardLink, MlflowLink
from evergreen.results import require_result
from evergreen.run_context import RunContext, read_run_context
from include.gate import model_card
from include.gate.spec import GateManifest
from include.kernel.code_digest import JUDGING, compute_code_digest
from include.kernel.errors import NotBlessed
from include.kernel.ledger import Entry, build_live_key
from include.kernel.words import ledger_kinds as kinds
from include.model.blessing import blessing as blessings
from include.model.blessing.approval import Approval
from include.model.blessing.blessing import Blessing
from include.registry.mlflow_registry import shorten_text
from include.release.core.rollout import Release

if TYPE_CHECKING:
    from include.registry.mlflow_registry import MlflowRegistry


class BlessOperator(BaseOperator):
    """Registers the challenger, once however many runs ask, and signs its blessing. Only a live run can bless.

    `told` is the result of evaluate, `approval` that of the task that asked a person, or None (both templated).
    """

    template_fields: Sequence[str] = ("result", "approval")
    operator_extra_links = (MlflowLink(), CardLink())
    ui_color = "#cfe5f5"

    def __init__(self, *, result: Any, approval: Any = None, **options: Any) -> None:
        super().__init__(outlets=[MODEL_BLESSED], **options)
        self.result = result
        self.approval = approval

    def execute(self, context: Context) -> dict[str, Any]:
        run, outputs = read_run_context(context), require_result(self.result, "outputs", task_id="evaluate")["outputs"]
        if not run.is_live:
            raise AirflowSkipException(f"A {run.intent.value} training is never blessed.")
        hook, registry = ConnectionsHook(), ConnectionsHook().open_registry()
        approval = Approval.model_validate(self.approval) if self.approval else None
        with translate_errors():
            key = hook.read_signing_key()
            _must_be_current(outputs, hook.manifest)
            blessings.check_blessable(outputs["gate"], run.intent, approval)
            version = registry.register(outputs["run_id"], f"runs:/{outputs['run_id']}/model")
            blessing = _build_blessing(hook.manifest.name, version, run, outputs, approval)
            envelope = blessings.sign(blessing, key)
            self.card_url = _write_model_card(hook.manifest, registry, blessing, outputs["gate"])
            registry.bless(version, envelope)  # the last thing: what is blessed has its card
        self.mlflow_url = registry.build_version_url(version)
        details = {"digest": outputs["digest"], "blessing": blessings.compute_envelope_digest(envelope)}
        _record_entry(kinds.MODEL_BLESSED, version, run, self.result["summary"], details)
        extra = {"version": version, "as_of": str(run.as_of), "intent": run.intent.value}
        context["outlet_events"][MODEL_BLESSED].extra.update(extra)
        self.log.info("version %s is blessed: %s", version, blessing.gate)
        return extra


def _must_be_current(outputs: dict[str, Any], manifest: GateManifest) -> None:
    """Raises `NotBlessed` when the model was judged by another manifest, or other code, than is in force now."""
    current = {"manifest": manifest.digest, "code": compute_code_digest(*JUDGING)}
    for what, digest in current.items():
        if outputs[what] != digest:
            raise NotBlessed(f"The {what} was changed after this model was judged; train again under the new one.")


def _build_blessing(
    model: str, version: str, run: RunContext, outputs: dict[str, Any], approval: Approval | None
) -> Blessing:
    report = outputs["gate"]
    return Blessing(
        model=model,
        version=version,
        digest=outputs["digest"],
        run_id=outputs["run_id"],
        run_key=run.key,
        intent=run.intent,
        as_of=run.as_of,
        manifest=outputs["manifest"],
        code=outputs["code"],
        policy=(report.get("policy") or {}).get("sha256"),
        data=tuple(outputs["snapshots"]),
        report=blessings.compute_report_digest(report),
        verdict=report["verdict"],
        checks=blessings.list_findings(report),
        gate=shorten_text(report["sentence"], blessings.LONGEST_PROSE),
        approval=approval and approval.model_copy(update={"why": shorten_text(approval.why, blessings.LONGEST_PROSE)}),
    )


def _write_model_card(
    manifest: GateManifest, registry: MlflowRegistry, blessing: Blessing, report: dict[str, Any]
) -> str:
    """Writes the model card; gives its address."""
    params, url, drawing = registry.read_run(blessing.run_id)
    facts = model_card.CardFacts(manifest, blessing, report, params, url, drawing)
    registry.describe(
        blessing.version, blessing.run_id, model_card.render_summary(facts), model_card.render_documents(facts)
    )
    return f"{url}/artifacts/card/{model_card.HTML}"


class PromoteOperator(BaseOperator):
    """The one named point where a release becomes the champion: the alias moves and model.live is emitted."""

    template_fields: Sequence[str] = ("result",)
    operator_extra_links = (MlflowLink(),)
    ui_color = "#cfe5f5"

    def __init__(self, *, result: Any, **options: Any) -> None:
        super().__init__(outlets=[MODEL_LIVE], **options)
        self.result = result

    def execute(self, context: Context) -> dict[str, Any]:
        run = read_run_context(context)
        outputs = require_result(self.result, "verdict", "outputs", task_id="rollout")["outputs"]
        if self.result["verdict"] != "yes":
            raise AirflowSkipException(f"No version went live: {self.result['summary']}.")
        hook, version = ConnectionsHook(), outputs["version"]
        registry = hook.open_registry()
        with translate_errors():
            _must_serve(hook, Release(version, outputs["digest"]))
            registry.promote(version)
        self.mlflow_url = registry.build_version_url(version)
        _record_entry(kinds.RELEASE_LIVE, version, run, self.result["summary"], outputs, build_live_key(outputs))
        context["outlet_events"][MODEL_LIVE].extra.update({"version": version, "intent": run.intent.value})
        self.log.info("version %s is the champion", version)
        return {"version": version}


def _must_serve(hook: ConnectionsHook, release: Release) -> None:
    """A task that is cleared on an old run must not make a champion of what serves no more."""
    live = hook.open_target().observe().live.release
    if live != release:
        serves = f"version {live.version} does" if live else "nothing does"
        raise AirflowSkipException(f"Version {release.version} does not serve any more, {serves}; nothing was moved.")


def _record_entry(
    what: str, version: str, run: RunContext, why: str, details: dict[str, Any], known_as: str | None = None
) -> None:
    key = known_as or f"{what}-{run.key}"
    ConnectionsHook().open_ledger().append(
        Entry(what=what, subject=version, who=run.who, why=why, details=details, key=key)
    )
