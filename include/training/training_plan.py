"""A training before it is trained: what it may know, and the key that names it.

Shared by the job that trains and the tasks that search parameters for it, which must mean the same training. The key
needs the names of the days alone, so whoever finds its work done already has read no row.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from include.data.core import lineage
from include.data.core.snapshots import Split
from include.data.dataset import Dataset, LabelledRows, list_columns
from include.data.store.work_units import WorkUnitStore
from include.kernel.code_digest import digest_training_code
from include.kernel.errors import RequestInvalid
from include.kernel.job import JobRequest, build_run_key
from include.model.schema import Column, describe
from include.registry.mlflow_registry import KEY_TAG
from include.training.spec import TrainingManifest


@dataclass(frozen=True)
class Training:
    """What all candidates of one training share. Rows are read when they are first asked for, and kept."""

    request: JobRequest
    dataset: Dataset
    manifest: TrainingManifest
    days: Split
    inputs: tuple[Column, ...]
    units: WorkUnitStore  # finished studies, by whoever made them
    journals: Path  # of studies that are under way on this machine

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The inputs with the categories and bounds that the training rows hold."""
        return describe(self.rows.inputs, self.inputs)

    @cached_property
    def rows(self) -> LabelledRows:
        return self.dataset.read_part(self.days, "train", self.inputs)

    @cached_property
    def later(self) -> LabelledRows | None:
        """The rows that calibrate."""
        return self.dataset.read_part(self.days, "calibration", self.inputs) if self.days.calibration else None

    @cached_property
    def newest(self) -> LabelledRows:
        return self.dataset.read_part(self.days, "holdout", self.inputs)

    @property
    def snapshot_ids(self) -> list[str]:
        return list(self.days.ids)

    @property
    def code(self) -> str:
        return digest_training_code(self.manifest.train.features)

    @property
    def key(self) -> str:
        """What decides about the model: the rows by their snapshots and parts, the code, the manifest, the window."""
        parts = [",".join(snapshot.id for snapshot in self.days.get_part(name)) for name in lineage.PARTS]
        names = ",".join(column.name for column in self.inputs)
        requested = (str(self.request.as_of), self.request.intent.value, names)
        return build_run_key(self.code, self.manifest.digest, *requested, *parts)

    def build_tags(self, kind: str) -> dict[str, str]:
        return {
            KEY_TAG: f"{self.key}:{kind}",
            "evergreen.intent": self.request.intent.value,
            "evergreen.as_of": str(self.request.as_of),
            "evergreen.manifest": self.manifest.digest,
            "evergreen.code": self.code,
            "evergreen.data": lineage.describe_snapshots(self.days.ids),
        }


def choose_columns(request: JobRequest, manifest: TrainingManifest) -> tuple[Column, ...]:
    """The inputs that `params.columns` names, or all of them. Raises `RequestInvalid`."""
    chosen = list(request.params.get("columns") or [])
    unknown = sorted(set(chosen) - set(manifest.contract.columns))
    if unknown:
        available = ", ".join(manifest.contract.columns)
        raise RequestInvalid(f"params.columns names {', '.join(unknown)}; the contract has {available}.")
    return list_columns(manifest, chosen)
