"""Say what is wanted, then follow the release machine to its end. Neither operator decides anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from airflow.sdk import BaseOperator, Context

from evergreen.edge import Edge, edge
from evergreen.errors import as_airflow
from evergreen.hooks.world import WorldHook
from include.core.errors import NotBlessed, RequestInvalid
from include.core.job import Intent
from include.core.ledger import Entry
from include.core.rollout import Release, Step, Verdict

Kind = Literal["deploy", "rollback"]


class WantOperator(BaseOperator):
    """Deploy: stores a wish for a blessed version, that of the Param or of the model.blessed event."""

    ui_color = "#e6dcf3"
    kind: Kind = "deploy"

    def execute(self, context: Context) -> dict[str, Any]:
        run, world = edge(context), WorldHook()
        with as_airflow():
            release, why = self._wish(context, run, world)
            wanted = world.target().want(release, by=run.who, why=why, kind=self.kind)
        _write(world, f"{self.kind}.wanted", run, release.version, why, {"generation": wanted.generation})
        self.log.info("version %s is wanted (generation %d): %s", release.version, wanted.generation, why)
        return {"generation": wanted.generation, "version": release.version, "digest": release.digest}

    def _wish(self, context: Context, run: Edge, world: WorldHook) -> tuple[Release, str]:
        version = context["params"].get("version") or run.extra.get("version")
        if not version:
            raise RequestInvalid("deploy needs a version: fill in the form's version, or let the train DAG bless one.")
        blessing = world.registry().blessing(str(version))
        if blessing.intent is not Intent.LIVE:
            raise NotBlessed(f"Version {version} comes from a {blessing.intent.value} training and is never deployed.")
        return Release(blessing.version, blessing.digest), context["params"].get("why") or blessing.gate


class WantBackOperator(WantOperator):
    """Rollback: stores a wish for the version of the Param, or else the last one that really served before this one.

    It needs the ledger alone, so it works while the registry is down.
    """

    kind: Kind = "rollback"

    def _wish(self, context: Context, run: Edge, world: WorldHook) -> tuple[Release, str]:
        asked, live = context["params"].get("version"), world.target().observe().live.release
        served = [Release(e.subject, e.details["digest"]) for e in world.ledger().entries("release.live")]
        past = [release for release in served if (release.version == asked if asked else release != live)]
        if not past:
            what = f"Version {asked} never served" if asked else "No other version ever served"
            raise RequestInvalid(f"{what}, so there is nothing to roll back to; see `release.live` in the ledger.")
        return past[-1], context["params"].get("why") or "a person asked for it"


class RolloutOperator(BaseOperator):
    """Takes step after step for one generation until the machine says DONE, REJECTED or SUPERSEDED."""

    template_fields: Sequence[str] = ("wish",)
    ui_color = "#e6dcf3"

    def __init__(self, *, wish: Any, **options: Any) -> None:
        super().__init__(**options)
        self.wish = wish

    def execute(self, context: Context) -> dict[str, Any]:
        run, world, generation = edge(context), WorldHook(), int(self.wish["generation"])
        taken: list[list[Any]] = []  # lists, since XCom hands tuples back as objects of its own
        with as_airflow():
            for step, seconds in world.rollout().run(generation):
                self.log.info("%-10s %6.2f s", step.value, seconds)
                taken.append([step.value, round(seconds, 3)])
            evidence = world.target().verdicts(generation)
        outcome = _outcome(step, evidence)
        summary = f"version {self.wish['version']} {_told(outcome, evidence)}"
        details = {**self.wish, "outcome": outcome, "steps": taken, "evidence": evidence}
        _write(world, f"release.{outcome}", run, self.wish["version"], summary, details)
        self.log.info("%s", summary)
        return {"verdict": "yes" if step is Step.DONE else "no", "summary": summary, "outputs": details}


def _outcome(step: Step, evidence: dict[str, dict[str, str]]) -> str:
    if step is Step.REJECTED and "soaked" in evidence:
        return "reverted"
    return step.value


def _told(outcome: str, evidence: dict[str, dict[str, str]]) -> str:
    if outcome == "done":
        return "serves all traffic" + _warning(evidence)
    if outcome == "superseded":
        return "gave way to a newer wish"
    failed = [f"{part}: {found['why']}" for part, found in evidence.items() if found["verdict"] == Verdict.FAILED.value]
    return f"was {outcome}: {'; '.join(failed)}"


def _warning(evidence: dict[str, dict[str, str]]) -> str:
    """The very first release has nothing to revert to: it goes on serving, and says so."""
    soaked = evidence.get("soaked", {})
    if soaked.get("verdict") == Verdict.FAILED.value:
        return f", although {soaked['why']}: there was no earlier version to go back to"
    return ""


def _write(world: WorldHook, what: str, run: Edge, subject: str, why: str, details: dict[str, Any]) -> None:
    key = f"{what}-{run.key}"
    world.ledger().append(Entry(what=what, subject=subject, who=run.who, why=why, details=details, key=key))
