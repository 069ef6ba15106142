"""When a person is asked, what they are shown, and what is kept of their answer.

A gate that cannot tell asks for more rows or for a person. A person may say yes where the rows could not; nobody's yes
replaces a refusal. Historical and rehearsal trainings are never blessed, so nobody is asked about them.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from include.kernel.job import Intent

ApprovalPolicy = Literal["never", "inconclusive", "always"]


class Next(StrEnum):
    BLESS = "bless"
    ASK = "ask"
    STOP = "stop"


class Approval(BaseModel):
    """Who said yes, and why. It is part of the signed blessing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    who: str = Field(min_length=1)
    why: str
    at: datetime


def choose_next(verdict: str, policy: ApprovalPolicy, intent: Intent) -> Next:
    """What follows a verdict (passed, refused, inconclusive) of the gate under `gate.approval`."""
    if verdict == "passed":
        return Next.ASK if policy == "always" and intent is Intent.LIVE else Next.BLESS
    if verdict == "inconclusive" and policy != "never" and intent is Intent.LIVE:
        return Next.ASK
    return Next.STOP


def render_gate_approval(report: Mapping[str, Any], link: str | None = None) -> str:
    """The gate's report as Markdown: the sentence, the checks that did not pass first, and where to read on."""
    order = {"refused": 0, "inconclusive": 1, "passed": 2}
    checks = sorted(report["checks"], key=lambda check: order[check["verdict"]])
    against = report.get("champion_version")
    rival = f"champion: version {against}" if against else "there is no champion yet"
    return "\n".join(
        [
            f"**{_escape_cell(report['sentence'])}**",
            "",
            f"{report['rows']} holdout rows; {rival}." + (f" [The run in MLflow]({link})." if link else ""),
            "",
            "| Check | Verdict | Value | Interval | Threshold | Reason |",
            "|---|---|---|---|---|---|",
            *(_render_row(check) for check in checks),
        ]
    )


def render_release_approval(release: Mapping[str, Any], live: str | None) -> str:
    """What a person sees before a release gets all requests: which replaces which, and every verdict so far."""
    instead = f"instead of version {live}" if live else "as the first release of all"
    rows = [
        f"| {part} | {found['verdict']} | {_escape_cell(found['why'])} |" for part, found in release["evidence"].items()
    ]
    head = f"**Version {release['version']} is ready to get all requests, {instead}.**"
    return "\n".join([head, "", "| Trial | Verdict | Why |", "|---|---|---|", *rows])


def _render_row(check: Mapping[str, Any]) -> str:
    value, low, high, threshold = (_format_number(check.get(part)) for part in ("value", "low", "high", "threshold"))
    verdict = check["verdict"] if check.get("blocks", True) else f"{check['verdict']} (a warning)"
    between = f"{low} to {high}" if low != high else "none"
    cells = (check["name"], verdict, value, between, threshold, check["reason"])
    return "| " + " | ".join(_escape_cell(str(cell)) for cell in cells) + " |"


def _format_number(number: Any) -> str:
    return "none" if number is None else f"{number:.4g}"


def _escape_cell(text: str) -> str:
    """One line that neither ends the table's cell nor starts markup."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
