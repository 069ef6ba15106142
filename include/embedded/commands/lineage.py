"""`make lineage MODEL=3` and `make lineage ROW=...`: from a version to its rows, and from a row to who saw it.

Answers come from what was written at the time: the training's lineage.json names snapshots by content, and the store
keeps every version of every day. Nothing is derived again from a manifest that may have changed since.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from include.data.core.lineage import PARTS, LineageDay, TrainingLineage
from include.data.core.snapshots import CONTRACT_REPORT, Snapshot, name_entity
from include.data.dataset import name_entities
from include.data.spec import DataManifest
from include.data.store.snapshot_store import SnapshotStore
from include.data.wiring import open_snapshot_store
from include.embedded.configuration.settings import apply_stack_defaults
from include.kernel.code_digest import digest_training_code
from include.kernel.errors import EvergreenError, RequestInvalid
from include.manifest import read_manifest
from include.registry.mlflow_registry import GATE_REPORT, MlflowRegistry
from include.registry.wiring import open_registry
from include.training.mlflow_trainings import LoggedTraining, MlflowTrainings
from include.training.spec import TrainingManifest

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class RowLocation:
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
        apply_stack_defaults()
        manifest, store = read_manifest(), open_snapshot_store()
        registry = open_registry(manifest.name)
        _print_model(manifest, store, registry, model) if model else _print_row(manifest, store, registry, row)
    except (EvergreenError, ValidationError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(getattr(error, "exit_code", 1)) from None


# --- a model's rows ---------------------------------------------------------------------------------------------------


def _print_model(manifest: TrainingManifest, store: SnapshotStore, registry: MlflowRegistry, version: str) -> None:
    trainings, console = MlflowTrainings(registry), _open_console()
    training = trainings.fetch_by_version(version)
    seen, gate = trainings.fetch_lineage(training), trainings.fetch_document(training.run_id, GATE_REPORT)
    console.print(_build_model_table(manifest, registry.find_champion(), training, gate))
    snapshots = {snapshot.id: snapshot for snapshot in store.read_history()}
    console.print(_build_days_table(seen, snapshots))
    console.print(_summarize_rows(seen))
    for line in _list_provenance(store, [snapshots[day.id] for day in seen.days if day.id in snapshots]):
        console.print(line, markup=False)


def _build_model_table(
    manifest: TrainingManifest, champion: str | None, training: LoggedTraining, gate: dict[str, Any] | None
) -> Table:
    tags, mark = training.tags, " (champion)" if champion == training.version else ""
    facts = {
        "model": f"{manifest.name} version {training.version}{mark}",
        "trained as": f"{training.name}, {tags.get('intent', 'unknown intent')}",
        "run key": tags.get("key", ""),
        "artifact": tags.get("digest", ""),
        "manifest": _compare_digests(tags.get("manifest", ""), manifest.digest),
        "code": _compare_digests(tags.get("code", ""), digest_training_code(manifest.train.features)),
        "gate": gate["sentence"] if gate else "no report: it was never judged",
        "MLflow": training.url,
    }
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for field, text in facts.items():
        table.add_row(field, _strip_markup(text))
    return table


def _compare_digests(then: str, now: str) -> str:
    return f"{then} ({'the present one' if then == now else f'the present one is {now[:12]}'})"


def _build_days_table(seen: TrainingLineage, snapshots: dict[str, Snapshot]) -> Table:
    table = _build_table(
        ("day", "part", "rows", "snapshot", "known from", "quarantined", "rules", "warnings", "contract")
    )
    for day in seen.days:
        table.add_row(
            *map(
                _strip_markup,
                (str(day.day), day.part, str(day.rows), day.id[:12], *_describe_snapshot(snapshots.get(day.id))),
            )
        )
    return table


def _describe_snapshot(snapshot: Snapshot | None) -> tuple[str, ...]:
    if snapshot is None:
        return ("not in this store", "", "", "", "")
    counts = (snapshot.quarantined, snapshot.expectations, len(snapshot.warnings))
    return (str(snapshot.known_from), *map(str, counts), f"manifest {snapshot.manifest[:8]}")


def _list_provenance(store: SnapshotStore, snapshots: list[Snapshot]) -> Iterable[str]:
    """Where the rows came from, what their contract warned of, and where its reports lie."""
    yield from (f"source: {source}" for source in sorted({snapshot.source for snapshot in snapshots}))
    for snapshot in snapshots:
        if any(file.name == CONTRACT_REPORT for file in snapshot.files):
            yield f"contract report of {snapshot.day}: {store.fetch_file(snapshot, CONTRACT_REPORT)}"
        yield from (f"warning of {snapshot.day}: {warning}" for warning in snapshot.warnings)


def _summarize_rows(seen: TrainingLineage) -> str:
    rows: Counter[str] = Counter()
    for day in seen.days:
        rows[day.part] += day.rows
    shares = ", ".join(f"{part} {rows[part]} rows" for part in PARTS if rows[part])
    entity = f"; rows of a {seen.entity} that a later part has were left out of the earlier one" if seen.entity else ""
    return f"known as of {seen.as_of}: {shares}{entity}"


# --- a row's models ---------------------------------------------------------------------------------------------------


def _print_row(manifest: DataManifest, store: SnapshotStore, registry: MlflowRegistry, row_id: str) -> None:
    console, column = _open_console(), manifest.contract.id
    history = store.read_history()
    locations = list(_find_rows(column, row_id, history, store))
    if not locations:
        raise RequestInvalid(
            f"No version of any of the {len({s.day for s in history})} days in the store holds a row with "
            f"{column} {row_id!r}; it was never published."
        )
    console.print(_build_places_table(locations, {snapshot.id for snapshot in store.list_snapshots()}))
    sightings = [told for training in _find_sightings(locations, store, MlflowTrainings(registry)) for told in training]
    if not sightings:
        console.print("No training saw it.")
        return
    console.print(_build_sightings_table(sightings))


def _find_rows(column: str, row_id: str, history: Iterable[Snapshot], store: SnapshotStore) -> Iterable[RowLocation]:
    """Only the id column is read, and the row itself where it is."""
    for snapshot in {snapshot.id: snapshot for snapshot in history if column in snapshot.columns}.values():
        ids = store.read_rows([snapshot], [column])[column].astype(str)
        for number in ids.index[ids == row_id]:
            row = store.read_rows([snapshot]).iloc[int(number)]
            yield RowLocation(snapshot, int(number) + 1, {str(name): value for name, value in row.items()})


def _build_places_table(locations: list[RowLocation], counting: set[str]) -> Table:
    table = _build_table(("day", "row", "snapshot", "known from", "now", "source"))
    for location in locations:
        snapshot = location.snapshot
        state = "counts" if snapshot.id in counting else "corrected since"
        cells = (
            str(snapshot.day),
            str(location.number),
            snapshot.id[:12],
            str(snapshot.known_from),
            state,
            snapshot.source,
        )
        table.add_row(*map(_strip_markup, cells))
    return table


Sighting = tuple[LoggedTraining, TrainingLineage, LineageDay, str]


def _find_sightings(
    locations: list[RowLocation], store: SnapshotStore, trainings: MlflowTrainings
) -> Iterable[list[Sighting]]:
    for training in trainings.iterate_finished():
        if any(training.may_have_seen(one.snapshot.id) for one in locations):
            seen = trainings.fetch_lineage(training)
            yield [
                (training, seen, day, _describe_part(one, seen, day, store))
                for one in locations
                if (day := seen.find_day(one.snapshot.id))
            ]


def _describe_part(location: RowLocation, seen: TrainingLineage, day: LineageDay, store: SnapshotStore) -> str:
    """The part the row played: none where its entity belongs to a later part."""
    if seen.entity is None or not (later := seen.list_later_days(day.part)):
        return day.part
    snapshots = {snapshot.id: snapshot for snapshot in store.read_history()}
    entity = location.row[seen.entity]
    names = store.read_rows([snapshots[each.id] for each in later if each.id in snapshots], [seen.entity])[seen.entity]
    is_dropped = (name_entities(names) == name_entity(entity)).any()
    return f"left out of {day.part}: its {seen.entity} is in a later part" if is_dropped else day.part


def _build_sightings_table(sightings: list[Sighting]) -> Table:
    table = _build_table(("model", "as of", "part", "snapshot", "intent", "gate", "run"))
    for training, seen, day, part in sightings:
        version = f"version {training.version}" if training.version else f"not registered: {training.name}"
        verdict, intent = training.tags.get("gate", "not judged"), training.tags.get("intent", "")
        cells = (version, str(seen.as_of), part, day.id[:12], intent, verdict, training.run_id[:12])
        table.add_row(*map(_strip_markup, cells))
    return table


# --- how it looks -----------------------------------------------------------------------------------------------------


def _open_console() -> Console:
    console = Console(soft_wrap=True)
    return console if console.is_terminal else Console(soft_wrap=True, width=200)


def _build_table(headings: Iterable[str]) -> Table:
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _strip_markup(text: str) -> Text:
    """Without markup: brackets in a source or a name are only brackets."""
    return Text(text)


if __name__ == "__main__":
    app()
