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
from include.kernel.words.verdicts import ACCEPTED, RECOVERED, SOAKED
from include.registry.base import ArtifactSource
from include.release.core.rollout import Colour, Observed, Release, Step, Verdict, Wanted, next_step
from include.release.service import canary_analysis, experiment_analysis, shadow_analysis
from include.release.spec import ReleaseManifest

if TYPE_CHECKING:
    from include.release.service.experiment_outcomes import ExperimentOutcomes
    from include.release.targets.base import ServingTarget

log = logging.getLogger(__name__)
LOOK_AGAIN_S = 0.2
NUDGES = 25  # looks from one nudge of a slot to the next


class Rollout:
    """`smoke_rows` are real rows of the newest snapshot, as a client would send them."""

    def __init__(
        self,
        target: ServingTarget,
        registry: ArtifactSource,
        manifest: ReleaseManifest,
        smoke_rows: list[dict[str, Any]],
        outcomes: Callable[[], ExperimentOutcomes] | None = None,
    ) -> None:
        """`outcomes` opens what an experiment is judged by; nothing else needs it."""
        self._target = target
        self._outcomes = outcomes
        self._registry = registry
        self._manifest = manifest
        self._smoke_rows = smoke_rows
        self._act: dict[Step, Callable[[Wanted, Observed], None]] = {
            Step.STAGE: self._stage,
            Step.AWAIT: self._await,
            Step.VERIFY: self._verify,
            Step.SHADOW: self._shadow,
            Step.EXPERIMENT: self._experiment,
            Step.CANARY: lambda wanted, seen: canary_analysis.look(self._target, wanted, seen, manifest.release.canary),
            Step.SWITCH: lambda wanted, seen: self._target.switch(seen.idle, wanted),
            Step.SOAK: self._soak,
            Step.RECOVER: self._recover,
            Step.REVERT: lambda wanted, seen: self._target.revert(seen.idle, wanted),
            Step.WITHDRAW: lambda wanted, seen: self._target.withdraw(wanted),
            Step.DISCARD: lambda wanted, seen: self._target.discard(seen.idle, wanted),
        }

    def run(self, generation: int, patience: float = math.inf) -> Iterator[tuple[Step, float]]:
        """Yields every step with the seconds it took, the terminal one last; a step of many looks comes once for each.

        Ends early where such a step is not over after `patience` seconds, for somebody else to `follow`, and where a
        person is asked.
        """
        step, since = None, 0.0
        while step is None or not step.is_terminal:
            began = time.monotonic()
            now = self.advance(generation)
            yield now, time.monotonic() - began
            if now is Step.APPROVE:
                return
            step, since = now, since if now is step else began
            if step.takes_looks:
                if time.monotonic() - since > patience or self.pause(step) > patience:
                    return
                time.sleep(self.pause(step))

    def pause(self, step: Step) -> float:
        """Seconds between two looks."""
        release = self._manifest.release
        looks = {Step.SHADOW: release.shadow.look_s, Step.CANARY: release.canary.look_s}
        if self._manifest.experiment:
            looks[Step.EXPERIMENT] = self._manifest.experiment.look_s
        return {Step.SOAK: release.soak_interval_s, **looks}.get(step, LOOK_AGAIN_S)

    def advance(self, generation: int) -> Step:
        """One look and one step. A write refused by its fence is no error: the next look sees the newer wish."""
        wanted, seen, step = self._look(generation)
        self._do(step, wanted, seen)
        return step

    def follow(self, generation: int) -> Step | None:
        """One look at a step that takes many of them; any other step is named and left to do. None: look again."""
        wanted, seen, step = self._look(generation)
        if not step.takes_looks:
            return step
        self._do(step, wanted, seen)
        return None

    def _look(self, generation: int) -> tuple[Wanted, Observed, Step]:
        wanted = self._target.wanted()
        if wanted is None:
            raise RequestInvalid("Nothing is wanted of this target; run the deploy DAG.")
        seen = self._target.observe()
        return wanted, seen, next_step(wanted, generation, seen, self._target.evidence(generation, seen.route.trial))

    def _do(self, step: Step, wanted: Wanted, seen: Observed) -> None:
        try:
            self._act.get(step, _nothing)(wanted, seen)
        except Conflict as conflict:
            log.info("%s: %s", step.value, conflict)

    def _stage(self, wanted: Wanted, seen: Observed) -> None:
        kept = self._target.has_artifact(wanted.release.digest)
        if kept:
            return self._target.stage(seen.idle, wanted, kept)
        with tempfile.TemporaryDirectory() as scratch:
            fetched = self._registry.fetch(wanted.release.version, Path(scratch))
            self._target.stage(seen.idle, wanted, fetched)

    def _await(self, wanted: Wanted, seen: Observed) -> None:
        if refusal := self._target.refusal(seen.idle, wanted.release):
            return self._turn_down(wanted, f"slot {seen.idle} cannot serve it: {refusal}")
        if late := self._awaited(wanted.generation, "awaited", seen.idle):
            return self._turn_down(wanted, late)
        return None

    def _recover(self, wanted: Wanted, seen: Observed) -> None:
        if late := self._awaited(seen.route.trial, "recovering", seen.idle):
            self._target.record(seen.route.trial, RECOVERED, Verdict.FAILED, late)

    def _awaited(self, generation: int, part: str, colour: Colour) -> str | None:
        """One look at a slot that is not ready; why to give up on it, once patience is at its end."""
        patience, looks = self._manifest.serving.ready_timeout_s, self._looked(generation, part)
        if looks % NUDGES == 1:
            self._target.nudge(colour)
        if looks * LOOK_AGAIN_S < patience:
            return None
        return f"slot {colour} was not ready within {patience:g} s: {self._target.why_not_ready(colour)}"

    def _looked(self, generation: int, part: str) -> int:
        """Counts looks, not seconds: a clock that was set, or a run that was away, must not end anybody's patience."""
        looks = int(self._target.progress(generation, part).get("looks", 0)) + 1
        self._target.note(generation, part, {"looks": looks})
        return looks

    def _turn_down(self, wanted: Wanted, why: str) -> None:
        self._target.record(wanted.generation, ACCEPTED, Verdict.FAILED, why)

    def _verify(self, wanted: Wanted, seen: Observed) -> None:
        self._target.isolate(wanted)
        self._target.note(wanted.generation, "awaited", {})  # a slot that dies later is waited for anew
        problem = self._smoke(seen.idle, wanted)
        verdict = Verdict.FAILED if problem else Verdict.PASSED
        self._target.record(wanted.generation, ACCEPTED, verdict, problem or "smoke requests answered as expected")

    def _smoke(self, colour: Colour, wanted: Wanted) -> str | None:
        """Why the staged release must not go live, or None; real rows first, one by one, as a client would ask."""
        limit = self._manifest.serving.max_latency_ms
        for row in self._smoke_rows[: self._manifest.serving.smoke_rows]:
            began = time.perf_counter()
            try:
                answer = self._target.ask(colour, [row])
            except httpx.HTTPError as error:
                return f"a smoke request got no answer ({type(error).__name__})"
            problem = _answer_problem(answer, wanted.release)
            took = (time.perf_counter() - began) * 1000
            if not problem and took > limit:
                problem = f"a smoke request took {took:.0f} ms, serving.max_latency_ms is {limit:g}"
            if problem:
                return problem
        return self._golden(colour, wanted)

    def _golden(self, colour: Colour, wanted: Wanted) -> str | None:
        golden = self._target.golden(wanted.release.digest)[: self._manifest.serving.smoke_rows]
        if not golden:
            return None
        answer = self._target.ask(colour, [item["row"] for item in golden])
        problem = _answer_problem(answer, wanted.release)
        if problem:
            return problem
        served = [prediction["probability"] for prediction in answer.json()["predictions"]]
        worst = max(abs(got - item["probability"]) for got, item in zip(served, golden, strict=True))
        if worst > self._manifest.serving.parity:
            return f"golden rows are missed by {worst:.2g}, serving.parity allows {self._manifest.serving.parity:g}"
        return None

    def _experiment(self, wanted: Wanted, seen: Observed) -> None:
        if self._outcomes is None:
            raise RequestInvalid("An experiment needs the prediction log; set EVERGREEN_STORE where this runs.")
        experiment_analysis.look(self._target, wanted, seen, self._manifest, self._outcomes())

    def _shadow(self, wanted: Wanted, seen: Observed) -> None:
        shadow_analysis.look(self._target, wanted, seen, self._manifest)

    def _soak(self, wanted: Wanted, seen: Observed) -> None:
        """One probe of what is live. Its generation is the one on trial, which need not be that of this run."""
        spec, trial = self._manifest.release, seen.route.trial
        so_far = self._target.progress(trial, "soaking")
        probes = so_far.get("probes", 0) + 1
        failures = so_far.get("failures", 0) + (not self._serves(seen.live.release))
        self._target.note(trial, "soaking", {"probes": probes, "failures": failures})
        if failures > spec.max_soak_failures:
            self._target.record(trial, SOAKED, Verdict.FAILED, f"{failures} of {probes} probes failed while soaking")
        elif probes * spec.soak_interval_s >= spec.soak_s:
            why = f"{probes} probes in {spec.soak_s:g} s, {failures} failed"
            self._target.record(trial, SOAKED, Verdict.PASSED, why)

    def _serves(self, release: Release | None) -> bool:
        """Whether the proxy answers a real row, and does so with the version that is live."""
        try:
            answer = self._target.ask(None, self._smoke_rows[:1])
        except httpx.HTTPError:
            return False
        return release is not None and _answer_problem(answer, release) is None


def _nothing(wanted: Wanted, seen: Observed) -> None:
    """Terminal steps change nothing."""


def _answer_problem(answer: httpx.Response, release: Release) -> str | None:
    if answer.status_code != 200:
        return f"a smoke request was answered {answer.status_code}: {_said(answer)}"
    content = answer.json()
    if str(content["version"]) != release.version:
        return f"version {content['version']} answered instead of {release.version}"
    if not all(math.isfinite(p["probability"]) and 0 <= p["probability"] <= 1 for p in content["predictions"]):
        return "a probability lies outside 0 to 1"
    return None


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
