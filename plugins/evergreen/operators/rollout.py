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

from evergreen.errors import translate_errors
from evergreen.hooks.connections import ConnectionsHook
from evergreen.hooks.notifiers import deliver, record
from evergreen.results import require_result
from evergreen.run_context import RunContext, read_run_context
from evergreen.triggers.poll import PollTrigger
from include.alerting.core.alert_rules import explain_failed_soak
from include.kernel.errors import Conflict, Permanent, RequestInvalid, Temporary
from include.kernel.ledger import Entry
from include.kernel.words import ledger_kinds as kinds
from include.kernel.words.verdicts import SOAKED, Verdict
from include.manifest import Manifest
from include.model.blessing.blessing import Blessing, compute_envelope_digest
from include.release.core import release_history, release_plan, release_requests
from include.release.core.rollback_target import find_rollback_target
from include.release.core.rollout import BLUE_GREEN, Release, ReleasePlan, Step

if TYPE_CHECKING:
    from include.release.targets.base import ServingTarget

log = logging.getLogger(__name__)
Kind = Literal["deploy", "rollback"]
WORKER_WAIT_S = 10.0


class RequestReleaseOperator(BaseOperator):
    """Deploy: stores a release request for a blessed version, that of the Param or of the model.blessed event."""

    ui_color = "#e6dcf3"
    kind: Kind = "deploy"

    def choose_plan(self, manifest: Manifest, version: str, context: Context) -> ReleasePlan:
        return release_plan.build_plan(manifest, version, bool(context["params"].get("experiment")))

    def execute(self, context: Context) -> dict[str, Any]:
        run, hook = read_run_context(context), ConnectionsHook()
        version = str(context["params"].get("version") or run.extra.get("version") or "none")
        with translate_errors(), self._record_refusals(run, hook, version):
            return self._submit_request(context, run, hook)

    def _submit_request(self, context: Context, run: RunContext, hook: ConnectionsHook) -> dict[str, Any]:
        version, envelope = self._choose_version(context, run, hook)
        blessing, target = hook.verify_blessing(version, envelope), hook.open_target()
        release, live = Release(version, blessing.digest), target.observe().live.release
        self._must_ask_once(hook, target, run)
        self._must_go_forward(context, hook, live, release)
        why = context["params"].get("why") or self._explain_request(blessing)
        plan = self.choose_plan(hook.manifest, version, context)
        expected = self._check_no_rollback(hook, target, version)
        desired = target.request_release(release, run.who, why, self.kind, expected, envelope, plan)
        details = {"generation": desired.generation, "blessing": compute_envelope_digest(envelope)}
        details |= release_history.describe_left(live) if self.kind == "rollback" else {}
        _record_entry(hook, kinds.name_wanted(self.kind), run, version, why, details)
        if self.kind == "deploy":  # of a rollback is told when the traffic has moved
            deliver()
        self.log.info("version %s is wanted (generation %d): %s", version, desired.generation, why)
        return {"generation": desired.generation, "version": version, "digest": release.digest, "blessing": envelope}

    @contextmanager
    def _record_refusals(self, run: RunContext, hook: ConnectionsHook, version: str) -> Iterator[None]:
        """What was refused for good is told, not only shown as a failed task."""
        try:
            yield
        except Permanent as error:
            _record_entry(hook, kinds.name_refused(self.kind), run, version, str(error), {})
            deliver()
            raise

    def _must_ask_once(self, hook: ConnectionsHook, target: ServingTarget, run: RunContext) -> None:
        """A task that is cleared on an old run must not undo what was wanted since."""
        desired, what = target.read_desired_state(), kinds.name_wanted(self.kind)
        if desired is None or desired.by == run.who:
            return
        entries = hook.open_ledger().read_entries(what)
        asked = release_history.find_followed_request(entries, f"{what}-{run.key}", desired.generation)
        if asked:
            raise AirflowSkipException(
                f"This run asked for version {asked.subject} already, and {desired.by} for version "
                f"{desired.release.version} since; trigger a new run if it is meant."
            )

    def _must_go_forward(self, context: Context, hook: ConnectionsHook, live: Release | None, release: Release) -> None:
        """An event for what is older than the live version, or was turned down, is let go; the form takes any."""
        if context["params"].get("version"):
            return
        if live and release_requests.is_older(release.version, live.version):
            raise AirflowSkipException(
                release_requests.STALE_REQUEST.format(version=release.version, live=live.version)
            )
        history = _read_history(hook)
        if turned_down := history.turned_down.get(release.digest):
            why, run = turned_down.explain(), read_run_context(context)
            _record_entry(hook, kinds.name_refused(self.kind), run, release.version, why, {})
            deliver()
            raise AirflowSkipException(why)

    def _check_no_rollback(self, hook: ConnectionsHook, target: ServingTarget, version: str) -> int | None:
        """The generation that may be followed by a deployment; raises `Conflict` while a rollback is under way."""
        desired = target.read_desired_state()
        if desired is None:
            return None
        observed = target.observe()
        abandoned = target.measure_idle_s(desired.generation) > hook.manifest.release.abandoned_s
        evidence = target.read_evidence(desired.generation, observed.route.trial)
        if not abandoned and release_requests.is_rolling_back(desired, observed, evidence):
            raise Conflict(
                release_requests.ROLLBACK_UNDER_WAY.format(version=version, to=desired.release.version, by=desired.by)
            )
        return desired.generation

    def _explain_request(self, blessing: Blessing) -> str:
        return blessing.gate

    def _choose_version(self, context: Context, run: RunContext, hook: ConnectionsHook) -> tuple[str, str]:
        """The version that is wanted, and its blessing as signed; not yet verified."""
        version = context["params"].get("version") or run.extra.get("version")
        if not version:
            raise RequestInvalid("deploy needs a version: fill in the form's version, or let the train DAG bless one.")
        return str(version), hook.open_registry().fetch_blessing(str(version))


