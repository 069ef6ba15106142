"""What MLflow knows of the trainings of a model, for questions of lineage: runs, their versions, their documents.

Every candidate of every training is a run here, registered or not: what a refused model saw is asked about too.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.data.core.lineage import FILE, TrainingLineage, may_include
from include.kernel.errors import RequestInvalid
from include.registry.mlflow_registry import MlflowRegistry

FINISHED, ORDER = "attributes.status = 'FINISHED'", ["start_time"]


@dataclass(frozen=True)
class LoggedTraining:
    """One MLflow run. `tags` are those the train job set, without their prefix; `data` is `describe_snapshots`."""

    run_id: str
    url: str
    name: str
    version: str | None
    tags: dict[str, str]

    def may_have_seen(self, snapshot_id: str) -> bool:
        return may_include(self.tags.get("data", ""), snapshot_id)


class MlflowTrainings:
    def __init__(self, registry: MlflowRegistry) -> None:
        self._registry = registry

    def fetch_by_version(self, version: str) -> LoggedTraining:
        """Raises `RequestInvalid` with the versions there are, `ServiceUnavailable`."""
        versions = self._fetch_versions()
        run_id = next((run_id for run_id, number in versions.items() if number == version), None)
        if run_id is None:
            known = ", ".join(sorted(versions.values(), key=int)) or "none yet"
            raise RequestInvalid(f"{self._registry.name} has no version {version!r}; it has {known}.")
        with self._registry.open_client() as client:
            return self._build_training(client.get_run(run_id), versions)

    def iterate_finished(self) -> Iterator[LoggedTraining]:
        """All finished trainings, oldest first."""
        versions = self._fetch_versions()
        with self._registry.open_client() as client:
            experiment = client.get_experiment_by_name(self._registry.name)
            if experiment is None:
                return
            token = None
            while True:
                page = client.search_runs([experiment.experiment_id], FINISHED, order_by=ORDER, page_token=token)
                yield from (self._build_training(run, versions) for run in page)
                token = page.token
                if not token:
                    return

    def fetch_document(self, run_id: str, name: str) -> Any | None:
        """A JSON document of a run; None when the run has none of this name."""
        with self._registry.open_client() as client, tempfile.TemporaryDirectory() as scratch:
            if name not in {listed.path for listed in client.list_artifacts(run_id)}:
                return None
            return json.loads(Path(client.download_artifacts(run_id, name, scratch)).read_text())

    def fetch_lineage(self, training: LoggedTraining) -> TrainingLineage:
        """Raises `RequestInvalid` when the training left no word of what it saw."""
        content = self.fetch_document(training.run_id, FILE)
        if content is None:
            raise RequestInvalid(
                f"Run {training.run_id} has no {FILE}: it was trained before trainings left one; train it again."
            )
        return TrainingLineage.model_validate(content)

    def _fetch_versions(self) -> dict[str, str]:
        """Version by run id."""
        with self._registry.open_client() as client:
            entries = client.search_model_versions(f"name = '{self._registry.name}'")
            return {entry.run_id: str(entry.version) for entry in entries}

    def _build_training(self, run: Any, versions: dict[str, str]) -> LoggedTraining:
        ours = {key.removeprefix("evergreen."): value for key, value in run.data.tags.items() if "evergreen." in key}
        url = self._registry.build_run_url(run.info.experiment_id, run.info.run_id)
        return LoggedTraining(run.info.run_id, url, run.info.run_name, versions.get(run.info.run_id), ours)
