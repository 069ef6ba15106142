"""`make prove-images`: the Dockerfile's stages are built from a plain Debian, and each image does what it is for.

    server    confined (no root, no write, no capability): loads a blessed model, is ready, predicts what the pipeline
              predicts, ends at SIGTERM; without its settings it says which
    job       confined: the real ingest job publishes a day; torch is there and finds no graphics card
    airflow   every DAG loads, also where the Astro CLI mounts the tree; both model servers under their process manager
              and Envoy before them start as docker-compose.yaml says, and a prediction goes through

BASE_IMAGE names another base, TORCH_INDEX another index for torch (empty: where pip looks anyway), KEEP=1 keeps the
images. Nothing is pulled but packages.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from include.kernel.files import write_atomic
from include.release.core.rollout import Route
from include.release.targets.local.envoy_routes import render
from tests.ground import free_ports, wait_for, write_manifest
from tests.proofs import compose_services
from tests.proofs.image_engine import CONFINED, ROOT, Builder, Image, missing, podman, said, say

USER = "10001"
FORBIDDEN = {
    "server": ("airflow", "mlflow", "torch", "optuna", "evidently", "pip"),
    "job": ("airflow", "pip", "pytest"),
    "airflow": ("pip", "pytest", "moto", "mypy"),
}
PRESENT = {
    "server": ("fastapi", "shap"),
    "job": ("mlflow", "torch"),
    "airflow": ("airflow", "mlflow", "celery", "asyncpg"),
}
FOUND = """
import importlib.util, json, os, sys
print(json.dumps([os.getuid(), [name for name in sys.argv[1:] if importlib.util.find_spec(name)]]))
"""
ASK = """
import sys, urllib.request as u
asked = u.Request(sys.argv[1], sys.argv[2].encode(), {"content-type": "application/json"})
print(u.urlopen(asked, timeout=10).read().decode())
"""
TORCH = "import torch; print(torch.__version__, torch.cuda.is_available())"
LOAD = "airflow db migrate >&2 && airflow dags list-import-errors -l -o json && airflow dags list -l -o json"


class Checks:
    """What was looked at, as it is looked at."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.count = 0

    def __call__(self, sentence: str, look: Callable[[], Any]) -> None:
        self.count += 1
        try:
            held, why = bool(look()), ""
        except Exception as error:
            held, why = False, f": {error}"
        say(f"{'ok  ' if held else 'FAIL'} {sentence}{why}")
        if not held:
            self.failed.append(sentence)


class World:
    """A serving directory with one blessed model, some rows, and what its pipeline says of them."""

    def __init__(self, place: Path) -> None:
        from include.model import artifact
        from include.model.compiled import compiling
        from tests import credit
        from tests.benchmarks.serving_model import stage

        self.place, self.serving = place, place / "serving"
        self.manifest = write_manifest(place / "pipeline.yaml", {"name": "credit"})
        model = credit.trained("boosting")
        artifact.save_compiled(compiling.compile_pipeline(model.pipeline), model.meta, place / "artifact")
        stage(place / "artifact", self.serving, self.manifest)
        self.rows = credit.rows()[:20]
        self.expected = [float(p) for p in model.predict_proba(self.rows)]
        _open(self.serving)

    def agrees(self, answer: str) -> bool:
        predicted = [each["probability"] for each in json.loads(answer)["predictions"]]
        return len(predicted) == len(self.rows) and all(
            abs(a - b) < 1e-6 for a, b in zip(predicted, self.expected, strict=True)
        )

    @property
    def question(self) -> str:
        return json.dumps({"rows": self.rows})


def _open(place: Path) -> None:
    """For the user of the images, who is nobody here."""
    for path in [place, *place.rglob("*")]:
        shutil.chown(path, int(USER), int(USER))


def _env(**told: str) -> list[str]:
    return [word for name, value in told.items() for word in ("--env", f"EVERGREEN_{name}={value}")]


def _get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=5)


