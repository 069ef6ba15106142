"""Which entries of the ledger are told to people, in which words, and where they lead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from include.alerting.core import alert_rules
from include.alerting.core.alerts import Severity
from include.kernel.ledger import Entry
from include.model.blessing.blessing import compute_envelope_digest
from tests.blessed import document, envelope

RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "runbook.md"
SECTIONS = {
    re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
    for title in re.findall(r"^## (.+)$", RUNBOOK.read_text(), re.MULTILINE)
}
FAILED_SOAK = {"soaked": {"verdict": "failed", "why": "3 of 9 probes failed"}}


def entry(what: str, key: str | None = "k", **details) -> Entry:
    return Entry(what=what, subject="7", who="deploy run 1", why="it is better", details=details, key=key)


@pytest.mark.parametrize("what", sorted(alert_rules.ALERT_RULES))
def test_every_alert_says_what_who_and_why_and_leads_to_a_section_that_exists(what):
    alert = alert_rules.build_alert(entry(what, generation=4))
    assert "7" in alert.title
    assert f"what: {what}\nwho: deploy run 1\nwhy: it is better\nevidence: generation 4" == alert.text
    assert alert.runbook in SECTIONS


@pytest.mark.parametrize(
    "blessing, shown",
    [
        (envelope(document()), f"generation 4, blessing {compute_envelope_digest(envelope(document()))[:12]}"),
        ("f" * 64, "generation 4, blessing ffffffffffff"),
        ('{"payload":"', "generation 4, blessing that cannot be read"),
        (None, "generation 4"),
    ],
)
def test_a_blessing_is_shown_by_its_hash_whether_an_entry_keeps_it_whole_or_not(blessing, shown):
    assert alert_rules.summarise_evidence({"generation": 4, "blessing": blessing}) == shown


def test_what_nobody_needs_to_be_told_is_no_alert():
    assert alert_rules.build_alert(entry("model.trained")) is None
    assert alert_rules.build_alert(entry("release.live")) is None, "release.done said it"


def test_a_first_release_that_fails_its_soak_is_told_as_that_and_at_once():
    alert = alert_rules.build_alert(entry("release.done", generation=1, evidence=FAILED_SOAK))
    assert alert.severity is Severity.CRITICAL and "there is nothing to go back to" in alert.title
    assert alert.runbook == "a-first-release-fails-its-soak" and "3 of 9 probes failed" in alert.text
    assert alert_rules.build_alert(entry("release.done", generation=1)).severity is Severity.INFO


def test_two_runs_that_follow_the_same_release_tell_it_once_and_the_next_release_is_told_again():
    keys = {alert_rules.build_alert(entry("release.done", key=key, generation=4)).key for key in ("run 1", "run 2")}
    assert len(keys) == 1
    assert alert_rules.build_alert(entry("release.done", generation=5)).key not in keys


def test_what_belongs_to_no_release_is_told_once_for_its_own_key():
    assert (
        alert_rules.build_alert(entry("reconcile.healed", key="a")).key
        != alert_rules.build_alert(entry("reconcile.healed", key="b")).key
    )
