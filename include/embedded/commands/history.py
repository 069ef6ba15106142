"""`make history`: every release and what led to it, and whether anybody touched the record since."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from include.alerting.core import alert_rules
from include.embedded.configuration.settings import apply_stack_defaults
from include.kernel import ledger
from include.kernel.errors import EvergreenError
from include.kernel.ledger import Entry
from include.kernel.wiring import open_ledger
from include.kernel.words.ledger_kinds import MODEL_BLESSED

app = typer.Typer(add_completion=False)
RELEASES = (MODEL_BLESSED, "deploy.", "rollback.", "release.", "approval.", "reconcile.")
EXIT_TAMPERED = 65


@app.command()
def main(everything: Annotated[bool, typer.Option("--all", help="not releases alone")] = False) -> None:
    """Exit 0 when the chain is whole, 65 when an entry was changed, taken out or put in afterwards."""
    try:
        apply_stack_defaults()
        book = open_ledger()
        lines = book.read_lines()
    except (EvergreenError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(getattr(error, "exit_code", 1)) from None
    entries = [entry for line in lines if (entry := ledger.parse_entry(line))]
    _show([entry for entry in entries if everything or entry.what.startswith(RELEASES)])
    if position := ledger.find_broken_entry(lines):
        problem = (
            f"Entry {position} of {len(entries)} ({entries[position - 1].what}) does not follow the one before it: "
        )
        typer.echo(problem + "one of the two was changed, or others were taken out between them.", err=True)
        raise typer.Exit(EXIT_TAMPERED)
    typer.echo(f"{len(entries)} entries, the chain is whole; the newest is {book.compute_head_hash()}.")


def _show(entries: list[Entry]) -> None:
    table = Table("when (UTC)", "what", "version", "who", "why", "evidence", show_lines=False)
    for entry in entries:
        cells = (
            f"{entry.at:%Y-%m-%d %H:%M:%S}",
            entry.what,
            entry.subject,
            entry.who,
            entry.why,
            alert_rules.summarise_evidence(entry.details),
        )
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table if entries else "Nothing was released yet.")


if __name__ == "__main__":
    app()