def everybody(check: Checks, stage: str, image: Image, pip_conf: str) -> None:
    """What holds for all three."""
    wanted, unwanted = PRESENT[stage], FORBIDDEN[stage]
    looked = image.run("python", "-c", FOUND, *unwanted, *wanted, options=CONFINED)
    user, found = json.loads(looked.stdout)
    check(f"{stage}: runs as {USER}", lambda: user == int(USER) and image.inspect()["Config"]["User"] == USER)
    check(f"{stage}: holds {', '.join(wanted)}, not {', '.join(unwanted)}", lambda: found == [*wanted])
    settings = [line.partition(" = ")[2] for line in pip_conf.splitlines() if " = " in line]
    told = said("history", "--no-trunc", image.name) + json.dumps(image.inspect()["Config"])
    check(f"{stage}: tells no setting of the builder's pip", lambda: not [each for each in settings if each in told])
    left = image.run("sh", "-c", "ls /etc/pip.conf /run/secrets/*").stdout
    check(f"{stage}: no secret of the build is left in it", lambda: not left.strip())


def server(check: Checks, image: Image, world: World) -> None:
    refused = image.run(options=CONFINED)
    check("server: without a slot it says so", lambda: refused.returncode == 64 and "EVERGREEN_SLOT" in refused.stderr)
    test = image.healthcheck()
    check("server: has a healthcheck", lambda: test[0] == "CMD")
    [port] = free_ports(1)
    told = _env(SLOT="blue", PORT=str(port), BIND="127.0.0.1", TRUSTED_KEYS_FILE="/serving/trusted.pem")
    told += [*_env(MANIFEST="/serving/pipeline.yaml"), "--volume", f"{world.serving}:/serving:ro"]
    url = f"http://127.0.0.1:{port}"
    with image.running(options=[*CONFINED, *told, "--network", "host"]) as container:
        check("server: is ready, confined", lambda: wait_for(lambda: _get(f"{url}/ready").is_success))
        check("server: its healthcheck passes", lambda: podman("exec", container, *test[1:]).returncode == 0)
        answer = httpx.post(f"{url}/predict", content=world.question, trust_env=False, timeout=30)
        check("server: predicts what the pipeline predicts", lambda: world.agrees(answer.text))
        podman("stop", "--time", "30", container)
        ended = said("container", "inspect", "--format", "{{.State.ExitCode}}", container)
        check(f"server: ends at SIGTERM (exit code {ended})", lambda: ended == "0")


def job(check: Checks, image: Image, world: World) -> None:
    refused = image.run(options=CONFINED)
    named = "EVERGREEN_JOB_REQUEST" in refused.stdout
    check("job: without a request it says so, for good", lambda: refused.returncode == 65 and named)
    torch = image.run("python", "-c", TORCH, options=CONFINED).stdout.split()
    check(f"job: torch {torch[:1]} loads, and finds no graphics card", lambda: torch[1:] == ["False"])
    store = world.place / "store"
    store.mkdir()
    _open(store)
    request = {"job": "ingest", "run_key": "images", "as_of": "2026-08-10", "intent": "live"}
    request["params"] = {"day": "2026-08-01"}
    told = _env(JOB_REQUEST=json.dumps(request), JOB_RESULT="/store/result.json", STORE="/store", MANIFEST="/m.yaml")
    mounts = ["--volume", f"{store}:/store", "--volume", f"{world.manifest}:/m.yaml:ro"]
    done = image.run(options=[*CONFINED, *told, *mounts])
    say(f"     {(done.stdout + done.stderr)[-300:].strip()}")
    check("job: a real ingest publishes a day, confined", lambda: _published(store))


def _published(store: Path) -> bool:
    result = json.loads((store / "result.json").read_text())
    return result.get("verdict") == "yes" and len([*store.glob("snapshots/*/*/snapshot.json")]) == 1


def airflow(check: Checks, image: Image, world: World) -> None:
    stems = {path.stem for path in (ROOT / "dags").glob("*.py")}
    check("airflow: every DAG loads", lambda: _loaded(image, []) == stems)
    mounted = astro(world)
    check("airflow: and where the Astro CLI mounts the tree", lambda: _loaded(image, mounted) == stems | {"mounted"})
    state = world.place / "state"
    shutil.copytree(world.serving, state / "serving")
    write_atomic(state / "serving" / "route" / "routes.yaml", render(Route(live="blue", generation=1)))
    _open(state)
    serves(check, image, world, state)


