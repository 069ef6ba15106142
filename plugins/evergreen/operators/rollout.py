"""Say what is wanted, then follow the release machine to its end. Neither operator decides anything.

Both verify the blessing, whoever asks and for whatever reason: no Param and no variable leads around it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from evergreen.errors import as_airflow
from evergreen.hooks.connections import WorldHook
from evergreen.hooks.notifiers import deliver, record
from evergreen.run_context import Edge, edge
from evergreen.triggers.poll import PollTrigger
from include.alerting.core.alert_rules import soak_failed
from include.kernel.errors import Conflict, Permanent, RequestInvalid, Temporary
from include.kernel.ledger import Entry
from include.kernel.words import ledger_kinds as kinds
from include.kernel.words.verdicts import SOAKED
from include.manifest import Manifest
from include.model.blessing.blessing import Blessing, envelope_digest
from include.release.core import release_plan, release_requests
from include.release.core.rollback_target import way_back
from include.release.core.rollout import BLUE_GREEN, Plan, Release, Step, Verdict

if TYPE_CHECKING:
    from include.release.targets.base import ServingTarget

log = logging.getLogger(__name__)
Kind = Literal["deploy", "rollback"]
WORTH_A_WORKER_S = 10.0


class WantOperator(BaseOperator):
    """Deploy: stores a wish for a blessed version, that of the Param or of the model.blessed event."""

    ui_color = "#e6dcf3"
    kind: Kind = "deploy"

    def plan(self, manifest: Manifest, version: str, context: Context) -> Plan:
        return release_plan.plan(manifest, version, bool(context["params"].get("experiment")))

    def execute(self, context: Context) -> dict[str, Any]:
        run, world = edge(context), WorldHook()
        asked = str(context["params"].get("version") or run.extra.get("version") or "none")
        with as_airflow(), self._refusals(run, world, asked):
            return self._want(context, run, world)

    def _want(self, context: Context, run: Edge, world: WorldHook) -> dict[str, Any]:
        version, envelope = self._version(context, run, world)
        blessing, target = world.blessing(version, envelope), world.target()
        self._must_go_forward(context, target, version)
        why = context["params"].get("why") or self._why(blessing)
        plan, release = self.plan(world.manifest, version, context), Release(version, blessing.digest)
        expected = self._must_wait_for_nobody(world, target, version)
        wanted = target.want(release, run.who, why, self.kind, expected, envelope, plan)
        details = {"generation": wanted.generation, "blessing": envelope_digest(envelope)}
        _write(world, kinds.name_wanted(self.kind), run, version, why, details)
        self.log.info("version %s is wanted (generation %d): %s", version, wanted.generation, why)
        if self.kind == "deploy":  # of a rollback is told when the traffic has moved
            deliver()
        return {"generation": wanted.generation, "version": version, "digest": release.digest, "blessing": envelope}

    @contextmanager
    def _refusals(self, run: Edge, world: WorldHook, version: str) -> Iterator[None]:
        """What was refused for good is told, not only shown as a failed task."""
        try:
            yield
        except Permanent as error:
            _write(world, kinds.name_refused(self.kind), run, version, str(error), {})
            deliver()
            raise

    def _must_go_forward(self, context: Context, target: ServingTarget, version: str) -> None:
        """Nobody asked for what an event names late; a person may ask for any version by the form."""
        live = target.observe().live.release
        if not context["params"].get("version") and live and release_requests.is_older(version, live.version):
            raise AirflowSkipException(release_requests.TOO_LATE.format(version=version, live=live.version))

    def _must_wait_for_nobody(self, world: WorldHook, target: ServingTarget, version: str) -> int | None:
        """The generation that may be followed by a deployment; raises `Conflict` while a rollback is under way."""
        known = target.wanted()
        if known is None:
            return None
        seen = target.observe()
        abandoned = target.quiet_s(known.generation) > world.manifest.release.abandoned_s
        evidence = target.evidence(known.generation, seen.route.trial)
        if not abandoned and release_requests.is_rolling_back(known, seen, evidence):
            raise Conflict(release_requests.ROLLING_BACK.format(version=version, to=known.release.version, by=known.by))
        return known.generation

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

    def _must_go_forward(self, context: Context, target: ServingTarget, version: str) -> None:
        """It goes back."""

    def _must_wait_for_nobody(self, world: WorldHook, target: ServingTarget, version: str) -> int | None:
        return None  # a rollback follows whatever was wanted

    def plan(self, manifest: Manifest, version: str, context: Context) -> Plan:
        return BLUE_GREEN  # nobody waits for a canary while a bad release serves

    def _why(self, blessing: Blessing) -> str:
        return "a person asked for it"

    def _version(self, context: Context, run: Edge, world: WorldHook) -> tuple[str, str]:
        live = world.target().observe().live.release
        return way_back(world.ledger().entries(kinds.RELEASE_LIVE), live, context["params"].get("version"))


class RolloutOperator(BaseOperator):
    """Takes step after step for one generation until the machine says DONE, REJECTED or SUPERSEDED, or asks a person.

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
                if self._note(taken, step, seconds):
                    self._tell_of_soak(world, run, step)
            if step.takes_looks:
                self._wait(world, rollout.pause(step), taken)
            evidence = world.target().verdicts(generation)
        for part, found in evidence.items():
            self.log.info("%s %s: %s", part, found["verdict"], found["why"])
        outcome = _outcome(step, evidence)
        summary = f"version {self.wish['version']} {_told(outcome, evidence)}"
        details = {**self.wish, "outcome": outcome, "steps": taken, "evidence": evidence}
        _write(world, kinds.name_outcome(outcome), run, self.wish["version"], summary, details)
        self.log.info("%s", summary)
        deliver()
        return {"verdict": ANSWERS.get(step, "no"), "summary": summary, "outputs": details}

    def _note(self, taken: list[list[Any]], step: Step, seconds: float) -> bool:
        """Whether it is another step than before: looks at one step are one line."""
        if taken and taken[-1][0] == step.value:
            taken[-1][1] = round(taken[-1][1] + seconds, 3)
            return False
        self.log.info("%s", step.value)
        taken.append([step.value, round(seconds, 3)])
        return True

    def _tell_of_soak(self, world: WorldHook, run: Edge, step: Step) -> None:
        """Soaking is a state with a name: it serves, and is not the champion yet. A rollback does not soak."""
        generation = int(self.wish["generation"])
        if step in (Step.SWITCH, Step.SOAK) and world.target().observe().route.trial == generation:
            why = f"for {world.manifest.release.soak_s:g} s, before it becomes the champion"
            details = {**self.wish, "evidence": world.target().verdicts(generation)}
            about = f"{generation}-{str(self.wish['digest'])[:12]}"
            _write(world, kinds.RELEASE_SOAKING, run, self.wish["version"], why, details, about)

    def _wait(self, world: WorldHook, interval: float, taken: list[list[Any]]) -> None:
        generation, step = int(self.wish["generation"]), taken[-1][0]
        self.log.info("%s goes on in the triggerer", step)
        if step == Step.SOAK.value:
            _mark_soaking(world, generation, self.wish["version"])
        deliver()
        trigger = PollTrigger("rollout", {"generation": generation}, interval)
        self.defer(trigger=trigger, method_name="go_on", kwargs={"taken": taken})


