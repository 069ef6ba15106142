"""Asks a person, by Airflow's own approval form. The task waits in the database: no worker, no triggerer.

Airflow's advice is that a "Reject" should end green with the rest skipped. Here it fails the run, and so does silence:
somebody asked for a release and did not get it, and a skipped task is what nobody looks at.

Nobody is asked twice: Airflow may lose a task that has its answer already (seen where the answer came within a second
of the question, on a busy machine: the scheduler took the end of the asking for the end of the task). A retry then
finds the answer written down.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, NoReturn

from airflow.providers.standard.exceptions import HITLRejectException, HITLTimeoutError
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context, Param
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from evergreen.hooks.connections import ConnectionsHook
from evergreen.hooks.notifiers import record
from evergreen.results import require_result
from evergreen.run_context import read_run_context
from include.gate.spec import GateManifest
from include.kernel.ledger import Entry
from include.kernel.words import ledger_kinds as kinds
from include.kernel.words.verdicts import APPROVED, Verdict
from include.model.blessing.approval import Approval, render_gate_approval, render_release_approval
from include.release.spec import ReleaseManifest

ApprovalOutcome = Literal["given", "refused", "expired"]


class ApproveOperator(ApprovalOperator):
    """Shows the gate's report and waits for Approve or Reject. Returns who approved and why; anything else fails.

    `told` is the result of evaluate, `url` the run in MLflow (both templated).
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "result", "url")
    ui_color = "#f6e3b4"

    def __init__(self, *, manifest: GateManifest, result: Any, url: str | None = None, **options: Any) -> None:
        why = Param("", type="string", title="Reason", description="It goes to the ledger and into the blessing.")
        form = {
            "subject": f"{manifest.name}: may this model be released?",
            "body": "",
            "params": {"why": why},  # the form's own; what the run was started with is no part of the answer
            "fail_on_reject": True,
            "response_timeout": timedelta(hours=manifest.gate.approval_hours),
        }
        super().__init__(**options | form)
        self.result = result
        self.url = url

    def execute(self, context: Context) -> Any:
        if answer := self._find_answer(context):
            return answer
        outputs = require_result(self.result, "outputs", task_id="evaluate")["outputs"]
        self.body = render_gate_approval(outputs["gate"], self.url)
        return super().execute(context)

    def _find_answer(self, context: Context) -> Any:
        """The yes that this run has already."""
        key = f"approval-{read_run_context(context).key}-given"
        entries = ConnectionsHook().open_ledger().read_entries(kinds.APPROVAL_GIVEN)
        return next((entry.details["answer"] for entry in entries if entry.key == key), None)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        try:
            answer = super().execute_complete(context, event)
        except HITLRejectException:
            who, why = _read_responder(event), _read_reason(event)
            self._fail(context, "refused", who, why, f"The release was refused by {who}: {why or 'no reason'}.")
        except HITLTimeoutError:
            hours = ConnectionsHook().manifest.gate.approval_hours
            why = f"Nobody answered within gate.approval_hours ({hours:g}), so the release is refused; train again."
            self._fail(context, "expired", read_run_context(context).who, why, why)
        approval = Approval(who=_read_responder(event), why=_read_reason(event), at=answer["responded_at"]).model_dump(
            mode="json"
        )
        self._record_answer(context, "given", approval["who"], approval["why"], answer=approval)
        self.log.info("approved by %s: %s", approval["who"], approval["why"] or "no reason was given")
        return approval

    def _fail(self, context: Context, outcome: ApprovalOutcome, who: str, why: str, sentence: str) -> NoReturn:
        self._record_answer(context, outcome, who, why)
        raise AirflowFailException(sentence)

    def _record_answer(self, context: Context, outcome: ApprovalOutcome, who: str, why: str, **more: Any) -> None:
        run, outputs = read_run_context(context), self.result["outputs"]
        details = {"run": run.who, "gate": outputs["gate"]["sentence"], "digest": outputs["digest"], **more}
        entry = Entry(
            what=kinds.name_approval(outcome),
            subject=str(outputs["run_id"]),
            who=who,
            why=why or "no reason was given",
            details=details,
            key=f"approval-{run.key}-{outcome}",
        )
        ConnectionsHook().open_ledger().append(entry)


class ApproveReleaseOperator(ApprovalOperator):
    """Asks whether a release that passed all its trials may get all requests, and leaves the answer beside the target.

    Unlike the gate's question, a no does not fail the run: the rollout that follows reads it, clears the release away
    and tells it. `told` is the result of the rollout that came to the question (templated); any other is no question.
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "result")
    ui_color = "#f6e3b4"

    def __init__(self, *, manifest: ReleaseManifest, result: Any, **options: Any) -> None:
        why = Param("", type="string", title="Reason", description="It goes to the ledger and beside the release.")
        form = {
            "subject": f"{manifest.name}: may this release get all requests?",
            "body": "",
            "params": {"why": why},
            "fail_on_reject": True,
            "response_timeout": timedelta(hours=manifest.release.approval_hours),
        }
        super().__init__(**options | form)
        self.result = result

    def execute(self, context: Context) -> Any:
        if require_result(self.result, "verdict", "outputs", task_id="try_out")["verdict"] != "ask":
            raise AirflowSkipException(f"There is nothing to ask: {self.result['summary']}.")
        if (
            verdict := ConnectionsHook()
            .open_target()
            .read_verdicts(int(self.result["outputs"]["generation"]))
            .get(APPROVED)
        ):
            return {"yes": verdict["verdict"] == Verdict.PASSED, "why": verdict["why"]}
        live = ConnectionsHook().open_target().observe().live.release
        self.body = render_release_approval(self.result["outputs"], live.version if live else None)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        spec, who, why = ConnectionsHook().manifest.release, _read_responder(event), _read_reason(event)
        try:
            super().execute_complete(context, event)
        except HITLRejectException:
            return self._record_answer("refused", False, who, why or "no reason was given")
        except HITLTimeoutError:
            silence = f"nobody answered within release.approval_hours ({spec.approval_hours:g})"
            reason = f"{silence}, which release.silence takes for {'a yes' if spec.silence == 'switch' else 'a no'}"
            return self._record_answer("expired", spec.silence == "switch", read_run_context(context).who, reason)
        return self._record_answer("given", True, who, why or "no reason was given")

    def _record_answer(self, outcome: ApprovalOutcome, is_approved: bool, who: str, why: str) -> dict[str, Any]:
        outputs, hook = self.result["outputs"], ConnectionsHook()
        verdict, generation = Verdict.PASSED if is_approved else Verdict.FAILED, int(outputs["generation"])
        details = {"generation": generation, "digest": outputs["digest"]}
        key = f"release-approval-{outcome}-{generation}-{outputs['digest'][:12]}"
        entry = Entry(
            what=kinds.name_approval(outcome), subject=outputs["version"], who=who, why=why, details=details, key=key
        )
        record(hook.open_ledger(), entry)
        hook.open_target().record_verdict(generation, APPROVED, verdict, f"{outcome} by {who}: {why}")
        self.log.info("version %s: %s by %s: %s", outputs["version"], outcome, who, why)
        return {"yes": is_approved, "who": who, "why": why}


def _read_responder(event: dict[str, Any]) -> str:
    user = event.get("responded_by_user") or {}
    return str(user.get("name") or user.get("id") or "somebody")


def _read_reason(event: dict[str, Any]) -> str:
    return str((event.get("params_input") or {}).get("why") or "").strip()