class RequestRollbackOperator(RequestReleaseOperator):
    """Rollback: stores a release request for the version of the Param, or the last one that really served before this.

    It needs the ledger alone, which keeps each version's blessing too, so it works while the registry is down.
    """

    kind: Kind = "rollback"

    def _must_go_forward(self, context: Context, hook: ConnectionsHook, live: Release | None, release: Release) -> None:
        """A rollback goes to an older version by intention, so there is nothing to check."""

    def _check_no_rollback(self, hook: ConnectionsHook, target: ServingTarget, version: str) -> int | None:
        return None  # a rollback follows whatever was wanted

    def choose_plan(self, manifest: Manifest, version: str, context: Context) -> ReleasePlan:
        return BLUE_GREEN  # nobody waits for a canary while a bad release serves

    def _explain_request(self, blessing: Blessing) -> str:
        return "a person asked for it"

    def _choose_version(self, context: Context, run: RunContext, hook: ConnectionsHook) -> tuple[str, str]:
        live = hook.open_target().observe().live.release
        history = _read_history(hook)
        return find_rollback_target(history, live, context["params"].get("version"))


class RolloutOperator(BaseOperator):
    """Takes step after step for one generation until the machine says DONE, REJECTED or SUPERSEDED, or asks a person.

    What takes long (a canary, a soak, a slot that starts slowly) is left to the triggerer, so that no worker waits.
    What is over within WORTH_A_WORKER_S is not: going there and back costs about that long.
    """

    template_fields: Sequence[str] = ("release_request",)
    ui_color = "#e6dcf3"

    def __init__(self, *, release_request: Any, **options: Any) -> None:
        super().__init__(**options)
        self.release_request = release_request

    def execute(self, context: Context) -> dict[str, Any]:
        require_result(self.release_request, "generation", "version", "digest", "blessing", task_id="want")
        with translate_errors():  # again, since what lies between two tasks is no safe place
            ConnectionsHook().verify_blessing(
                self.release_request["version"], self.release_request["blessing"], self.release_request["digest"]
            )
        return self.go_on(context, None, [])

    def go_on(self, context: Context, event: Any, taken: list[list[Any]]) -> dict[str, Any]:
        """`taken`: the steps before the triggerer took over; lists, since XCom hands tuples back as its own objects."""
        run, hook, generation = read_run_context(context), ConnectionsHook(), int(self.release_request["generation"])
        with translate_errors():
            driver = hook.open_driver()
            for step, seconds in driver.run(generation, max_wait_s=WORKER_WAIT_S):
                if self._record_step(taken, step, seconds):
                    self._announce_soak(hook, run, step)
            if step.is_polled:
                self._defer_to_trigger(hook, driver.choose_poll_interval(step), taken)
            evidence = hook.open_target().read_verdicts(generation)
        for part, verdict in evidence.items():
            self.log.info("%s %s: %s", part, verdict["verdict"], verdict["why"])
        outcome = _choose_outcome(step, evidence)
        summary = f"version {self.release_request['version']} {_describe_outcome(outcome, evidence)}"
        details = {**self.release_request, "outcome": outcome, "steps": taken, "evidence": evidence}
        _record_entry(hook, kinds.name_outcome(outcome), run, self.release_request["version"], summary, details)
        deliver()
        self.log.info("%s", summary)
        return {"verdict": STEP_VERDICTS.get(step, "no"), "summary": summary, "outputs": details}

    def _record_step(self, taken: list[list[Any]], step: Step, seconds: float) -> bool:
        """Whether it is another step than before: looks at one step are one line."""
        if taken and taken[-1][0] == step.value:
            taken[-1][1] = round(taken[-1][1] + seconds, 3)
            return False
        self.log.info("%s", step.value)
        taken.append([step.value, round(seconds, 3)])
        return True

    def _announce_soak(self, hook: ConnectionsHook, run: RunContext, step: Step) -> None:
        """Soaking is a state with a name: it serves, and is not the champion yet. A rollback does not soak."""
        generation = int(self.release_request["generation"])
        if step in (Step.SWITCH, Step.SOAK) and hook.open_target().observe().route.trial == generation:
            why = f"for {hook.manifest.release.soak_s:g} s, before it becomes the champion"
            details = {**self.release_request, "evidence": hook.open_target().read_verdicts(generation)}
            about = f"{generation}-{str(self.release_request['digest'])[:12]}"
            _record_entry(hook, kinds.RELEASE_SOAKING, run, self.release_request["version"], why, details, about)

    def _defer_to_trigger(self, hook: ConnectionsHook, interval: float, taken: list[list[Any]]) -> None:
        generation, step = int(self.release_request["generation"]), taken[-1][0]
        self.log.info("%s goes on in the triggerer", step)
        if step == Step.SOAK.value:
            _mark_soaking(hook, generation, self.release_request["version"])
        deliver()
        trigger = PollTrigger("rollout", {"generation": generation}, interval)
        self.defer(trigger=trigger, method_name="go_on", kwargs={"taken": taken})


