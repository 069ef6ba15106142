"""Asks a person, by Airflow's own approval form. The task waits in the database: no worker, no triggerer.

Airflow's advice is that a "Reject" should end green with the rest skipped. Here it fails the run, and so does silence:
somebody asked for a release and did not get it, and a skipped task is what nobody looks at.

Nobody is asked twice: Airflow may lose a task that has its answer already (seen where the answer came within a second
of the question, on a busy machine: the scheduler took the end of the asking for the end of the task). A retry then
finds the answer written down.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, NoReturn

from airflow.providers.standard.exceptions import HITLRejectException, HITLTimeoutError
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context, Param
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from evergreen.hooks.connections import WorldHook
from evergreen.hooks.notifiers import record
from evergreen.run_context import edge
from include.gate.spec import GateManifest
from include.kernel.ledger import Entry
from include.kernel.words import ledger_kinds as kinds
from include.kernel.words.verdicts import APPROVED, Verdict
from include.model.blessing.approval import Approval, question, release_question
from include.release.spec import ReleaseManifest

How = Literal["given", "refused", "expired"]


class ApproveOperator(ApprovalOperator):
    """Shows the gate's report and waits for Approve or Reject. Returns who approved and why; anything else fails.

    `told` is the result of evaluate, `url` the run in MLflow (both templated).
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "told", "url")
    ui_color = "#f6e3b4"

    def __init__(self, *, manifest: GateManifest, told: Any, url: str | None = None, **options: Any) -> None:
        why = Param("", type="string", title="Reason", description="It goes to the ledger and into the blessing.")
        form = {
            "subject": f"{manifest.name}: may this model be released?",
            "body": "",
            "params": {"why": why},  # the form's own; what the run was started with is no part of the answer
            "fail_on_reject": True,
            "response_timeout": timedelta(hours=manifest.gate.approval_hours),
        }
        super().__init__(**options | form)
        self.told = told
        self.url = url

    def execute(self, context: Context) -> Any:
        if given := self._given(context):
            return given
        self.body = question(self.told["outputs"]["gate"], self.url)
        return super().execute(context)

    def _given(self, context: Context) -> Any:
        """The yes that this run has already."""
        key = f"approval-{edge(context).key}-given"
        entries = WorldHook().ledger().entries(kinds.APPROVAL_GIVEN)
        return next((entry.details["answer"] for entry in entries if entry.key == key), None)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        try:
            answer = super().execute_complete(context, event)
        except HITLRejectException:
            who, why = _who(event), _why(event)
            self._fail(context, "refused", who, why, f"The release was refused by {who}: {why or 'no reason'}.")
        except HITLTimeoutError:
            hours = WorldHook().manifest.gate.approval_hours
            why = f"Nobody answered within gate.approval_hours ({hours:g}), so the release is refused; train again."
            self._fail(context, "expired", edge(context).who, why, why)
        given = Approval(who=_who(event), why=_why(event), at=answer["responded_at"]).model_dump(mode="json")
        self._write(context, "given", given["who"], given["why"], answer=given)
        return given

    def _fail(self, context: Context, how: How, who: str, why: str, sentence: str) -> NoReturn:
        self._write(context, how, who, why)
        raise AirflowFailException(sentence)

    def _write(self, context: Context, how: How, who: str, why: str, **more: Any) -> None:
        run, found = edge(context), self.told["outputs"]
        details = {"run": run.who, "gate": found["gate"]["sentence"], "digest": found["digest"], **more}
        entry = Entry(
            what=kinds.name_approval(how),
            subject=str(found["run_id"]),
            who=who,
            why=why or "no reason was given",
            details=details,
            key=f"approval-{run.key}-{how}",
        )
        WorldHook().ledger().append(entry)


class ApproveReleaseOperator(ApprovalOperator):
    """Asks whether a release that passed all its trials may get all requests, and leaves the answer beside the target.

    Unlike the gate's question, a no does not fail the run: the rollout that follows reads it, clears the release away
    and tells it. `told` is the result of the rollout that came to the question (templated); any other is no question.
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "told")
    ui_color = "#f6e3b4"

    def __init__(self, *, manifest: ReleaseManifest, told: Any, **options: Any) -> None:
        why = Param("", type="string", title="Reason", description="It goes to the ledger and beside the release.")
        form = {
            "subject": f"{manifest.name}: may this release get all requests?",
            "body": "",
            "params": {"why": why},
            "fail_on_reject": True,
            "response_timeout": timedelta(hours=manifest.release.approval_hours),
        }
        super().__init__(**options | form)
        self.told = told

    def execute(self, context: Context) -> Any:
        if self.told["verdict"] != "ask":
            raise AirflowSkipException(f"There is nothing to ask: {self.told['summary']}.")
        if known := WorldHook().target().verdicts(int(self.told["outputs"]["generation"])).get(APPROVED):
            return {"yes": known["verdict"] == Verdict.PASSED, "why": known["why"]}
        live = WorldHook().target().observe().live.release
        self.body = release_question(self.told["outputs"], live.version if live else None)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        spec, who, why = WorldHook().manifest.release, _who(event), _why(event)
        try:
            super().execute_complete(context, event)
        except HITLRejectException:
            return self._answer("refused", False, who, why or "no reason was given")
        except HITLTimeoutError:
            silence = f"nobody answered within release.approval_hours ({spec.approval_hours:g})"
            meant = f"{silence}, which release.silence takes for {'a yes' if spec.silence == 'switch' else 'a no'}"
            return self._answer("expired", spec.silence == "switch", edge(context).who, meant)
        return self._answer("given", True, who, why or "no reason was given")

    def _answer(self, how: How, yes: bool, who: str, why: str) -> dict[str, Any]:
        found, world = self.told["outputs"], WorldHook()
        verdict, generation = Verdict.PASSED if yes else Verdict.FAILED, int(found["generation"])
        details = {"generation": generation, "digest": found["digest"]}
        key = f"release-approval-{how}-{generation}-{found['digest'][:12]}"
        entry = Entry(
            what=kinds.name_approval(how), subject=found["version"], who=who, why=why, details=details, key=key
        )
        record(world.ledger(), entry)
        world.target().record(generation, APPROVED, verdict, f"{how} by {who}: {why}")
        return {"yes": yes, "who": who, "why": why}


def _who(event: dict[str, Any]) -> str:
    user = event.get("responded_by_user") or {}
    return str(user.get("name") or user.get("id") or "somebody")


def _why(event: dict[str, Any]) -> str:
    return str((event.get("params_input") or {}).get("why") or "").strip()
