"""Say what is wanted, then follow the release machine to its end. Neither operator decides anything.

Both verify the blessing, whoever asks and for whatever reason: no Param and no variable leads around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from airflow.sdk import BaseOperator, Context

from evergreen.edge import Edge, edge
from evergreen.errors import as_airflow
from evergreen.hooks.world import WorldHook
from evergreen.triggers.poll import PollTrigger
from include.core.blessing import Blessing, envelope_digest
from include.core.errors import RequestInvalid
from include.core.ledger import Entry
from include.core.manifest import ReleaseSpec
from include.core.rollout import BLUE_GREEN, Plan, Release, Step, Verdict
from include.core.way_back import way_back

Kind = Literal["deploy", "rollback"]
WORTH_A_WORKER_S = 10.0


class WantOperator(BaseOperator):
    """Deploy: stores a wish for a blessed version, that of the Param or of the model.blessed event."""

    ui_color = "#e6dcf3"
    kind: Kind = "deploy"

    def plan(self, release: ReleaseSpec) -> Plan:
        return Plan(weights=release.canary.weights) if release.strategy == "canary" else BLUE_GREEN

    def execute(self, context: Context) -> dict[str, Any]:
        run, world = edge(context), WorldHook()
        with as_airflow():
            version, envelope = self._version(context, run, world)
            blessing = world.blessing(version, envelope)
            why = context["params"].get("why") or self._why(blessing)
            plan = self.plan(world.manifest.release)
            release, paper = Release(version, blessing.digest), envelope_digest(envelope)
            wanted = world.target().want(release, by=run.who, why=why, kind=self.kind, blessing=envelope, plan=plan)
        details = {"generation": wanted.generation, "blessing": paper}
        _write(world, f"{self.kind}.wanted", run, version, why, details)
        self.log.info("version %s is wanted (generation %d): %s", version, wanted.generation, why)
        return {"generation": wanted.generation, "version": version, "digest": release.digest, "blessing": envelope}

    def _why(self, blessing: Blessing) -> str:
        return blessing.gate

    def _version(self, context: Context, run: Edge, world: WorldHook) -> tuple[str, str]:
        """The version that is wanted, and its blessing as signed; not yet verified."""
        version = context["params"].get("version") or run.extra.get("version")
        if not version:
            raise RequestInvalid("deploy needs a version: fill in the form's version, or let the train DAG bless one.")
        return str(version), world.registry().blessing(str(version))


class WantBackOperator(WantOperator):
    """Rollback: stores a wish for the version of the Param, or else the last one that really served before this one.

    It needs the ledger alone, which keeps each version's blessing too, so it works while the registry is down.
    """

    kind: Kind = "rollback"

    def plan(self, release: ReleaseSpec) -> Plan:
        return BLUE_GREEN  # nobody waits for a canary while a bad release serves

    def _why(self, blessing: Blessing) -> str:
        return "a person asked for it"

    def _version(self, context: Context, run: Edge, world: WorldHook) -> tuple[str, str]:
        live = world.target().observe().live.release
        return way_back(world.ledger().entries("release.live"), live, context["params"].get("version"))


class RolloutOperator(BaseOperator):
    """Takes step after step for one generation until the machine says DONE, REJECTED or SUPERSEDED.

    What takes long (a canary, a soak, a slot that starts slowly) is left to the triggerer, so that no worker waits.
    What is over within WORTH_A_WORKER_S is not: going there and back costs about that long.
    """

    template_fields: Sequence[str] = ("wish",)
    ui_color = "#e6dcf3"

    def __init__(self, *, wish: Any, **options: Any) -> None:
        super().__init__(**options)
        self.wish = wish

    def execute(self, context: Context) -> dict[str, Any]:
        with as_airflow():  # again, since what lies between two tasks is no safe place
            WorldHook().blessing(self.wish["version"], self.wish["blessing"], self.wish["digest"])
        return self.go_on(context, None, [])

    def go_on(self, context: Context, event: Any, taken: list[list[Any]]) -> dict[str, Any]:
        """`taken`: the steps before the triggerer took over; lists, since XCom hands tuples back as its own objects."""
        run, world, generation = edge(context), WorldHook(), int(self.wish["generation"])
        with as_airflow():
            rollout = world.rollout()
            for step, seconds in rollout.run(generation, patience=WORTH_A_WORKER_S):
                self._note(taken, step, seconds)
            if not step.is_terminal:
                self._wait(generation, rollout.pause(step), taken)
            evidence = world.target().verdicts(generation)
        outcome = _outcome(step, evidence)
        summary = f"version {self.wish['version']} {_told(outcome, evidence)}"
        details = {**self.wish, "outcome": outcome, "steps": taken, "evidence": evidence}
        _write(world, f"release.{outcome}", run, self.wish["version"], summary, details)
        self.log.info("%s", summary)
        return {"verdict": "yes" if step is Step.DONE else "no", "summary": summary, "outputs": details}

    def _note(self, taken: list[list[Any]], step: Step, seconds: float) -> None:
        """Looks at one step are one line."""
        if taken and taken[-1][0] == step.value:
            taken[-1][1] = round(taken[-1][1] + seconds, 3)
            return
        self.log.info("%s", step.value)
        taken.append([step.value, round(seconds, 3)])

    def _wait(self, generation: int, interval: float, taken: list[list[Any]]) -> None:
        self.log.info("%s goes on in the triggerer", taken[-1][0])
        trigger = PollTrigger("rollout", {"generation": generation}, interval)
        self.defer(trigger=trigger, method_name="go_on", kwargs={"taken": taken})


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
