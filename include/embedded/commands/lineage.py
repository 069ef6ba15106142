"""`make lineage MODEL=3` and `make lineage ROW=...`: from a version to its rows, and from a row to who saw it.

Answers come from what was written at the time: the training's lineage.json names snapshots by content, and the store
keeps every version of every day. Nothing is derived again from a manifest that may have changed since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from include.data.core.lineage import PARTS, Seen, SeenDay
from include.data.core.snapshots import CONTRACT_REPORT, Snapshot
from include.data.spec import DataManifest
from include.data.store.snapshot_store import ContentStore
from include.data.wiring import open_snapshot_store
from include.embedded.configuration.settings import see_as_the_stack
from include.kernel.code_digest import digest_training_code
from include.kernel.errors import EvergreenError, RequestInvalid
from include.manifest import read_manifest
from include.registry.mlflow_registry import GATE_REPORT, MlflowRegistry
from include.registry.wiring import open_registry
from include.training.mlflow_trainings import MlflowTrainings, Training
from include.training.spec import TrainingManifest

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Found:
    """A row: in which version of which day, and where in it, counted from 1."""

    snapshot: Snapshot
    number: int
    row: dict[str, Any]


@app.command()
def main(
    model: Annotated[str, typer.Option(help="a registered version")] = "",
    row: Annotated[str, typer.Option(help="the id of a row")] = "",
) -> None:
    """Exit 0 with an answer, 65 when there is none, 75 when MLflow does not answer."""
    try:
        if bool(model) == bool(row):
            raise RequestInvalid("Name one of the two: make lineage MODEL=3, or make lineage ROW=A20260801-0003.")
        see_as_the_stack()
        manifest, store = read_manifest(), open_snapshot_store()
        registry = open_registry(manifest.name)
        _tell_model(manifest, store, registry, model) if model else _tell_row(manifest, store, registry, row)
    except (EvergreenError, ValidationError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(getattr(error, "exit_code", 1)) from None


# --- a model's rows ---------------------------------------------------------------------------------------------------


def _tell_model(manifest: TrainingManifest, store: ContentStore, registry: MlflowRegistry, version: str) -> None:
    trainings, console = MlflowTrainings(registry), _console()
    training = trainings.of_version(version)
    seen, gate = trainings.seen(training), trainings.document(training.run_id, GATE_REPORT)
    console.print(_passport(manifest, registry.champion(), training, gate))
    kept = {snapshot.id: snapshot for snapshot in store.history()}
    console.print(_days_table(seen, kept))
    console.print(_sum(seen))
    for line in _provenance(store, [kept[day.id] for day in seen.days if day.id in kept]):
        console.print(line, markup=False)


def _passport(
    manifest: TrainingManifest, champion: str | None, training: Training, gate: dict[str, Any] | None
) -> Table:
    tags, mark = training.tags, " (champion)" if champion == training.version else ""
    told = {
        "model": f"{manifest.name} version {training.version}{mark}",
        "trained as": f"{training.name}, {tags.get('intent', 'unknown intent')}",
        "run key": tags.get("key", ""),
        "artifact": tags.get("digest", ""),
        "manifest": _compared(tags.get("manifest", ""), manifest.digest),
        "code": _compared(tags.get("code", ""), digest_training_code(manifest.train.features)),
        "gate": gate["sentence"] if gate else "no report: it was never judged",
        "MLflow": training.url,
    }
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for field, text in told.items():
        table.add_row(field, _plain(text))
    return table


def _compared(then: str, now: str) -> str:
    return f"{then} ({'the present one' if then == now else f'the present one is {now[:12]}'})"


def _days_table(seen: Seen, kept: dict[str, Snapshot]) -> Table:
    table = _table(("day", "part", "rows", "snapshot", "known from", "quarantined", "rules", "warnings", "contract"))
    for day in seen.days:
        table.add_row(*map(_plain, (str(day.day), day.part, str(day.rows), day.id[:12], *_described(kept.get(day.id)))))
    return table


def _described(snapshot: Snapshot | None) -> tuple[str, ...]:
    if snapshot is None:
        return ("not in this store", "", "", "", "")
    told = (snapshot.quarantined, snapshot.expectations, len(snapshot.warnings))
    return (str(snapshot.known_from), *map(str, told), f"manifest {snapshot.manifest[:8]}")


def _provenance(store: ContentStore, snapshots: list[Snapshot]) -> Iterable[str]:
    """Where the rows came from, what their contract warned of, and where its reports lie."""
    yield from (f"source: {source}" for source in sorted({snapshot.source for snapshot in snapshots}))
    for snapshot in snapshots:
        if any(file.name == CONTRACT_REPORT for file in snapshot.files):
            yield f"contract report of {snapshot.day}: {store.file(snapshot, CONTRACT_REPORT)}"
        yield from (f"warning of {snapshot.day}: {warning}" for warning in snapshot.warnings)


def _sum(seen: Seen) -> str:
    rows: Counter[str] = Counter()
    for day in seen.days:
        rows[day.part] += day.rows
    told = ", ".join(f"{part} {rows[part]} rows" for part in PARTS if rows[part])
    entity = f"; rows of a {seen.entity} that a later part has were left out of the earlier one" if seen.entity else ""
    return f"known as of {seen.as_of}: {told}{entity}"


# --- a row's models ---------------------------------------------------------------------------------------------------


def _tell_row(manifest: DataManifest, store: ContentStore, registry: MlflowRegistry, row_id: str) -> None:
    console, column = _console(), manifest.contract.id
    history = store.history()
    found = list(_where(column, row_id, history, store))
    if not found:
        raise RequestInvalid(
            f"No version of any of the {len({s.day for s in history})} days in the store holds a row with "
            f"{column} {row_id!r}; it was never published."
        )
    console.print(_places_table(found, {snapshot.id for snapshot in store.snapshots()}))
    sightings = [told for training in _trainings(found, store, MlflowTrainings(registry)) for told in training]
    if not sightings:
        console.print("No training saw it.")
        return
    console.print(_models_table(sightings))


def _where(column: str, row_id: str, history: Iterable[Snapshot], store: ContentStore) -> Iterable[Found]:
    """Only the id column is read, and the row itself where it is."""
    for snapshot in {snapshot.id: snapshot for snapshot in history if column in snapshot.columns}.values():
        ids = store.rows([snapshot], [column])[column].astype(str)
        for number in ids.index[ids == row_id]:
            row = store.rows([snapshot]).iloc[int(number)]
            yield Found(snapshot, int(number) + 1, {str(name): value for name, value in row.items()})


def _places_table(found: list[Found], counting: set[str]) -> Table:
    table = _table(("day", "row", "snapshot", "known from", "now", "source"))
    for one in found:
        snapshot = one.snapshot
        state = "counts" if snapshot.id in counting else "corrected since"
        told = (str(snapshot.day), str(one.number), snapshot.id[:12], str(snapshot.known_from), state, snapshot.source)
        table.add_row(*map(_plain, told))
    return table


Sighting = tuple[Training, Seen, SeenDay, str]


def _trainings(found: list[Found], store: ContentStore, trainings: MlflowTrainings) -> Iterable[list[Sighting]]:
    for training in trainings.finished():
        if any(training.may_have_seen(one.snapshot.id) for one in found):
            seen = trainings.seen(training)
            yield [
                (training, seen, day, _how(one, seen, day, store)) for one in found if (day := seen.of(one.snapshot.id))
            ]


def _how(found: Found, seen: Seen, day: SeenDay, store: ContentStore) -> str:
    """The part the row played: none where its entity belongs to a later part."""
    if seen.entity is None or not (later := seen.after(day.part)):
        return day.part
    kept = {snapshot.id: snapshot for snapshot in store.history()}
    entity = found.row[seen.entity]
    names = store.rows([kept[each.id] for each in later if each.id in kept], [seen.entity])[seen.entity]
    return f"left out of {day.part}: its {seen.entity} is in a later part" if (names == entity).any() else day.part


def _models_table(sightings: list[Sighting]) -> Table:
    table = _table(("model", "as of", "part", "snapshot", "intent", "gate", "run"))
    for training, seen, day, part in sightings:
        version = f"version {training.version}" if training.version else f"not registered: {training.name}"
        verdict, intent = training.tags.get("gate", "not judged"), training.tags.get("intent", "")
        told = (version, str(seen.as_of), part, day.id[:12], intent, verdict, training.run_id[:12])
        table.add_row(*map(_plain, told))
    return table


# --- how it looks -----------------------------------------------------------------------------------------------------


def _console() -> Console:
    console = Console(soft_wrap=True)
    return console if console.is_terminal else Console(soft_wrap=True, width=200)


def _table(headings: Iterable[str]) -> Table:
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _plain(text: str) -> Text:
    """Without markup: brackets in a source or a name are only brackets."""
    return Text(text)


if __name__ == "__main__":
    app()
