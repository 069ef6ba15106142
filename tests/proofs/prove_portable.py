"""`make prove-portable`: a model in MLflow is loaded and asked by somebody who has nothing of this project.

Every candidate is trained, also behind a feature function with modules and packages of its own, and registered in a
real MLflow server. For each different list of requirements that MLflow stored with a version, uv builds a fresh
environment of just that list. In it a process without the project loads each version by number and by alias, and asks
it four tables, as pandas may read one file; the answers are held to those of the model server for the same rows.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

import include
from include import manifest as manifests
from include.data.wiring import open_snapshot_store
from include.jobs.__main__ import run
from include.kernel.job import Intent, JobRequest
from include.registry.mlflow_registry import MlflowRegistry
from tests import ground, portable
from tests.job_world import FIRST, LAST, publish

NAME = "credit-portable"
TOLERANCE = 1e-9


def put_in_force(home: Path, name: str, **changes: Any) -> None:
    told = ground.SMALL | {"name": name, "train.explain_rows": 5} | changes
    os.environ["EVERGREEN_MANIFEST"] = str(ground.write_manifest(home / f"{name}.yaml", told))


def train(home: Path, url: str) -> list[portable.Logged]:
    """All candidates, and behind a feature function those that a function can stand before."""
    os.environ |= {"EVERGREEN_STORE": str(home / "store"), "MLFLOW_TRACKING_URI": url}
    put_in_force(home, NAME, **{"train.candidates": portable.CANDIDATES})
    for number in range(4):
        publish(open_snapshot_store(), manifests.read_manifest(), FIRST + timedelta(days=number))
    outputs = run(JobRequest(job="train", run_key="k", as_of=LAST, intent=Intent.LIVE)).outputs
    models = portable.register(MlflowRegistry(NAME, url), outputs, home / "artifacts")
    checkout = portable.write_checkout(home / "checkout")
    own = {"train.candidates": portable.FEATURED, "train.features": portable.FEATURES}
    put_in_force(home, f"{NAME}-own", **own)
    include.__path__.append(str(checkout / "include"))  # for the server in this process
    outputs = portable.train_elsewhere(checkout)
    return models + portable.register(MlflowRegistry(f"{NAME}-own", url), outputs, home / "artifacts")


def build_environment(requirements: str, place: Path) -> str:
    """The Python of a new environment that holds these and nothing of ours."""
    uv, python = str(Path(sys.executable).with_name("uv")), str(place / "bin" / "python")
    listed = place.with_suffix(".txt")
    listed.write_text(requirements)
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(place)], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "-r", str(listed)], check=True)
    return python


def group_by_requirements(models: list[portable.Logged]) -> dict[str, list[portable.Logged]]:
    grouped = defaultdict(list)
    for logged in models:
        listed = mlflow.pyfunc.get_model_dependencies(logged.addresses[0])
        grouped[Path(listed).read_text()].append(logged)
    return dict(grouped)


def compare(logged: portable.Logged, answers: dict[str, Any], place: Path) -> list[float]:
    """The largest distance from the server's answers, for each address and table."""
    served = np.array(portable.ask_server(logged, place))
    asked = [answer for address in logged.addresses for answer in answers[address].values()]
    return [float(np.abs(np.array(answer) - served).max()) for answer in asked]


def prove(home: Path) -> dict[str, Any]:
    began, worst = time.monotonic(), {}
    with ground.stack(home, "mlflow") as stack:
        url = stack.settings.mlflow_url
        mlflow.set_tracking_uri(url)
        grouped = group_by_requirements(train(home, url))
        for number, (requirements, models) in enumerate(grouped.items()):
            python = build_environment(requirements, home / f"environment-{number}")
            print(f"environment {number}: {' '.join(requirements.split())}", flush=True)
            for logged in models:
                name = f"{logged.model} {logged.kind}"
                answers = portable.load_elsewhere(python, url, [logged], home / "elsewhere" / name)
                distances = compare(logged, answers, home / "serving" / name)
                worst[name] = max(distances)
                print(f"  {name} ({logged.meta.runtime}): {len(distances)} answers, {worst[name]:.1e} off", flush=True)
    expected = len(portable.CANDIDATES) + len(portable.FEATURED)
    return {
        "ok": len(worst) == expected and all(distance <= TOLERANCE for distance in worst.values()),
        "models": len(worst),
        "environments": len(grouped),
        "worst": worst,
        "seconds": round(time.monotonic() - began),
    }


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="evergreen-proof-") as home:
        document = prove(Path(home))
    print(json.dumps(document))
    return 0 if document["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
