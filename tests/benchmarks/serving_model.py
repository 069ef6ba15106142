"""The one model that all servers of bench-serving answer with: trained once, written in every form they read.

    python -m tests.benchmarks.serving_model DIRECTORY

The boosting candidate of the example, by the training job's own code on twenty days of it. Calibration is off, so that
the fitted pipeline alone says what the model says, and no peer needs code of ours:

    serving/            the compiled form, staged as our server finds it; serving-explain/ the same once more
    pipeline.joblib     the fitted pipeline, for every server that holds objects of scikit-learn
    mlflow/             the same, saved by MLflow with its signature
    serving-generic/    a pipeline that has no compiled form, staged
    generic.joblib      the same for the naive server
    rows.json           rows of the newest days and the pipelines' probabilities for them

A process of its own, because it loads what no client should: pandas, mlflow, scikit-learn.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from include.kernel.files import write_atomic
from tests import blessed

ROWS = 500
VERSION = "1"
NONE = {"train.calibration": "none", "train.explain_rows": 0}


def main(place: Path) -> None:
    from tests import ground

    manifest = ground.write_manifest(place / "pipeline.yaml", NONE)
    os.environ |= {"EVERGREEN_MANIFEST": str(manifest), "EVERGREEN_STORE": str(place / "store")}
    training = prepared(manifest)
    candidate = fitted(training)
    rows = recorded(training)
    write(training, candidate, place)
    beside = generic(training, candidate, place)
    stage(place / "artifact", place / "serving", manifest)
    stage(place / "artifact", place / "serving-explain", manifest)
    stage(place / "generic", place / "serving-generic", manifest)
    table = training.newest.inputs.head(ROWS)
    expected = candidate.pipeline.predict_proba(table)[:, 1].tolist()
    other = beside.predict_proba(table)[:, 1].tolist()
    (place / "rows.json").write_text(json.dumps({"rows": rows, "expected": expected, "generic": other}))


def prepared(path: Path) -> Any:
    """The training job up to the fit, on days published as the ingest job would."""
    from include import manifest as manifests
    from include.data.wiring import open_snapshot_store
    from include.kernel.job import Intent, JobRequest
    from include.training.wiring import plan_training
    from tests.job_world import FIRST, publish

    manifest = manifests.load(path)
    days = manifest.train.window_days + manifest.train.holdout_days
    for number in range(days):
        publish(open_snapshot_store(), manifest, FIRST + timedelta(days=number))
    as_of = FIRST + timedelta(days=days - 1 + manifest.label.delay_days)
    return plan_training(JobRequest(job="train", run_key="bench", as_of=as_of, intent=Intent.LIVE), manifest)


def fitted(training: Any) -> Any:
    from include.training import fitting

    return fitting.fit_candidate("boosting", training.manifest, training.rows, training.later)


def recorded(training: Any) -> list[dict[str, Any]]:
    from include.training import model_package

    return model_package._list_records(training.newest.inputs.head(ROWS))


def write(training: Any, candidate: Any, place: Path) -> None:
    import joblib
    import mlflow

    from include.training import model_package

    saved = model_package._save_artifact(training, candidate, place / "artifact")
    assert saved.meta.path == "compiled", saved.meta.why
    joblib.dump(candidate.pipeline, place / "pipeline.joblib")
    table = training.newest.inputs
    mlflow.sklearn.save_model(
        candidate.pipeline,
        place / "mlflow",
        signature=mlflow.models.infer_signature(table, candidate.pipeline.predict_proba(table)),
        pyfunc_predict_fn="predict_proba",  # a decision needs the probability; the default answers the class alone
        serialization_format="cloudpickle",
    )


def generic(training: Any, candidate: Any, place: Path) -> Any:
    """The same trees behind an encoder that merges rare values, which has no compiled form."""
    import joblib
    from sklearn.base import clone
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    from include.model.pipelines import _select_names
    from include.training import model_package
    from include.training.fitting import Candidate

    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=20, sparse_output=False)
    parts = [("numbers", "passthrough", "number"), ("categories", encoder, "category")]
    prepare = ColumnTransformer([(name, step, _select_names(training.columns, kind)) for name, step, kind in parts])
    made = Pipeline([("prepare", prepare), ("model", clone(candidate.pipeline[-1]))])
    made.fit(training.rows.inputs, training.rows.truth.astype(int))
    other = Candidate(**{**vars(candidate), "pipeline": made})
    saved = model_package._save_artifact(training, other, place / "generic")
    assert saved.meta.path == "generic", "it was compiled after all"
    joblib.dump(made, place / "generic.joblib")
    return made


def stage(artifact_: Path, serving: Path, manifest: Path) -> None:
    """As a release leaves a slot: artifact, a blessing by a key of this run, the slot's file; and the manifest."""
    from include.manifest import load
    from include.model import artifact
    from include.model.blessing import blessing
    from include.model.blessing.blessing import Blessing

    digest, key = artifact.compute_digest(artifact_), blessing.generate_key()
    artifact.copy_verified(artifact_, serving / "artifacts", digest)
    named = {"model": load(manifest).name, "version": VERSION, "digest": digest}
    signed = blessing.sign(Blessing.model_validate(blessed.document(**named)), key)
    paper = blessing.compute_envelope_digest(signed)
    write_atomic(serving / "blessings" / f"{paper}.json", signed)
    slot = {"version": VERSION, "digest": digest, "generation": 1, "blessing": paper}
    write_atomic(serving / "slots" / "blue.json", json.dumps(slot))
    write_atomic(serving / "trusted.pem", blessing.render_public_pem(key))
    shutil.copy(manifest, serving / "pipeline.yaml")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
