"""What the jobs that judge a day agree on: which day it is, what it is compared with, and so which rules it has.

Which other days those are is a matter of `as_of`, like everything else: the same run, repeated later, compares with the
same versions.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from include.data.core.contract import Expectation, Reference
from include.data.core.snapshots import Snapshot, select_visible
from include.data.spec import DataManifest
from include.data.store.snapshot_store import SnapshotStore
from include.data.validation.polars_validator import list_rules, summarise
from include.kernel.errors import RequestInvalid
from include.kernel.job import JobRequest


@dataclass(frozen=True)
class Comparison:
    """`reference` is the published day before, as far as the contract compares with it; ids in `id_snapshots` are
    taken.
    """

    manifest: DataManifest
    day: date
    reference: Reference | None
    id_snapshots: list[Snapshot]
    published: list[Path]  # their rows

    def build_rules(self) -> list[Expectation]:
        """The day's rules, as they mark rows."""
        return list_rules(self.manifest, self.day, self.reference, bool(self.id_snapshots))


def parse_day(request: JobRequest) -> date:
    try:
        return date.fromisoformat(str(request.params["day"]))
    except (KeyError, ValueError) as error:
        raise RequestInvalid(f"{request.job} needs params.day as an ISO date, such as 2026-08-01.") from error


def compare_day(day: date, as_of: date, manifest: DataManifest, store: SnapshotStore) -> Comparison:
    earlier, unique_days = _list_earlier(day, as_of, manifest, store), manifest.contract.unique_days
    reference = summarise(store.fetch_file(earlier[-1]), manifest) if earlier else None
    taken = earlier[-unique_days:] if unique_days else []
    return Comparison(manifest, day, reference, taken, [store.fetch_file(snapshot) for snapshot in taken])


def _list_earlier(day: date, as_of: date, manifest: DataManifest, store: SnapshotStore) -> list[Snapshot]:
    """The published days before this one, as far as the contract compares with any."""
    contract = manifest.contract
    open_categories = any(spec.kind == "category" and not spec.values for spec in contract.columns.values())
    if not (contract.unique_days or contract.shift or open_categories):
        return []
    return [snapshot for snapshot in select_visible(store.read_history(), as_of) if snapshot.day < day]
