"""`make rollback`: the DAG of that name without Airflow, for when a second counts or Airflow is what is down.

The same request, the same machine, the same ledger. The champion alias moves if MLflow answers; if it does not, the
traffic has moved all the same, and the next run of the monitor moves the alias (`make reconcile` does it at once). What
people are to be told waits in the outbox for the next task that has Airflow's Connections.

Most of the time until the traffic moves is Python loading modules, while a bad release serves. So this module takes no
more than it needs: no command-line library, no screen, nothing of the stack but its settings and secrets. httpx would
load such libraries for a command of its own, and looking for garbage among what was just loaded finds none: without
both a quarter of the time is gone.
"""

import argparse
import gc
import getpass
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

from include.kernel.blocked_imports import block_imports
from include.kernel.words import ledger_kinds as kinds

if __name__ == "__main__":
    gc.disable()
    with block_imports(("click", "pygments", "rich")):
        import httpx  # noqa: F401

from include.alerting.outbox import record
from include.alerting.wiring import open_outbox
from include.embedded.configuration import environment
from include.embedded.configuration.credentials import load_credentials
from include.embedded.configuration.settings import EmbeddedSettings
from include.kernel.errors import EvergreenError, Temporary
from include.kernel.ledger import Entry, build_live_key
from include.kernel.wiring import open_ledger
from include.manifest import read_manifest
from include.model.blessing import blessing as blessings
from include.registry.mlflow_registry import MlflowRegistry
from include.registry.wiring import open_registry
from include.release.core.release_history import TOLD_KINDS, describe_left, read_release_history
from include.release.core.rollback_target import find_rollback_target
from include.release.core.rollout import DesiredState, Release, Step
from include.release.spec import ReleaseManifest
from include.release.wiring import open_driver, open_target

EXIT_REJECTED = 65


@dataclass(frozen=True)
class RollbackResult:
    desired_state: DesiredState
    step: Step
    seconds: float


def main() -> int:
    """0 when the version serves, 65 when it was turned down, 75 when something is away."""
    parser = argparse.ArgumentParser(description="All traffic back to an earlier version.")
    parser.add_argument("--version", default="", help="empty: the last other one that served")
    parser.add_argument("--why", default="a person asked for it", help="it goes to the ledger")
    options, began, settings = parser.parse_args(), time.monotonic(), EmbeddedSettings()
    os.environ.update(environment.build_task_env(settings, load_credentials(settings.home)))
    try:
        result = roll_back(read_manifest(), options.version, options.why, settings.trusted_keys.read_text())
    except EvergreenError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(
        f"Version {result.desired_state.release.version}: {result.step.value}, {time.monotonic() - began:.1f} s in all."
    )
    return 0 if result.step is Step.DONE else EXIT_REJECTED


def roll_back(manifest: ReleaseManifest, version: str, why: str, trusted: str) -> RollbackResult:
    """Wants the version and follows the release machine to its end."""
    began, target, book = time.monotonic(), open_target(manifest), open_ledger()
    live, history = target.observe().live.release, read_release_history(book.read_entries(*TOLD_KINDS))
    target_version, envelope = find_rollback_target(history, live, version or None)
    blessing = blessings.verify(envelope, blessings.parse_public_keys(trusted), manifest.name, target_version)
    who, release = f"{getpass.getuser()} by make rollback", Release(target_version, blessing.digest)
    desired_state = target.request_release(
        release, by=f"{who} {time.time_ns()}", why=why, kind="rollback", blessing=envelope
    )
    details = {"generation": desired_state.generation, "digest": release.digest, "blessing": envelope}
    registry, outbox = open_registry(manifest.name), open_outbox(manifest)

    def write(what: str, details: dict[str, Any], key: str | None = None) -> None:
        record(book, outbox, Entry(what=what, subject=target_version, who=who, why=why, details=details, key=key))

    write(kinds.ROLLBACK_WANTED, details | describe_left(live))
    driver = open_driver(manifest, registry)
    steps = [(step, _say(step, seconds)) for step, seconds in driver.run(desired_state.generation)]
    last = steps[-1][0]
    ended = {
        **details,
        "outcome": last.value,
        "steps": steps,
        "evidence": target.read_verdicts(desired_state.generation),
    }
    write(kinds.name_outcome(last.value), ended)
    if last is Step.DONE:
        write(kinds.RELEASE_LIVE, ended, build_live_key(ended))
        _move_alias(registry, target_version)
    return RollbackResult(desired_state, last, time.monotonic() - began)


def _say(step: Step, seconds: float) -> float:
    print(f"{step.value:10} {seconds:6.2f} s", flush=True)
    return round(seconds, 3)


def _move_alias(registry: MlflowRegistry, version: str) -> None:
    try:
        registry.promote(version)
    except Temporary as error:
        print(f"The champion alias was not moved: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