STEP_VERDICTS = {Step.DONE: "yes", Step.APPROVE: "ask"}


def _mark_soaking(hook: ConnectionsHook, generation: int, version: str) -> None:
    """For those who look at the registry; while it is away, the ledger and the log have to do."""
    if hook.open_target().observe().route.trial != generation:
        return
    try:
        hook.open_registry().mark_soaking(version)
    except Temporary as error:
        log.warning("The registry does not show that version %s is soaking: %s", version, error)


def _read_history(hook: ConnectionsHook) -> release_history.ReleaseHistory:
    return release_history.read_release_history(hook.open_ledger().read_entries(*release_history.TOLD_KINDS))


def _choose_outcome(step: Step, evidence: dict[str, dict[str, str]]) -> str:
    if step is Step.REJECTED and SOAKED in evidence:
        return "reverted"
    return "asked" if step is Step.APPROVE else step.value


def _describe_outcome(outcome: str, evidence: dict[str, dict[str, str]]) -> str:
    if outcome == "done":
        return "serves all traffic" + (
            _describe_failed_soak(evidence) if evidence else " already, so nothing was moved"
        )
    if outcome == "superseded":
        return "gave way to a newer request"
    if outcome == "asked":
        return "passed what machines can judge and waits for a person's yes"
    failed = [
        f"{part}: {verdict['why']}" for part, verdict in evidence.items() if verdict["verdict"] == Verdict.FAILED.value
    ]
    return f"was {outcome}: {'; '.join(failed)}"


def _describe_failed_soak(evidence: dict[str, dict[str, str]]) -> str:
    """The very first release has nothing to revert to: it goes on serving, and says so."""
    why = explain_failed_soak(evidence)
    return f", although {why}: there was no earlier version to go back to" if why else ""


def _record_entry(
    hook: ConnectionsHook,
    what: str,
    run: RunContext,
    subject: str,
    why: str,
    details: dict[str, Any],
    about: str | None = None,
) -> None:
    """Once for what it is `about`; without that, once for the run."""
    key = f"{what}-{about or run.key}"
    record(hook.open_ledger(), Entry(what=what, subject=subject, who=run.who, why=why, details=details, key=key))
