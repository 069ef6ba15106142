"""A list of cases, run and told one by one: what the proofs of this folder are made of.

A case is a function that raises when something did not hold. One that breaks ends itself and no other.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

WORKERS = 2
Story = Callable[[], None]
Named = tuple[str, Story]


@dataclass
class Outcomes:
    """Cases by name as they end, told as they go, and the figures the last line is made of."""

    console: Console = field(default_factory=lambda: Console(width=160, highlight=False))
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, stories: Sequence[Named], workers: int = WORKERS) -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda named: self._one(*named), stories))

    def largest(self, figure: str, value: float) -> None:
        """Keeps the largest value any case saw."""
        with self._lock:
            self.figures[figure] = max(self.figures.get(figure, value), value)

    def _one(self, name: str, story: Story) -> None:
        began, problem = time.monotonic(), ""
        try:
            story()
        except Exception as error:  # a case that breaks in an unforeseen way has failed like any other
            problem = f"{type(error).__name__}: {error}"
        with self._lock:
            self.passed += not problem
            self.failed += [name] * bool(problem)
            self.console.print(
                f"{'FAIL' if problem else 'ok  '} {time.monotonic() - began:5.1f} s  {name}", markup=False
            )
            if problem:
                self.console.print(f"       {problem}", markup=False)

    def end(self, seconds: float) -> int:
        """The last line, in JSON, and the exit code: 0 if there were cases and every one of them passed."""
        cases = self.passed + len(self.failed)
        ok = cases > 0 and not self.failed
        told = {"ok": ok, "cases": cases, "passed": self.passed, **self.figures, "failed": self.failed}
        print(json.dumps({**told, "seconds": round(seconds, 1)}))
        return 0 if ok else 1


class Unheld(AssertionError):
    """A guarantee did not hold: what a case is there to find."""


def must(held: bool, problem: str) -> None:
    if not held:
        raise Unheld(problem)
