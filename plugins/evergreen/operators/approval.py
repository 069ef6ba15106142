"""Asks a person, by Airflow's own approval form. The task waits in the database: no worker, no triggerer.

Airflow's advice is that a "Reject" should end green with the rest skipped. Here it fails the run, and so does silence:
somebody asked for a release and did not get it, and a skipped task is what nobody looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NoReturn

from airflow.providers.standard.exceptions import HITLRejectException, HITLTimeoutError
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context, Param
from airflow.sdk.exceptions import AirflowFailException

from evergreen.edge import edge
from evergreen.hooks.world import WorldHook
from include.adapters import factory
from include.core.approval import Approval, question
from include.core.ledger import Entry


class ApproveOperator(ApprovalOperator):
    """Shows the gate's report and waits for Approve or Reject. Returns who approved and why; anything else fails.

    `told` is the result of evaluate, `url` the run in MLflow (both templated).
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "told", "url")
    ui_color = "#f6e3b4"

    def __init__(self, *, told: Any, url: str | None = None, **options: Any) -> None:
        spec = factory.manifest().gate
        why = Param("", type="string", title="Reason", description="It goes to the ledger and into the blessing.")
        form = {
            "subject": f"{factory.manifest().name}: may this model be released?",
            "body": "",
            "params": {"why": why},  # the form's own; what the run was started with is no part of the answer
            "fail_on_reject": True,
            "response_timeout": timedelta(hours=spec.approval_hours),
        }
        super().__init__(**options | form)
        self.told = told
        self.url = url

    def execute(self, context: Context) -> Any:
        self.body = question(self.told["outputs"]["gate"], self.url)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        try:
            answer = super().execute_complete(context, event)
        except HITLRejectException:
            who, why = _who(event), _why(event)
            self._fail(context, "refused", who, why, f"The release was refused by {who}: {why or 'no reason'}.")
        except HITLTimeoutError:
            hours = factory.manifest().gate.approval_hours
            why = f"Nobody answered within gate.approval_hours ({hours:g}), so the release is refused; train again."
            self._fail(context, "expired", edge(context).who, why, why)
        given = Approval(who=_who(event), why=_why(event), at=answer["responded_at"]).model_dump(mode="json")
        self._write(context, "given", given["who"], given["why"])
        return given

    def _fail(self, context: Context, how: str, who: str, why: str, sentence: str) -> NoReturn:
        self._write(context, how, who, why)
        raise AirflowFailException(sentence)

    def _write(self, context: Context, how: str, who: str, why: str) -> None:
        run, found = edge(context), self.told["outputs"]
        details = {"run": run.who, "gate": found["gate"]["sentence"], "digest": found["digest"]}
        entry = Entry(
            what=f"approval.{how}",
            subject=str(found["run_id"]),
            who=who,
            why=why or "no reason was given",
            details=details,
            key=f"approval-{run.key}-{how}",
        )
        WorldHook().ledger().append(entry)


def _who(event: dict[str, Any]) -> str:
    user = event.get("responded_by_user") or {}
    return str(user.get("name") or user.get("id") or "somebody")


def _why(event: dict[str, Any]) -> str:
    return str((event.get("params_input") or {}).get("why") or "").strip()
