"""Drives one release: observe, ask `next_step`, do that one thing, look again.

The loop keeps nothing. Whatever it learns (accepted or not, soaked or not) is written beside the target as a verdict
before the next look, so a run that is killed anywhere is continued by any other run of the same generation.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from include.adapters.registry_mlflow import MlflowRegistry
from include.adapters.serving_local import LocalTarget
from include.core.errors import Conflict, RequestInvalid
from include.core.manifest import Manifest
from include.core.rollout import Colour, Observed, Step, Verdict, Wanted, next_step

log = logging.getLogger(__name__)
LOOK_AGAIN_S = 0.2


class Rollout:
    """`smoke_rows` are real rows of the newest snapshot, as a client would send them."""

    def __init__(
        self, target: LocalTarget, registry: MlflowRegistry, manifest: Manifest, smoke_rows: list[dict[str, Any]]
    ) -> None:
        self._target = target
        self._registry = registry
        self._manifest = manifest
        self._smoke_rows = smoke_rows
        self._act: dict[Step, Callable[[Wanted, Observed], None]] = {
            Step.STAGE: self._stage,
            Step.AWAIT: self._await,
            Step.VERIFY: self._verify,
            Step.SWITCH: lambda wanted, seen: self._target.switch(seen.idle, wanted),
            Step.SOAK: self._soak,
            Step.RETIRE: lambda wanted, seen: self._target.retire(wanted),
            Step.REVERT: lambda wanted, seen: self._target.revert(seen.idle, wanted),
            Step.DISCARD: lambda wanted, seen: self._target.discard(seen.idle, wanted),
        }

    def run(self, generation: int) -> Iterator[tuple[Step, float]]:
        """Yields every step with the seconds it took, the terminal one last."""
        while True:
            began = time.monotonic()
            step = self.advance(generation)
            yield step, time.monotonic() - began
            if step.is_terminal:
                return

    def advance(self, generation: int) -> Step:
        """One look and one step. A write refused by its fence is no error: the next look sees the newer wish."""
        wanted = self._target.wanted()
        if wanted is None:
            raise RequestInvalid("Nothing is wanted of this target; run the deploy DAG.")
        seen = self._target.observe()
        step = next_step(wanted, generation, seen, self._target.evidence(generation))
        try:
            self._act.get(step, _nothing)(wanted, seen)
        except Conflict as conflict:
            log.info("%s: %s", step.value, conflict)
        return step

    def _stage(self, wanted: Wanted, seen: Observed) -> None:
        kept = self._target.has_artifact(wanted.release.digest)
        if kept:
            return self._target.stage(seen.idle, wanted, kept)
        with tempfile.TemporaryDirectory() as scratch:
            fetched = self._registry.fetch(wanted.release.version, Path(scratch))
            self._target.stage(seen.idle, wanted, fetched)

    def _await(self, wanted: Wanted, seen: Observed) -> None:
        patience = self._manifest.serving.ready_timeout_s
        self._target.nudge(seen.idle)
        for _ in self._moments(wanted, patience, LOOK_AGAIN_S):
            if self._target.observe().slot(seen.idle).ready:
                return
            if refusal := self._target.refusal(seen.idle, wanted.release):
                return self._turn_down(wanted, f"slot {seen.idle} cannot serve it: {refusal}")
        if self._is_wanted(wanted):
            why = f"slot {seen.idle} was not ready within {patience:g} s: {self._target.why_not_ready(seen.idle)}"
            self._turn_down(wanted, why)
        return None

    def _turn_down(self, wanted: Wanted, why: str) -> None:
        self._target.record(wanted.generation, "accepted", Verdict.FAILED, why)

    def _verify(self, wanted: Wanted, seen: Observed) -> None:
        problem = self._smoke(seen.idle, wanted)
        verdict = Verdict.FAILED if problem else Verdict.PASSED
        self._target.record(wanted.generation, "accepted", verdict, problem or "smoke requests answered as expected")

    def _smoke(self, colour: Colour, wanted: Wanted) -> str | None:
        """Why the staged release must not go live, or None; real rows first, one by one, as a client would ask."""
        limit = self._manifest.serving.max_latency_ms
        for row in self._smoke_rows[: self._manifest.serving.smoke_rows]:
            began = time.perf_counter()
            try:
                answer = self._target.ask(colour, [row])
            except httpx.HTTPError as error:
                return f"a smoke request got no answer ({type(error).__name__})"
            problem = _answer_problem(answer, wanted)
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
        problem = _answer_problem(answer, wanted)
        if problem:
            return problem
        served = [prediction["probability"] for prediction in answer.json()["predictions"]]
        worst = max(abs(got - item["probability"]) for got, item in zip(served, golden, strict=True))
        if worst > self._manifest.serving.parity:
            return f"golden rows are missed by {worst:.2g}, serving.parity allows {self._manifest.serving.parity:g}"
        return None

    def _soak(self, wanted: Wanted, seen: Observed) -> None:
        spec, failures, probes = self._manifest.release, 0, 0
        for _ in self._moments(wanted, spec.soak_s, spec.soak_interval_s):
            probes += 1
            failures += not self._serves(wanted)
            if failures > spec.max_soak_failures:
                why = f"{failures} of {probes} probes failed while soaking"
                return self._target.record(wanted.generation, "soaked", Verdict.FAILED, why)
        if self._is_wanted(wanted):
            why = f"{probes} probes in {spec.soak_s:g} s, {failures} failed"
            self._target.record(wanted.generation, "soaked", Verdict.PASSED, why)
        return None

    def _serves(self, wanted: Wanted) -> bool:
        """Whether the proxy answers a real row, and does so with the wanted version."""
        try:
            return _answer_problem(self._target.ask(None, self._smoke_rows[:1]), wanted) is None
        except httpx.HTTPError:
            return False

    def _moments(self, wanted: Wanted, seconds: float, interval: float) -> Iterator[None]:
        """Moments until `seconds` have passed or a newer wish is stored; the clock is monotonic."""
        deadline = time.monotonic() + seconds
        while self._is_wanted(wanted):
            yield
            if time.monotonic() >= deadline:
                return
            time.sleep(interval)

    def _is_wanted(self, wanted: Wanted) -> bool:
        now = self._target.wanted()
        return now is not None and now.generation == wanted.generation


def _nothing(wanted: Wanted, seen: Observed) -> None:
    """Terminal steps change nothing."""


def _answer_problem(answer: httpx.Response, wanted: Wanted) -> str | None:
    if answer.status_code != 200:
        return f"a smoke request was answered {answer.status_code}: {_said(answer)}"
    content = answer.json()
    if str(content["version"]) != wanted.release.version:
        return f"version {content['version']} answered instead of {wanted.release.version}"
    if not all(math.isfinite(p["probability"]) and 0 <= p["probability"] <= 1 for p in content["predictions"]):
        return "a probability lies outside 0 to 1"
    return None


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
