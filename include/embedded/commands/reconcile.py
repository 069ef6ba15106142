"""`make reconcile`: whether registry, ledger and world agree, now, and what was put right.

The same look as the monitor's, without its patience for what has only just ended: whoever asks by hand wants it now. A
release that is under way is left alone all the same.
"""

import getpass
import os

import typer
from rich.console import Console

from include.embedded.configuration.settings import EmbeddedSettings
from include.embedded.stack.stack import Stack
from include.kernel.errors import EvergreenError
from include.manifest import read_manifest
from include.registry.wiring import open_registry
from include.release.wiring import open_reconciler

app = typer.Typer(add_completion=False)
EXIT_DISAGREES, EXIT_AWAY = 65, 75


@app.command()
def main() -> None:
    """Exit 0 when all agree in the end, 65 when something is left for a person, 75 when something is away."""
    os.environ.update(Stack(EmbeddedSettings(), Console()).build_env())
    try:
        manifest = read_manifest()
        reconciler = open_reconciler(manifest, open_registry(manifest.name), at_once=True)
        outcome = reconciler.run(f"{getpass.getuser()} by make reconcile")
    except EvergreenError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code) from None
    for heading, sentences in (("healed", outcome.repaired), ("for you", outcome.unresolved)):
        for sentence in sentences:
            typer.echo(f"{heading:8} {sentence}")
    typer.echo(outcome.sentence)
    raise typer.Exit(EXIT_DISAGREES if outcome.unresolved else 0 if outcome.has_compared_registry else EXIT_AWAY)


if __name__ == "__main__":
    app()
