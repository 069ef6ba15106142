"""`make rollback`: the DAG of that name without Airflow, for when a second counts or Airflow is what is down.

The same wish, the same machine, the same ledger. The champion alias moves if MLflow answers; if it does not, the
traffic has moved all the same, and the next run of the monitor moves the alias (`make reconcile` does it at once). What
people are to be told waits in the outbox for the next task that has Airflow's Connections.
"""

from __future__ import annotations

import getpass
import os
import time
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console

from include.adapters import factory
from include.adapters.outbox import record
from include.core import blessing as blessings
from include.core.errors import EvergreenError, Temporary
from include.core.ledger import Entry, live_key
from include.core.rollout import Release, Step, Wanted
from include.core.way_back import way_back
from include.embedded.settings import EmbeddedSettings
from include.embedded.stack import Stack

app = typer.Typer(add_completion=False)
TURNED_DOWN = 65


@dataclass(frozen=True)
class Told:
    wanted: Wanted
    step: Step
    seconds: float


@app.command()
def main(
    version: Annotated[str, typer.Option(help="empty: the last other one that served")] = "",
    why: Annotated[str, typer.Option(help="it goes to the ledger")] = "a person asked for it",
) -> None:
    """Exit 0 when the version serves, 65 when it was turned down, 75 when something is away."""
    began, settings = time.monotonic(), EmbeddedSettings()
    os.environ.update(Stack(settings, Console()).environment())
    try:
        told = roll_back(version, why, settings.trusted_keys.read_text())
    except EvergreenError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code) from None
    typer.echo(f"Version {told.wanted.release.version}: {told.step.value}, {time.monotonic() - began:.1f} s in all.")
    raise typer.Exit(0 if told.step is Step.DONE else TURNED_DOWN)


def roll_back(version: str, why: str, trusted: str) -> Told:
    """Wants the version and follows the release machine to its end."""
    began, target, book = time.monotonic(), factory.target(), factory.ledger()
    found, envelope = way_back(book.entries("release.live"), target.observe().live.release, version or None)
    blessing = blessings.verify(envelope, blessings.public_keys(trusted), factory.manifest().name, found)
    who, release = f"{getpass.getuser()} by make rollback", Release(found, blessing.digest)
    wanted = target.want(release, by=f"{who} {time.time_ns()}", why=why, kind="rollback", blessing=envelope)
    details = {"generation": wanted.generation, "digest": release.digest, "blessing": envelope}
    _write("rollback.wanted", found, who, why, details)
    steps = [(step, _say(step, seconds)) for step, seconds in factory.rollout().run(wanted.generation)]
    last = steps[-1][0]
    ended = {**details, "outcome": last.value, "steps": steps, "evidence": target.verdicts(wanted.generation)}
    _write(f"release.{last.value}", found, who, why, ended)
    if last is Step.DONE:
        _write("release.live", found, who, why, ended, live_key(ended))
        _move_alias(found)
    return Told(wanted, last, time.monotonic() - began)


def _write(what: str, version: str, who: str, why: str, details: dict[str, Any], key: str | None = None) -> None:
    entry = Entry(what=what, subject=version, who=who, why=why, details=details, key=key)
    record(factory.ledger(), factory.outbox(), entry)


def _say(step: Step, seconds: float) -> float:
    typer.echo(f"{step.value:10} {seconds:6.2f} s")
    return round(seconds, 3)


def _move_alias(version: str) -> None:
    try:
        factory.registry().promote(version)
    except Temporary as error:
        typer.echo(f"The champion alias was not moved: {error}", err=True)


if __name__ == "__main__":
    app()
