"""What the tests and the proof of portable models share: trained candidates in MLflow, and two who are asked.

One is the model server; the other a process that has nothing of this project but what MLflow stored with a model.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from fastapi.testclient import TestClient

from include.kernel.code_digest import ROOT
from include.model import artifact
from include.model.artifact import ArtifactMeta
from include.registry.mlflow_registry import MlflowRegistry
from include.serving.app import create_app
from include.serving.settings import Settings
from include.serving.wiring import open_service
from tests import credit
from tests.job_world import LAST
from tests.serving.conftest import stage_in

CANDIDATES: dict[str, dict[str, Any]] = {
    "logistic": {},
    "boosting": {"max_iter": 20},
    "random_forest": {"n_estimators": 10},
    "torch_mlp": {"max_epochs": 2},
}
FEATURES = "include.own.ratios:add_ratio"  # in a copy of the checkout; a network has no form behind a function
FEATURED = {kind: params for kind, params in CANDIDATES.items() if kind != "torch_mlp"}
OWN = {
    "__init__.py": "",
    "parts.py": "from scipy.special import expit\n",
    "ratios.py": "from .parts import expit\n\n\ndef add_ratio(table):\n"
    "    return table.assign(ratio=expit(table['Age'] / 50 - 1))\n",
}
TRAINS = (
    "import json, sys; from include.jobs.__main__ import run; from include.kernel.job import JobRequest;"
    "told = run(JobRequest(job='train', run_key='k', as_of=sys.argv[1], intent='live')).outputs;"
    "print(json.dumps(told))"
)


@dataclass(frozen=True)
class Logged:
    """A candidate's version of a registered model."""

    model: str
    kind: str
    version: str
    serving: Path
    meta: ArtifactMeta

    @property
    def addresses(self) -> list[str]:
        return [f"models:/{self.model}/{self.version}", f"models:/{self.model}@{self.kind}"]


def write_checkout(place: Path) -> Path:
    """A copy of the code with a feature function in a package of its own."""
    shutil.copytree(ROOT / "include", place / "include", ignore=shutil.ignore_patterns("__pycache__"))
    (place / "include" / "own").mkdir()
    for name, text in OWN.items():
        (place / "include" / "own" / name).write_text(text)
    return place


def train_elsewhere(checkout: Path) -> dict[str, Any]:
    """The outputs of the train job of another checkout, under the manifest in force."""
    told = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-W", "ignore", "-c", TRAINS, str(LAST)]
    done = subprocess.run(command, cwd=checkout, env=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    outputs: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outputs


def register(registry: MlflowRegistry, outputs: Mapping[str, Any], place: Path) -> list[Logged]:
    """Every candidate as a version, with its kind as alias, as the bless task registers the best."""
    found = []
    for kind, run in outputs["candidates"].items():
        version = registry.register(run["run_id"], f"runs:/{run['run_id']}/model")
        with registry.open_client() as client:
            client.set_registered_model_alias(registry.name, kind, version)
        (place / f"{registry.name}-{kind}").mkdir(parents=True)
        serving = registry.fetch(version, place / f"{registry.name}-{kind}")
        found.append(Logged(registry.name, kind, version, serving, artifact.read_meta(serving)))
    return found


def choose_table(meta: ArtifactMeta) -> pd.DataFrame:
    """Rows of the example with a text missing here and there, as a file holds them."""
    table = credit.data()[[column.name for column in meta.columns]].head(60).copy()
    table.loc[::7, "Home"] = None
    return table


def ask_server(logged: Logged, place: Path) -> list[float]:
    """The probabilities of the model server for the rows as JSON."""
    stage_in(place, logged.serving, "blue")
    told = {"slot": "blue", "serving_dir": place, "port": 0, "max_rows": 100, "unblessed": "allow"}
    client = TestClient(create_app(open_service(Settings.model_validate(told))))
    rows = json.loads(choose_table(logged.meta).to_json(orient="records"))
    answer = client.post("/predict", json={"rows": rows})
    assert answer.status_code == 200, answer.text
    return [each["probability"] for each in answer.json()["predictions"]]


def load_elsewhere(python: str, uri: str, models: list[Logged], place: Path) -> dict[str, Any]:
    """What loads_models.py tells, run by `python` in an empty folder and with no path of this project."""
    place.mkdir(parents=True)
    told = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EVERGREEN_"))}
    addresses = [address for logged in models for address in logged.addresses]
    asked = {"uri": uri, "models": addresses, "csv": choose_table(models[0].meta).to_csv(index=False)}
    script = shutil.copy(Path(__file__).with_name("loads_models.py"), place)
    command = [python, "-I", "-W", "ignore", script]
    done = subprocess.run(command, input=json.dumps(asked), cwd=place, env=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert seen["ours"] and not any(name.startswith(f"{ROOT}{os.sep}") for name in seen["ours"])
    return seen["answers"]
