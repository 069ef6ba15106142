"""The model registry: MLflow model versions, with a signed blessing as a tag and the champion as an alias.

MLflow aliases keep no history and know nothing of servers; the ledger keeps the history and the target says what really
runs. The client's patience is cut from minutes to seconds: an Airflow task retries by itself and says why.
"""

import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from include.kernel.errors import NotBlessed, RequestInvalid
from include.registry.answers import is_absent, translate_error
from include.registry.base import ArtifactSource, ReleaseMarks

CHAMPION = "champion"
BLESSING_TAG = "evergreen.blessing"
KEY_TAG = "evergreen.key"
SERVING = "serving"  # where in a run's artifacts the serving artifact lies
CURVES, GATE_REPORT = "curves.svg", "gate.json"  # what the gate leaves beside the run it judged
CARD = "card"
CARD_TAG = "evergreen.card"
STATE_TAG, SOAKING = "evergreen.release", "soaking"
# characters that MLflow's tables have for the text of a run's tag and of a version's description
LONGEST_TAG, LONGEST_DESCRIPTION = 8_000, 5_000
CLIENT_TIMEOUTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # a task log is no terminal
}


class MlflowRegistry(ArtifactSource, ReleaseMarks):
    """`name` is the registered model, `uri` the tracking server."""

    def __init__(self, name: str, uri: str) -> None:
        self.name = name
        self.uri = uri

    @contextmanager
    def open_client(self) -> Iterator[Any]:
        """An MlflowClient; what it raises comes out as include.registry.answers says."""
        os.environ.update(CLIENT_TIMEOUTS)
        import requests
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it writes to stderr, which a task's log shows as errors
        try:
            yield MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        except (requests.exceptions.RequestException, MlflowException) as error:
            raise translate_error(error, self.uri) from error

    def register(self, run_id: str, source: str, key: str | None = None) -> str:
        """The version of `run_id`; the same key is registered once, however often it is asked.

        Without a key it is that of the run's training, which is made of its content: the same model has one version.
        A `runs:/ID/NAME` that means a model MLflow keeps outside the run becomes the model's own address: by that one
        alone is a version loaded as `models:/NAME/VERSION` or by its alias.
        """
        with self.open_client() as client:
            self._ensure_model(client)
            run = client.get_run(run_id)
            key = key or run.data.tags.get(KEY_TAG, run_id)
            for version in client.search_model_versions(f"name = '{self.name}'"):
                if version.tags.get(KEY_TAG) == key:
                    return str(version.version)
            model_id = _find_logged_model(client, run, source)
            source = f"models:/{model_id}" if model_id else source
            made = client.create_model_version(self.name, source, run_id, tags={KEY_TAG: key}, model_id=model_id)
            return str(made.version)

    def _ensure_model(self, client: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def bless(self, version: str, envelope: str) -> None:
        """The envelope becomes a tag of the version; a blessing that stands there already is replaced."""
        with self.open_client() as client:
            client.set_model_version_tag(self.name, version, BLESSING_TAG, envelope)

    def fetch_blessing(self, version: str) -> str:
        """The envelope, not verified.

        Raises `NotBlessed` when the version has none, `RequestInvalid` when there is no such version.
        """
        tag = self._fetch_version(version).tags.get(BLESSING_TAG)
        if not tag:
            raise NotBlessed(
                f"Version {version} of {self.name} carries no blessing; only a version that passed the gate of the "
                "train DAG can be deployed."
            )
        return str(tag)

    def read_run(self, run_id: str) -> tuple[dict[str, str], str, str]:
        """Params of a run, its page, and its drawing of the curves (SVG; empty when it has none)."""
        with self.open_client() as client:
            found = client.get_run(run_id)
            url = self.build_run_url(found.info.experiment_id, run_id)
            if all(file.path != CURVES for file in client.list_artifacts(run_id)):
                return dict(found.data.params), url, ""
            with tempfile.TemporaryDirectory() as scratch:
                drawing = Path(client.download_artifacts(run_id, CURVES, scratch)).read_text()
        return dict(found.data.params), url, drawing

    def describe(self, version: str, run_id: str, description: str, documents: Mapping[str, str]) -> None:
        """The version's description, and files for people under card/ of its run. Said again, it is the same."""
        with self.open_client() as client:
            for name, text in documents.items():
                client.log_text(run_id, text, f"{CARD}/{name}")
            client.update_model_version(self.name, version, shorten_text(description, LONGEST_DESCRIPTION))
            client.set_model_version_tag(self.name, version, CARD_TAG, f"runs:/{run_id}/{CARD}/{next(iter(documents))}")

    def find_champion(self) -> str | None:
        from mlflow.exceptions import MlflowException

        with self.open_client() as client:
            try:
                return str(client.get_model_version_by_alias(self.name, CHAMPION).version)
            except MlflowException as error:
                if is_absent(error):
                    return None
                raise

    def promote(self, version: str) -> None:
        """The alias moves, and no version is marked as soaking any more."""
        with self.open_client() as client:
            client.set_registered_model_alias(self.name, CHAMPION, version)
        self.unmark_soaking(self.list_soaking())

    def mark_soaking(self, version: str) -> None:
        """For people: this version serves, and is not the champion yet."""
        with self.open_client() as client:
            client.set_model_version_tag(self.name, version, STATE_TAG, SOAKING)

    def list_soaking(self) -> list[str]:
        """The versions that are marked so."""
        with self.open_client() as client:
            found = client.search_model_versions(f"name = '{self.name}' and tag.`{STATE_TAG}` = '{SOAKING}'")
            return sorted(str(version.version) for version in found)

    def unmark_soaking(self, versions: Iterable[str]) -> None:
        with self.open_client() as client:
            for version in versions:
                client.delete_model_version_tag(self.name, version, STATE_TAG)

    def fetch(self, version: str, destination: Path) -> Path:
        """Downloads the serving artifact of a version into `destination`."""
        return self.fetch_run(self._fetch_version(version).run_id, destination)

    def fetch_run(self, run_id: str, destination: Path) -> Path:
        """The same of a training run, registered or not."""
        with self.open_client() as client:
            return Path(client.download_artifacts(run_id, SERVING, str(destination)))

    def _fetch_version(self, version: str) -> Any:
        from mlflow.exceptions import MlflowException

        if not re.fullmatch(r"[0-9]{1,18}", version):
            raise RequestInvalid(
                f"{version!r} is no version of {self.name}: write its number, such as 3; {self.uri} shows those it has."
            )
        with self.open_client() as client:
            try:
                return client.get_model_version(self.name, version)
            except MlflowException as error:
                if is_absent(error):
                    raise RequestInvalid(
                        f"{self.name} has no version {version!r}; look at {self.uri} for those it has."
                    ) from error
                raise

    def build_run_url(self, experiment_id: str, run_id: str) -> str:
        return f"{self.uri}/#/experiments/{experiment_id}/runs/{run_id}"

    def build_version_url(self, version: str) -> str:
        return f"{self.uri}/#/models/{self.name}/versions/{version}"


def shorten_text(text: str, limit: int) -> str:
    """Prose that names columns, slices or categories may be as long as they are many."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _find_logged_model(client: Any, run: Any, source: str) -> str | None:
    """The id of the finished model that `runs:/ID/NAME` means; None when NAME lies among the run's own artifacts."""
    found = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    named = (model for model in found if model.name == source.rpartition("/")[2] and str(model.status) == "READY")
    return next((str(model.model_id) for model in named), None)
