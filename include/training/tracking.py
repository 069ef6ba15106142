"""Writes one candidate into MLflow: a run that is complete, or one that the next attempt recognises as unfinished.

The order is the point. All computing is done before the run is opened, so a run stays RUNNING for the moments of its
uploads; its key is among the tags it is created with, so there is no run without one; FINISHED is the last thing said.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import AnyType

from include.kernel.code_digest import ROOT, find_imported_files, list_foreign_imports
from include.model import artifact
from include.model.artifact import ArtifactMeta
from include.model.schema import conform
from include.registry.mlflow_registry import LONGEST_TAG, SERVING, shorten_text

LOADER = "include.model.mlflow_model"  # what MLflow imports to load the artifact, and stores by this name
RUNTIME_PACKAGES = {
    "onnx": ("numpy", "onnxruntime", "pandas", "pydantic"),
    "treelite": ("numpy", "pandas", "pydantic", "scipy", "treelite"),
    "skops": ("numpy", "pandas", "pydantic", "scikit-learn", "skops"),
}


@dataclass(frozen=True)
class FinishedRun:
    """What a run says when it is done. `files` is uploaded as it is and holds `serving/`; `table` was trained on."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    files: Path
    table: pd.DataFrame
    meta: ArtifactMeta


def log_run(experiment: str, done: FinishedRun) -> str:
    """The id of the run, which is finished."""
    tags = {key: shorten_text(value, LONGEST_TAG) for key, value in done.tags.items()}
    with mlflow.start_run(experiment_id=experiment, run_name=done.name, tags=tags) as active:
        run_id = str(active.info.run_id)
        MlflowClient().log_batch(
            run_id,
            metrics=[Metric(key, value, 0, 0) for key, value in done.metrics.items()],
            params=[Param(key, str(value)) for key, value in done.params.items()],
        )
        name, digest = done.name.replace(" ", "-"), compute_table_digest(done.table)
        mlflow.log_input(mlflow.data.from_pandas(done.table, name=name, digest=digest), "training")  # type: ignore[attr-defined]
        mlflow.log_artifacts(str(done.files))
        _log_model(done)
    return run_id


def delete_run(client: MlflowClient, experiment: str, run_id: str) -> None:
    """Deletes an unfinished run with the models it logged. The run last: while it is there, this is done again."""
    for model in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
        client.delete_logged_model(model.model_id)
    client.delete_run(run_id)


def compute_table_digest(table: pd.DataFrame) -> str:
    """Of every row and column: MLflow's own sees no column with a gap, and no row behind the first 10,000."""
    total = hashlib.sha256(repr([(name, str(kind)) for name, kind in table.dtypes.items()]).encode())
    for name in table:
        total.update(pd.util.hash_pandas_object(table[name], index=False).to_numpy().tobytes())
    return total.hexdigest()[:32]  # MLflow keeps 36 characters


def _log_model(done: FinishedRun) -> None:
    """The artifact as an MLflow model with signature and example."""
    serving = done.files / SERVING
    inputs = conform(done.table, done.meta.columns)
    with tempfile.TemporaryDirectory() as scratch:
        mlflow.pyfunc.log_model(
            name="model",
            loader_module=LOADER,
            data_path=str(serving),
            code_paths=[str(_copy_code(done.meta, Path(scratch)))],
            signature=_build_signature(done.meta, artifact.load(serving).predict_frame(inputs.head(5))),
            input_example=inputs.head(3),
            pip_requirements=list_requirements(done.meta),  # inferring them takes ten seconds
        )


def _build_signature(meta: ArtifactMeta, answer: Any) -> ModelSignature:
    """The columns of any type: MLflow would refuse whole numbers where it is told of doubles, and turn some texts that
    are missing into "<NA>"; the loader brings every column to its kind as the server does."""
    anything = AnyType()  # type: ignore[no-untyped-call]
    columns: list[Any] = [ColSpec(anything, column.name, required=not column.nullable) for column in meta.columns]
    return ModelSignature(inputs=Schema(columns), outputs=infer_signature(answer).inputs)


def _copy_code(meta: ArtifactMeta, scratch: Path) -> Path:
    """The part of this project that loads an artifact and computes its features, in its folders."""
    for path in find_imported_files((LOADER, *_list_feature_modules(meta))):
        target = scratch / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return scratch / "include"


def _list_feature_modules(meta: ArtifactMeta) -> tuple[str, ...]:
    return (meta.features.partition(":")[0],) if meta.features else ()


def list_requirements(meta: ArtifactMeta) -> list[str]:
    """What the form needs and what the feature function imports, with the versions it was made with.

    A build's local part (+cpu) is no version an index knows.
    """
    known, own = packages_distributions(), _list_feature_modules(meta)
    imported = list_foreign_imports(find_imported_files(own) - find_imported_files((LOADER,)))
    packages = {*RUNTIME_PACKAGES[meta.runtime], *(name for module in imported for name in known.get(module, ())[:1])}
    return [f"{package}=={version(package).partition('+')[0]}" for package in sorted(packages)]
