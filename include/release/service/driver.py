"""Drives one release: observe, ask `next_step`, do that one thing, look again.

The loop keeps nothing. Whatever it learns (accepted or not, soaked or not) is written beside the target as a verdict
before the next look, so a run that is killed anywhere is continued by any other run of the same generation. What takes
time is done in many short looks, each of which notes how far it came: a worker, the triggerer or a person at a
terminal may take the next one.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from include.kernel.errors import Conflict, RequestInvalid
from include.kernel.words.colours import Colour
from include.kernel.words.verdicts import ACCEPTED, RECOVERED, SOAKED, Verdict
from include.model.row_groupings import list_groupings
from include.registry.base import ArtifactSource
from include.release.core.rollout import DesiredState, ObservedStatus, Release, Step, decide_next_step
from include.release.service import canary_analysis, experiment_analysis, shadow_analysis
from include.release.spec import ReleaseManifest

if TYPE_CHECKING:
    from include.release.service.experiment_outcomes import ExperimentOutcomes
    from include.release.targets.base import ServingTarget

log = logging.getLogger(__name__)
POLL_INTERVAL_S = 0.2
POLLS_PER_NUDGE = 25  # looks from one nudge of a slot to the next


class ReleaseDriver:
    """`smoke_rows` are real rows of the newest snapshot, as a client would send them."""

    def __init__(
        self,
        target: ServingTarget,
        registry: ArtifactSource,
        manifest: ReleaseManifest,
        smoke_rows: list[dict[str, Any]],
        open_outcomes: Callable[[], ExperimentOutcomes] | None = None,
    ) -> None:
        """`outcomes` opens what an experiment is judged by; nothing else needs it."""
        self._target = target
        self._open_outcomes = open_outcomes
        self._registry = registry
        self._manifest = manifest
        self._smoke_rows = smoke_rows
        self._actions: dict[Step, Callable[[DesiredState, ObservedStatus], None]] = {
            Step.STAGE: self._install_release,
            Step.AWAIT: self._await_slot,
            Step.VERIFY: self._verify_slot,
            Step.SHADOW: self._analyse_shadow,
            Step.EXPERIMENT: self._analyse_experiment,
            Step.CANARY: lambda wanted, seen: canary_analysis.analyse_canary(
                self._target, wanted, seen, manifest.release.canary
            ),
            Step.SWITCH: lambda wanted, seen: self._target.switch(seen.idle, wanted),
            Step.SOAK: self._probe_live,
            Step.RECOVER: self._recover_slot,
            Step.REVERT: lambda wanted, seen: self._target.revert(seen.idle, wanted),
            Step.WITHDRAW: lambda wanted, seen: self._target.withdraw(wanted),
            Step.DISCARD: lambda wanted, seen: self._target.discard(seen.idle, wanted),
        }

    def run(self, generation: int, max_wait_s: float = math.inf) -> Iterator[tuple[Step, float]]:
        """Yields every step with the seconds it took, the terminal one last; a step of many looks comes once for each.

        Ends early where such a step is not over after `patience` seconds, for somebody else to `follow`, and where a
        person is asked.
        """
        step, since = None, 0.0
        while step is None or not step.is_terminal:
            began = time.monotonic()
            current = self.advance(generation)
            yield current, time.monotonic() - began
            if current is Step.APPROVE:
                return
            step, since = current, since if current is step else began
            if step.is_polled:
                if time.monotonic() - since > max_wait_s or self.choose_poll_interval(step) > max_wait_s:
                    return
                time.sleep(self.choose_poll_interval(step))

    def choose_poll_interval(self, step: Step) -> float:
        """Seconds between two looks."""
        release = self._manifest.release
        intervals = {Step.SHADOW: release.shadow.look_s, Step.CANARY: release.canary.look_s}
        if self._manifest.experiment:
            intervals[Step.EXPERIMENT] = self._manifest.experiment.look_s
        return {Step.SOAK: release.soak_interval_s, **intervals}.get(step, POLL_INTERVAL_S)

    def advance(self, generation: int) -> Step:
        """One look and one step. A write refused by its fence is no error: the next look sees the newer request."""
        desired, observed, step = self._observe(generation)
        self._apply_step(step, desired, observed)
        return step

    def follow(self, generation: int) -> Step | None:
        """One look at a step that takes many of them; any other step is named and left to do. None: look again."""
        desired, observed, step = self._observe(generation)
        if not step.is_polled:
            return step
        self._apply_step(step, desired, observed)
        return None

    def _observe(self, generation: int) -> tuple[DesiredState, ObservedStatus, Step]:
        desired = self._target.read_desired_state()
        if desired is None:
            raise RequestInvalid("Nothing is wanted of this target; run the deploy DAG.")
        observed = self._target.observe()
        return (
            desired,
            observed,
            decide_next_step(
                desired, generation, observed, self._target.read_evidence(generation, observed.route.trial)
            ),
        )

    def _apply_step(self, step: Step, desired: DesiredState, observed: ObservedStatus) -> None:
        try:
            self._actions.get(step, _skip_step)(desired, observed)
        except Conflict as conflict:
            log.info("%s: %s", step.value, conflict)

    def _install_release(self, desired: DesiredState, observed: ObservedStatus) -> None:
        artifact = self._target.find_artifact(desired.release.digest)
        if artifact:
            return self._target.install_release(observed.idle, desired, artifact)
        with tempfile.TemporaryDirectory() as scratch:
            download = self._registry.fetch(desired.release.version, Path(scratch))
            self._target.install_release(observed.idle, desired, download)

    def _await_slot(self, desired: DesiredState, observed: ObservedStatus) -> None:
        if refusal := self._target.explain_refusal(observed.idle, desired.release):
            return self._reject(desired, f"slot {observed.idle} cannot serve it: {refusal}")
        if timeout_reason := self._poll_slot(desired.generation, "awaited", observed.idle):
            return self._reject(desired, timeout_reason)
        return None

    def _recover_slot(self, desired: DesiredState, observed: ObservedStatus) -> None:
        if timeout_reason := self._poll_slot(observed.route.trial, "recovering", observed.idle):
            self._target.record_verdict(observed.route.trial, RECOVERED, Verdict.FAILED, timeout_reason)

    def _poll_slot(self, generation: int, part: str, colour: Colour) -> str | None:
        """One look at a slot that is not ready; why to give up on it, once patience is at its end."""
        timeout_s, polls = self._manifest.serving.ready_timeout_s, self._count_poll(generation, part)
        if polls % POLLS_PER_NUDGE == 1:
            self._target.nudge(colour)
        if polls * POLL_INTERVAL_S < timeout_s:
            return None
        return f"slot {colour} was not ready within {timeout_s:g} s: {self._target.explain_not_ready(colour)}"

    def _count_poll(self, generation: int, part: str) -> int:
        """Counts looks, not seconds: a clock that was set, or a run that was away, must not end anybody's patience."""
        polls = int(self._target.read_progress(generation, part).get("looks", 0)) + 1
        self._target.record_progress(generation, part, {"looks": polls})
        return polls

    def _reject(self, desired: DesiredState, why: str) -> None:
        self._target.record_verdict(desired.generation, ACCEPTED, Verdict.FAILED, why)

    def _verify_slot(self, desired: DesiredState, observed: ObservedStatus) -> None:
        self._target.isolate(desired)
        self._target.record_progress(desired.generation, "awaited", {})  # a slot that dies later is waited for anew
        problem = self._run_smoke_requests(observed.idle, desired)
        verdict = Verdict.FAILED if problem else Verdict.PASSED
        self._target.record_verdict(
            desired.generation, ACCEPTED, verdict, problem or "smoke requests answered as expected"
        )

    def _run_smoke_requests(self, colour: Colour, desired: DesiredState) -> str | None:
        """Why the staged release must not go live, or None; real rows first, one by one, as a client would ask."""
        limit = self._manifest.serving.max_latency_ms
        for row in self._smoke_rows[: self._manifest.serving.smoke_rows]:
            began = time.perf_counter()
            try:
                answer = self._target.fetch_predictions(colour, [row])
            except httpx.HTTPError as error:
                return f"a smoke request got no answer ({type(error).__name__})"
            problem = _find_answer_problem(answer, desired.release)
            duration_ms = (time.perf_counter() - began) * 1000
            if not problem and duration_ms > limit:
                problem = f"a smoke request took {duration_ms:.0f} ms, serving.max_latency_ms is {limit:g}"
            if problem:
                return problem
        return self._check_golden_rows(colour, desired)

    def _check_golden_rows(self, colour: Colour, desired: DesiredState) -> str | None:
        golden_rows = self._target.read_golden_rows(desired.release.digest)[: self._manifest.serving.smoke_rows]
        if not golden_rows:
            return None
        for asked in ([golden_rows[position] for position in group] for group in list_groupings(len(golden_rows))):
            answer = self._target.fetch_predictions(colour, [item["row"] for item in asked])
            if problem := _find_answer_problem(answer, desired.release):
                return problem
            served = [prediction["probability"] for prediction in answer.json()["predictions"]]
            worst = max(abs(got - item["probability"]) for got, item in zip(served, asked, strict=True))
            if worst > self._manifest.serving.parity:
                together = "" if asked == golden_rows else " when they are asked alone or in other company"
                allowed = self._manifest.serving.parity
                return f"golden rows are missed by {worst:.2g}{together}, serving.parity allows {allowed:g}"
        return None

    def _analyse_experiment(self, desired: DesiredState, observed: ObservedStatus) -> None:
        if self._open_outcomes is None:
            raise RequestInvalid("An experiment needs the prediction log; set EVERGREEN_STORE where this runs.")
        experiment_analysis.analyse_experiment(self._target, desired, observed, self._manifest, self._open_outcomes())

    def _analyse_shadow(self, desired: DesiredState, observed: ObservedStatus) -> None:
        shadow_analysis.analyse_shadow(self._target, desired, observed, self._manifest)

    def _probe_live(self, desired: DesiredState, observed: ObservedStatus) -> None:
        """One probe of what is live. Its generation is the one on trial, which need not be that of this run."""
        spec, trial = self._manifest.release, observed.route.trial
        progress = self._target.read_progress(trial, "soaking")
        probes = progress.get("probes", 0) + 1
        failures = progress.get("failures", 0) + (not self._is_served(observed.live.release))
        self._target.record_progress(trial, "soaking", {"probes": probes, "failures": failures})
        if failures > spec.max_soak_failures:
            self._target.record_verdict(
                trial, SOAKED, Verdict.FAILED, f"{failures} of {probes} probes failed while soaking"
            )
        elif probes * spec.soak_interval_s >= spec.soak_s:
            why = f"{probes} probes in {spec.soak_s:g} s, {failures} failed"
            self._target.record_verdict(trial, SOAKED, Verdict.PASSED, why)

    def _is_served(self, release: Release | None) -> bool:
        """Whether the proxy answers a real row, and does so with the version that is live."""
        try:
            answer = self._target.fetch_predictions(None, self._smoke_rows[:1])
        except httpx.HTTPError:
            return False
        return release is not None and _find_answer_problem(answer, release) is None


def _skip_step(desired: DesiredState, observed: ObservedStatus) -> None:
    """Terminal steps change nothing."""


def _find_answer_problem(answer: httpx.Response, release: Release) -> str | None:
    if answer.status_code != 200:
        return f"a smoke request was answered {answer.status_code}: {_read_error_message(answer)}"
    content = answer.json()
    if str(content["version"]) != release.version:
        return f"version {content['version']} answered instead of {release.version}"
    if not all(math.isfinite(p["probability"]) and 0 <= p["probability"] <= 1 for p in content["predictions"]):
        return "a probability lies outside 0 to 1"
    return None


def _read_error_message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