ANSWERS = {Step.DONE: "yes", Step.APPROVE: "ask"}


def _mark_soaking(world: WorldHook, generation: int, version: str) -> None:
    """For those who look at the registry; while it is away, the ledger and the log have to do."""
    if world.target().observe().route.trial != generation:
        return
    try:
        world.registry().mark_soaking(version)
    except Temporary as error:
        log.warning("The registry does not show that version %s is soaking: %s", version, error)


def _outcome(step: Step, evidence: dict[str, dict[str, str]]) -> str:
    if step is Step.REJECTED and SOAKED in evidence:
        return "reverted"
    return "asked" if step is Step.APPROVE else step.value


def _told(outcome: str, evidence: dict[str, dict[str, str]]) -> str:
    if outcome == "done":
        return "serves all traffic" + (_warning(evidence) if evidence else " already, so nothing was moved")
    if outcome == "superseded":
        return "gave way to a newer wish"
    if outcome == "asked":
        return "passed what machines can judge and waits for a person's yes"
    failed = [f"{part}: {found['why']}" for part, found in evidence.items() if found["verdict"] == Verdict.FAILED.value]
    return f"was {outcome}: {'; '.join(failed)}"


def _warning(evidence: dict[str, dict[str, str]]) -> str:
    """The very first release has nothing to revert to: it goes on serving, and says so."""
    why = soak_failed(evidence)
    return f", although {why}: there was no earlier version to go back to" if why else ""


def _write(
    world: WorldHook, what: str, run: Edge, subject: str, why: str, details: dict[str, Any], about: str | None = None
) -> None:
    """Once for what it is `about`; without that, once for the run."""
    key = f"{what}-{about or run.key}"
    record(world.ledger(), Entry(what=what, subject=subject, who=run.who, why=why, details=details, key=key))