def astro(world: World) -> list[str]:
    """User and mounts of `astro dev start`; one more DAG shows that the mounted folder is the one that is read."""
    dags = world.place / "dags"
    shutil.copytree(ROOT / "dags", dags)
    (dags / "mounted.py").write_text("from airflow.sdk import DAG\n\nwith DAG('mounted'):\n    pass\n")
    home = "/usr/local/airflow"
    mounts = [f"{dags}:{home}/dags", f"{ROOT / 'plugins'}:{home}/plugins", f"{ROOT / 'include'}:{home}/include"]
    return ["--user", "astro", *(word for mount in mounts for word in ("--volume", f"{mount}:ro"))]


def _loaded(image: Image, options: list[str]) -> set[str]:
    """The DAGs that the image's own Airflow finds; none may fail to load."""
    done = image.run("bash", "-c", LOAD, options=options)
    assert done.returncode == 0, done.stderr[-2000:]
    errors, dags = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("[]", "[{"))]
    assert errors == [], errors
    return {dag["dag_id"] for dag in dags}


def serves(check: Checks, image: Image, world: World, state: Path) -> None:
    """The services `slots` and `envoy` as the Compose file has them, in a network of their own."""
    key = (world.serving / "trusted.pem").read_text().splitlines()[1]
    services = compose_services.services(dict.fromkeys(_asked(), "0" * 32) | {"BLESSING_PUBLIC_KEYS": key})
    slots, envoy = services["slots"], services["envoy"]
    slots["environment"]["EVERGREEN_SNAPSHOTS"] = "/var/lib/evergreen/store"  # the bucket is not there
    told, beside = (compose_services.options(each, {"state": state}) for each in (slots, envoy))
    with image.running(*slots["command"], options=[*told, "--network", "none"]) as first:
        check("compose: slots is healthy", lambda: wait_for(lambda: _passes(first, slots)))
        with image.running(*envoy["command"], options=[*beside, "--network", f"container:{first}"]) as second:
            check("compose: envoy is healthy", lambda: wait_for(lambda: _passes(second, envoy)))
            ask = ["exec", first, "python", "-c", ASK, "http://127.0.0.1:8088/predict", world.question]
            check("compose: Envoy hands a prediction on", lambda: world.agrees(wait_for(lambda: podman(*ask).stdout)))


def _passes(container: str, service: dict[str, Any]) -> bool:
    return podman("exec", container, *compose_services.health(service)).returncode == 0


def _asked() -> list[str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return [line.removesuffix("=") for line in lines if line.endswith("=") and not line.startswith("#")]


def main() -> int:
    if lack := missing():
        print(lack)
        print(json.dumps({"ok": False, "missing": lack}))
        return 1
    check, built = Checks(), dict[str, Image]()
    with tempfile.TemporaryDirectory(prefix="evergreen-images-") as name:
        place = Path(name)
        place.chmod(0o755)
        try:
            prove(check, built, place)
        finally:
            if not os.environ.get("KEEP"):
                podman("rmi", "--force", *(image.name for image in built.values()))
    figures = {stage: {"mb": image.mb, "seconds": image.seconds} for stage, image in built.items()}
    ok = not check.failed and {*FORBIDDEN} <= {*built}
    print(json.dumps({"ok": ok, "images": figures, "checks": check.count, "failed": check.failed}))
    return 0 if ok else 1


def prove(check: Checks, built: dict[str, Image], place: Path) -> None:
    builder, world = Builder(place), World(place)
    built["base"] = builder.base()
    for stage, looks in {"server": server, "job": job, "airflow": airflow}.items():
        built[stage] = image = builder.build(stage, built["base"])
        everybody(check, stage, image, (place / "pip.conf").read_text())
        looks(check, image, world)


if __name__ == "__main__":
    sys.exit(main())
