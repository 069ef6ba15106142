"""`make rollback`: the DAG of that name without Airflow, for when a second counts or Airflow is what is down.

The same wish, the same machine, the same ledger. The champion alias moves if MLflow answers; if it does not, the
traffic has moved all the same, and the next run of the monitor moves the alias (`make reconcile` does it at once). What
people are to be told waits in the outbox for the next task that has Airflow's Connections.

Most of the time until the traffic moves is Python loading modules, while a bad release serves. So this module takes no
more than it needs: no command-line library, no screen, nothing of the stack but its settings and secrets. httpx would
load such libraries for a command of its own, and looking for garbage among what was just loaded finds none: without
both a quarter of the time is gone.
"""

from __future__ import annotations

import argparse
import gc
import getpass
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

from include.kernel.blocked_imports import lean_imports
from include.kernel.words import ledger_kinds as kinds

if __name__ == "__main__":
    gc.disable()
    with lean_imports(("click", "pygments", "rich")):
        import httpx  # noqa: F401

from include import factory
from include.alerting.outbox import record
from include.embedded import environment
from include.embedded.credentials import credentials
from include.embedded.settings import EmbeddedSettings
from include.kernel.errors import EvergreenError, Temporary
from include.kernel.ledger import Entry, live_key
from include.model.blessing import blessing as blessings
from include.release.core.rollback_target import way_back
from include.release.core.rollout import Release, Step, Wanted

TURNED_DOWN = 65


@dataclass(frozen=True)
class Told:
    wanted: Wanted
    step: Step
    seconds: float


def main() -> int:
    """0 when the version serves, 65 when it was turned down, 75 when something is away."""
    asked = argparse.ArgumentParser(description="All traffic back to an earlier version.")
    asked.add_argument("--version", default="", help="empty: the last other one that served")
    asked.add_argument("--why", default="a person asked for it", help="it goes to the ledger")
    given, began, settings = asked.parse_args(), time.monotonic(), EmbeddedSettings()
    os.environ.update(environment.task(settings, credentials(settings.home)))
    try:
        told = roll_back(given.version, given.why, settings.trusted_keys.read_text())
    except EvergreenError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"Version {told.wanted.release.version}: {told.step.value}, {time.monotonic() - began:.1f} s in all.")
    return 0 if told.step is Step.DONE else TURNED_DOWN


def roll_back(version: str, why: str, trusted: str) -> Told:
    """Wants the version and follows the release machine to its end."""
    began, target, book = time.monotonic(), factory.target(), factory.ledger()
    found, envelope = way_back(book.entries(kinds.RELEASE_LIVE), target.observe().live.release, version or None)
    blessing = blessings.verify(envelope, blessings.public_keys(trusted), factory.manifest().name, found)
    who, release = f"{getpass.getuser()} by make rollback", Release(found, blessing.digest)
    wanted = target.want(release, by=f"{who} {time.time_ns()}", why=why, kind="rollback", blessing=envelope)
    details = {"generation": wanted.generation, "digest": release.digest, "blessing": envelope}
    _write(kinds.ROLLBACK_WANTED, found, who, why, details)
    steps = [(step, _say(step, seconds)) for step, seconds in factory.rollout().run(wanted.generation)]
    last = steps[-1][0]
    ended = {**details, "outcome": last.value, "steps": steps, "evidence": target.verdicts(wanted.generation)}
    _write(kinds.name_outcome(last.value), found, who, why, ended)
    if last is Step.DONE:
        _write(kinds.RELEASE_LIVE, found, who, why, ended, live_key(ended))
        _move_alias(found)
    return Told(wanted, last, time.monotonic() - began)


def _write(what: str, version: str, who: str, why: str, details: dict[str, Any], key: str | None = None) -> None:
    entry = Entry(what=what, subject=version, who=who, why=why, details=details, key=key)
    record(factory.ledger(), factory.outbox(), entry)


def _say(step: Step, seconds: float) -> float:
    print(f"{step.value:10} {seconds:6.2f} s", flush=True)
    return round(seconds, 3)


def _move_alias(version: str) -> None:
    try:
        factory.registry().promote(version)
    except Temporary as error:
        print(f"The champion alias was not moved: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
