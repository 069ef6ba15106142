"""The command line of the embedded stack: `python -m include.embedded up | down | status | reset | env`."""

import shlex
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from include.embedded.configuration.settings import EmbeddedSettings
from include.embedded.stack.errors import StackError
from include.embedded.stack.stack import Part, Stack

app = typer.Typer(help="Evergreen on one machine.", no_args_is_help=True, add_completion=False)
EXIT_UNHEALTHY = 3
Result = TypeVar("Result")


@app.command()
def up() -> None:
    """Start everything and wait until it is healthy."""
    _do(lambda stack: stack.start())


@app.command()
def down() -> None:
    """Stop everything; what is stored stays."""
    _do(lambda stack: stack.stop())


@app.command()
def status() -> None:
    """Show each program; exit 3 unless all are healthy."""
    parts = _do(lambda stack: stack.list_parts())
    Console().print(_build_table(parts))
    if any(part.missing for part in parts):
        raise typer.Exit(EXIT_UNHEALTHY)


@app.command()
def reset() -> None:
    """Stop everything and delete what was stored."""
    _do(lambda stack: stack.reset())


@app.command()
def env() -> None:
    """Print what a task sees, to be taken over by a shell: eval "$(python -m include.embedded env)"."""
    for name, value in _do(lambda stack: stack.build_env()).items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def _do(action: Callable[[Stack], Result]) -> Result:
    """An error with a sentence of its own ends the command with that sentence and nothing else."""
    try:
        return action(Stack(EmbeddedSettings(), Console(soft_wrap=True)))
    except (StackError, ValidationError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _build_table(parts: list[Part]) -> Table:
    table = Table()
    for heading in ("Program", "State", "Pid", "Uptime", "Health"):
        table.add_column(heading, no_wrap=heading != "Health", overflow="fold")
    for part in parts:
        uptime = str(timedelta(seconds=int(part.uptime))) if part.pid else ""
        table.add_row(part.name, part.state, str(part.pid or ""), uptime, part.missing or "healthy")
    return table


if __name__ == "__main__":
    app()
