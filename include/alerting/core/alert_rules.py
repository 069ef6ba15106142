"""What of the ledger is told to people, and in which words: a pure function from an entry to an alert.

Told from the ledger and not from the code that acts, so that what people read and what was recorded cannot differ, and
a retried task, which writes its entry once, tells it once.
"""

from collections.abc import Callable, Mapping
from typing import Any

from include.alerting.core.alerts import Alert, Severity
from include.kernel.ledger import Entry
from include.kernel.words import ledger_kinds as kinds
from include.kernel.words.verdicts import SOAKED, Verdict
from include.model.blessing.blessing import compute_envelope_digest

AlertText = tuple[Severity, str, str]  # how soon somebody should look, the title, the runbook's section

RELEASES_SECTION, ROLLBACK_SECTION = "a-release-is-rejected-or-reverted", "roll-back"
SOAK_SECTION, RECONCILE_SECTION = "a-first-release-fails-its-soak", "registry-and-world-disagree"
APPROVAL_SECTION = "a-release-waits-for-a-yes"
DRIFT_SECTION, DATA_SECTION, GATE_SECTION = "a-drift-alarm", "data-is-refused", "the-gate-refuses"


def build_alert(entry: Entry) -> Alert | None:
    """The alert of an entry; None for what nobody needs to be told."""
    if entry.what not in ALERT_RULES:
        return None
    severity, title, section = ALERT_RULES[entry.what](entry)
    text = "\n".join(f"{name}: {value}" for name, value in _list_lines(entry) if value)
    return Alert(severity=severity, title=title[:200], text=text, runbook=section, key=_build_key(entry))


def summarise_evidence(details: Mapping[str, Any]) -> str:
    """The verdicts of a rollout, or the hashes that an entry names, in one line."""
    if verdicts := details.get("evidence"):
        return "; ".join(f"{part} {verdict['verdict']}: {verdict['why']}" for part, verdict in verdicts.items())
    facts = {name: details[name] for name in ("digest", "generation", "blessing") if details.get(name)}
    return ", ".join(f"{name} {_shorten_fact(str(fact))}" for name, fact in facts.items())


def _shorten_fact(fact: str) -> str:
    """The start of a hash or a number; of a signed document, which some entries keep whole, that of its payload."""
    try:
        return (compute_envelope_digest(fact) if fact.startswith("{") else fact)[:12]
    except ValueError:
        return "that cannot be read"


def explain_failed_soak(verdicts: Mapping[str, Mapping[str, str]]) -> str | None:
    """Why the soak failed, if it did."""
    soaked = verdicts.get(SOAKED, {})
    return str(soaked["why"]) if soaked.get("verdict") == Verdict.FAILED.value else None


def _list_lines(entry: Entry) -> list[tuple[str, str]]:
    return [
        ("what", entry.what),
        ("who", entry.who),
        ("why", entry.why),
        ("evidence", summarise_evidence(entry.details)),
    ]


def _build_key(entry: Entry) -> str:
    """A release is told by its generation, so that two runs which follow the same one tell it once."""
    about = entry.details.get("generation") or entry.key or entry.at.isoformat()
    return f"{entry.what}-{entry.subject}-{about}"[:255]


def _describe_done(entry: Entry) -> AlertText:
    if explain_failed_soak(entry.details.get("evidence", {})):
        title = f"Version {entry.subject} failed its soak and serves on: there is nothing to go back to"
        return Severity.CRITICAL, title, SOAK_SECTION
    return Severity.INFO, f"Version {entry.subject} serves all traffic", RELEASES_SECTION


def _build_rule(severity: Severity, title: str, section: str) -> Callable[[Entry], AlertText]:
    return lambda entry: (severity, title.format(entry.subject), section)


ALERT_RULES: dict[str, Callable[[Entry], AlertText]] = {
    kinds.DEPLOY_WANTED: _build_rule(Severity.INFO, "The release of version {} begins", RELEASES_SECTION),
    kinds.ROLLBACK_WANTED: _build_rule(Severity.WARNING, "A rollback to version {} begins", ROLLBACK_SECTION),
    kinds.ROLLBACK_REFUSED: _build_rule(Severity.CRITICAL, "The rollback to version {} was refused", ROLLBACK_SECTION),
    kinds.DEPLOY_REFUSED: _build_rule(Severity.WARNING, "The release of version {} was refused", RELEASES_SECTION),
    kinds.RELEASE_ASKED: _build_rule(Severity.WARNING, "Version {} waits for a person's yes", APPROVAL_SECTION),
    kinds.RELEASE_SOAKING: _build_rule(Severity.INFO, "Version {} gets all traffic and is soaking", RELEASES_SECTION),
    kinds.RELEASE_DONE: _describe_done,
    kinds.RELEASE_REJECTED: _build_rule(
        Severity.WARNING, "Version {} was rejected and got no traffic of its own", RELEASES_SECTION
    ),
    kinds.RELEASE_REVERTED: _build_rule(
        Severity.CRITICAL, "Version {} failed its soak and was reverted", RELEASES_SECTION
    ),
    kinds.RELEASE_SUPERSEDED: _build_rule(
        Severity.INFO, "The release of version {} gave way to a newer request", RELEASES_SECTION
    ),
    kinds.RECONCILE_HEALED: _build_rule(
        Severity.WARNING, "Registry and world disagreed, and {} was put right", RECONCILE_SECTION
    ),
    kinds.DRIFT_DETECTED: _build_rule(Severity.WARNING, "The world moved: {}", DRIFT_SECTION),
    kinds.DATASET_REFUSED: _build_rule(Severity.WARNING, "The delivery of {} was refused", DATA_SECTION),
    kinds.GATE_REFUSED: _build_rule(Severity.INFO, "The gate refused the training {}", GATE_SECTION),
    kinds.RECONCILE_FOUND: _build_rule(Severity.CRITICAL, "Registry and world disagree about {}", RECONCILE_SECTION),
}
