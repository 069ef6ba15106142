"""What of the ledger is told to people, and in which words: a pure function from an entry to an alert.

Told from the ledger and not from the code that acts, so that what people read and what was recorded cannot differ, and
a retried task, which writes its entry once, tells it once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from include.alerting.core.alerts import Alert, Severity
from include.kernel.ledger import Entry
from include.kernel.words import ledger_kinds as kinds
from include.kernel.words.verdicts import SOAKED, Verdict

Told = tuple[Severity, str, str]  # how soon somebody should look, the title, the runbook's section

RELEASES, ROLL_BACK = "a-release-is-rejected-or-reverted", "roll-back"
SOAK_FAILED, DISAGREE = "a-first-release-fails-its-soak", "registry-and-world-disagree"
ASKED = "a-release-waits-for-a-yes"
DRIFTED, REFUSED, GATE = "a-drift-alarm", "data-is-refused", "the-gate-refuses"


def of(entry: Entry) -> Alert | None:
    """The alert of an entry; None for what nobody needs to be told."""
    if entry.what not in TITLES:
        return None
    severity, title, section = TITLES[entry.what](entry)
    text = "\n".join(f"{name}: {found}" for name, found in _lines(entry) if found)
    return Alert(severity=severity, title=title[:200], text=text, runbook=section, key=_key(entry))


def evidence(details: Mapping[str, Any]) -> str:
    """The verdicts of a rollout, or the hashes that an entry names, in one line."""
    if verdicts := details.get("evidence"):
        return "; ".join(f"{part} {found['verdict']}: {found['why']}" for part, found in verdicts.items())
    named = [name for name in ("digest", "generation", "blessing") if name in details]
    return ", ".join(f"{name} {str(details[name])[:12]}" for name in named)


def soak_failed(verdicts: Mapping[str, Mapping[str, str]]) -> str | None:
    """Why the soak failed, if it did."""
    soaked = verdicts.get(SOAKED, {})
    return str(soaked["why"]) if soaked.get("verdict") == Verdict.FAILED.value else None


def _lines(entry: Entry) -> list[tuple[str, str]]:
    return [("what", entry.what), ("who", entry.who), ("why", entry.why), ("evidence", evidence(entry.details))]


def _key(entry: Entry) -> str:
    """A release is told by its generation, so that two runs which follow the same one tell it once."""
    about = entry.details.get("generation") or entry.key or entry.at.isoformat()
    return f"{entry.what}-{entry.subject}-{about}"[:255]


def _done(entry: Entry) -> Told:
    if soak_failed(entry.details.get("evidence", {})):
        title = f"Version {entry.subject} failed its soak and serves on: there is nothing to go back to"
        return Severity.CRITICAL, title, SOAK_FAILED
    return Severity.INFO, f"Version {entry.subject} serves all traffic", RELEASES


def _plain(severity: Severity, title: str, section: str) -> Callable[[Entry], Told]:
    return lambda entry: (severity, title.format(entry.subject), section)


TITLES: dict[str, Callable[[Entry], Told]] = {
    kinds.DEPLOY_WANTED: _plain(Severity.INFO, "The release of version {} begins", RELEASES),
    kinds.ROLLBACK_WANTED: _plain(Severity.WARNING, "A rollback to version {} begins", ROLL_BACK),
    kinds.ROLLBACK_REFUSED: _plain(Severity.CRITICAL, "The rollback to version {} was refused", ROLL_BACK),
    kinds.DEPLOY_REFUSED: _plain(Severity.WARNING, "The release of version {} was refused", RELEASES),
    kinds.RELEASE_ASKED: _plain(Severity.WARNING, "Version {} waits for a person's yes", ASKED),
    kinds.RELEASE_SOAKING: _plain(Severity.INFO, "Version {} gets all traffic and is soaking", RELEASES),
    kinds.RELEASE_DONE: _done,
    kinds.RELEASE_REJECTED: _plain(Severity.WARNING, "Version {} was rejected and got no traffic of its own", RELEASES),
    kinds.RELEASE_REVERTED: _plain(Severity.CRITICAL, "Version {} failed its soak and was reverted", RELEASES),
    kinds.RELEASE_SUPERSEDED: _plain(Severity.INFO, "The release of version {} gave way to a newer wish", RELEASES),
    kinds.RECONCILE_HEALED: _plain(Severity.WARNING, "Registry and world disagreed, and {} was put right", DISAGREE),
    kinds.DRIFT_DETECTED: _plain(Severity.WARNING, "The world moved: {}", DRIFTED),
    kinds.DATASET_REFUSED: _plain(Severity.WARNING, "The delivery of {} was refused", REFUSED),
    kinds.GATE_REFUSED: _plain(Severity.INFO, "The gate refused the training {}", GATE),
    kinds.RECONCILE_FOUND: _plain(Severity.CRITICAL, "Registry and world disagree about {}", DISAGREE),
}
