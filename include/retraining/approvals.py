"""Enters the policy's decision into the ledger, so that of many who decide at once one alone may train.

A yes is entered under its number, the one after the approvals the decision was taken on. The ledger takes each key
once: of two deciders that saw the same approvals the second is turned away, looks again, and decides on what the first
one left. That is a compare-and-set, held by the store; no timing, and no lock that a killed decider would keep. Who was
killed behind its own entry finds it by its name and goes on with it.

The other facts may still change between the look and the entry, as when a release begins in that moment. That costs a
training whose release waits its turn, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from include.kernel.ledger import Entry

if TYPE_CHECKING:
    from include.kernel.ledger_file import LocalLedger
    from include.retraining.wait_conditions import Answer, WaitConditions
from include.kernel.words import ledger_kinds as kinds
from include.retraining.wait_conditions import Answer


def enter_decision(
    conditions: WaitConditions, ledger: LocalLedger, arguments: dict[str, Any], who: str, run: str
) -> Answer | None:
    """The decision for the run `who`, entered under its key `run`; None while the policy says wait."""
    while (answer := _find_own(ledger, who) or conditions.decide_retraining(**arguments)) and not _enter(
        ledger, answer, arguments, who, run
    ):
        pass  # somebody else took the number: whoever is turned away has one approval more to look at
    return answer


def _find_own(ledger: LocalLedger, who: str) -> Answer | None:
    """The approval this very run was given before it was killed."""
    for entry in ledger.read_entries(kinds.RETRAINING_APPROVED):
        if entry.who == who:
            return {"verdict": "yes", "sentence": entry.why, "as_of": entry.subject, "key": entry.key}
    return None


def _enter(ledger: LocalLedger, answer: Answer, arguments: dict[str, Any], who: str, run: str) -> bool:
    if "key" in answer:
        return True
    yes = answer["verdict"] == "yes"
    answer["key"] = f"retraining-{answer.pop('number')}" if yes else f"retraining-{run}"
    details = {name: arguments.get(name) for name in ("trigger", "triggered", "episode")}
    what = kinds.RETRAINING_APPROVED if yes else kinds.RETRAINING_DECLINED
    entry = Entry(
        what=what, subject=answer["as_of"], who=who, why=answer["sentence"], details=details, key=answer["key"]
    )
    return ledger.append(entry) or not yes
