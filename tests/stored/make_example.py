"""Makes a small installation with the code of this checkout, for a later version to read.

    python -m tests.stored.make_example tests/stored/2026-11-30

What a version wrote can only be had from that version, so this is run before a change of forms, never after it.
Everything is done as a user would: the stack is started, DAGs run, jobs run, commands run, a client asks and tells
outcomes. The stack's home is then packed without logs, secrets and Airflow's own state, and `expected.json` beside it
says what was answered, for the later version to answer again.

Paths of the machine become @HOME@ and @CODE@. The ledger is a chain of hashes and must hold none; this is checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import polars as pl
import yaml

CODE = Path(__file__).resolve().parents[2]
NAME = "credit-stored"
FIRST, DAYS = date(2026, 8, 1), 4
AS_OF = FIRST + timedelta(days=DAYS)
ASKED = 12  # rows that are predicted, and whose outcomes are told
WEAK = {"logistic": {"C": 0.0001}}  # what the first training tries, so that the second one is better for sure
PROGRAMS = ("mlflow", "envoy", "slot-blue", "slot-green")
PORTS = (
    *("AIRFLOW", "WORKER_LOG", "TRIGGER_LOG", "MLFLOW", "SERVING", "ENVOY_ADMIN"),
    *("BLUE", "GREEN", "EXPORTER", "SUPERVISOR"),
)
KEPT = ("pipeline.yaml", "outcomes.csv", "keys/trusted.pem", "mlflow/mlflow.db", "mlflow/artifacts", "store", "serving")
SCRATCH = (".lock", "ledger.lock", ".draft", "-wal", "-shm")
MANIFEST: dict[str, Any] = {
    "name": NAME,
    "source.days": 8,
    "label.delay_days": 1,
    "contract.data_docs": "never",
    "train.window_days": 3,
    "train.holdout_days": 1,
    "train.min_rows": 500,
    "train.candidates": {"logistic": {"C": 1.0}, "boosting": {"max_iter": 4, "max_leaf_nodes": 4}},
    "train.explain_rows": 0,
    "backtest.follow_days": 1,
    "gate.confidence": 0.8,
    "gate.resamples": 200,
    "gate.floor_auc": 0.55,
    "gate.approval": "never",
    "gate.infra.max_p99_ms": 10_000,
    "gate.infra.max_rss_mb": 4_000,
    "serving.ready_timeout_s": 150,
    "serving.max_latency_ms": 15_000,
    "serving.smoke_rows": 5,
    "serving.log": {"flush_s": 1.0},
    "release.soak_s": 0.5,
    "release.soak_interval_s": 0.1,
    "monitor.window_days": 1,
    "monitor.psi": 5.0,
    "monitor.persistence": {"k": 1, "n": 1},
}


def main(place: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="evergreen-example-") as scratch:
        home = Path(scratch) / "home"
        home.mkdir()
        write_manifest(home / "pipeline.yaml")
        environment = prepare_environment(home, free_ports(len(PORTS)))
        with run_stack(environment):
            expected = fill(home, environment)
        expected |= describe_ledger(home) | {"logged": count_log(home)}  # servers write their last rows as they end
        clean_database(home / "mlflow" / "mlflow.db", home)
        place.mkdir(parents=True, exist_ok=True)
        pack(home, place / "home.tar.xz")
        text = json.dumps(expected, indent=1, sort_keys=True)
        (place / "expected.json").write_text(hide_paths(text, home) + "\n")


def write_manifest(path: Path, changes: Mapping[str, Any] = MappingProxyType({})) -> None:
    """The shipped one with some fields, named "section.field", set to something small."""
    content = yaml.safe_load((CODE / "include" / "pipeline.yaml").read_text())
    for name, value in {**MANIFEST, **changes}.items():
        *sections, field = name.split(".")
        section = content
        for part in sections:
            section = section[part]
        section[field] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def prepare_environment(home: Path, ports: Sequence[int]) -> dict[str, str]:
    """That of a person who has a home and ports of his own, and a neutral name."""
    foreign = ("AIRFLOW_", "EVERGREEN_", "MLFLOW_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        **own,
        **{f"EVERGREEN_{name}_PORT": str(port) for name, port in zip(PORTS, ports, strict=True)},
        "EVERGREEN_HOME": str(home),
        "EVERGREEN_MANIFEST": str(home / "pipeline.yaml"),
        "EVERGREEN_PROGRAMS": json.dumps(PROGRAMS),
        "LOGNAME": "somebody",
        "USER": "somebody",
        "COLUMNS": "400",
    }


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def run_stack(environment: dict[str, str]) -> Iterator[None]:
    """`environment` is then that of a task."""
    stack = partial(run_module, "include.embedded", environment=environment)
    try:
        stack("up")
        lines = [line.removeprefix("export ") for line in stack("env").splitlines() if line.startswith("export ")]
        seen = dict(shlex.split(line)[0].split("=", 1) for line in lines)
        environment.update(seen)
        yield
    finally:
        stack("down")


def run_module(module: str, *arguments: str, environment: Mapping[str, str], code: Path = CODE) -> str:
    """What it printed. `code` is the checkout it is taken from."""
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    path = {"PYTHONPATH": f"{code}{os.pathsep}{code / 'plugins'}"}
    done = subprocess.run(command, cwd=code, env={**environment, **path}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


# --- what happens in the installation ---------------------------------------------------------------------------------


def fill(home: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Days, two versions that served, predictions with outcomes, scores, a report, a fold; what was answered."""
    play = open_dags(environment)
    for number in range(DAYS):
        day = FIRST + timedelta(days=number)
        play("ingest", day=str(day), as_of=str(day + timedelta(days=1)))
    rows = read_rows()
    write_manifest(home / "pipeline.yaml", {"train.candidates": WEAK})
    first = train_and_deploy(play, reason="the first of all")
    predicted = {first: predict(environment, rows, "first")}
    write_manifest(home / "pipeline.yaml")
    second = train_and_deploy(play, reason="other candidates")
    predicted[second] = predict(environment, rows, "second")
    tell_outcomes(home, environment, rows)
    play("deploy", check=False, version="9", why="there is no such version")  # refused: an entry of its own
    pinned = returned(play("score", day=str(FIRST)), "pin")
    play("monitor", as_of=str(AS_OF))
    run_module(command_of("rollback"), "--why", "somebody wants the first again", environment=environment)
    jobs = run_jobs(home, environment, pinned)
    told = {"rows": rows, "predictions": predicted, "jobs": jobs, "live": first, "standby": second}
    return told | describe_registry(environment)


def open_dags(environment: Mapping[str, str]) -> Callable[..., Any]:
    """Runs a DAG of the checkout by its id, in this process, as the task runner would."""
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [str(CODE), str(CODE / "plugins")]
    airflow = str(Path(sys.executable).with_name("airflow"))
    subprocess.run([airflow, "db", "migrate"], check=True, capture_output=True, timeout=120)
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(CODE / "dags"))

    def play(dag_id: str, check: bool = True, **conf: Any) -> Any:
        bag.dags[dag_id].deadline = None  # dag.test() stores no deadline, and fails when it looks for it
        run = bag.dags[dag_id].test(run_conf=conf)
        states = {task.task_id: str(task.state) for task in run.get_task_instances()}
        print(dag_id, conf, states, flush=True)
        if check and "failed" in states.values():
            raise SystemExit(f"{dag_id} failed")
        return run

    return play


def returned(run: Any, task_id: str) -> Any:
    [task] = [task for task in run.get_task_instances() if task.task_id == task_id]
    return task.xcom_pull(task_ids=task_id)


def train_and_deploy(play: Callable[..., Any], **conf: Any) -> str:
    """The version, which serves."""
    blessed = returned(play("train", as_of=str(AS_OF), **conf), "bless")
    if not blessed:
        raise SystemExit("The gate did not let the model pass; the example needs two that pass.")
    version = str(blessed["version"])
    play("deploy", version=version)
    return version


def read_rows() -> list[dict[str, Any]]:
    """Some of the shipped rows, as a client sends them."""
    shipped = pl.read_csv(CODE / "include" / "data" / "credit_data.csv", infer_schema_length=None)
    return shipped.head(ASKED).drop("Status").to_dicts()


def predict(environment: Mapping[str, str], rows: list[dict[str, Any]], request_id: str) -> dict[str, Any]:
    url, headers = environment["EVERGREEN_SERVING_URL"], {"x-request-id": request_id}
    token = environment["EVERGREEN_SERVING_TOKEN"]
    with httpx.Client(trust_env=False, timeout=30, headers={"authorization": f"Bearer {token}"}) as client:
        answer = client.post(f"{url}/predict", json={"rows": rows}, headers=headers).raise_for_status().json()
    return {"version": answer["version"], "probabilities": [each["probability"] for each in answer["predictions"]]}


def tell_outcomes(home: Path, environment: Mapping[str, str], rows: list[dict[str, Any]]) -> None:
    """As `make feedback FILE=...` does."""
    file = home / "outcomes.csv"
    lines = [f"first,{number},{'bad' if number % 3 == 0 else 'good'}" for number in range(len(rows))]
    file.write_text("\n".join(["request_id,row,label", *lines]) + "\n")
    run_module(command_of("feedback"), str(file), environment=environment)


def command_of(target: str) -> str:
    """The module behind a target of the Makefile."""
    recipe = (CODE / "Makefile").read_text().split(f"\n{target}:", 1)[1]
    return recipe.split(" -m ", 1)[1].split()[0]


def run_jobs(home: Path, environment: Mapping[str, str], pinned: Any) -> dict[str, Any]:
    """Each job by its public door: its request, and what it answered. The training finds its work done."""
    live, past = {"as_of": str(AS_OF), "intent": "live"}, {"as_of": str(AS_OF - timedelta(days=1))}
    jobs = {"train": ask_job(home, environment, job="train", **live)}
    challenger = jobs["train"]["result"]["outputs"]["run_id"]
    jobs["evaluate"] = ask_job(home, environment, job="evaluate", params={"run_id": challenger}, **live)
    gate = jobs["evaluate"]["result"]["outputs"]["gate"]
    jobs["evaluate"]["result"]["outputs"]["gate"] = {name: gate[name] for name in ("verdict", "metrics", "intervals")}
    jobs["monitor"] = ask_job(home, environment, job="monitor", **live)
    jobs["score"] = ask_job(home, environment, job="score", params={"pinned": pinned}, **live)
    jobs["backtest"] = ask_job(home, environment, job="backtest", intent="historical", **past)
    return jobs


def ask_job(home: Path, environment: Mapping[str, str], **asked: Any) -> dict[str, Any]:
    request = {"run_key": "stored", "params": {}, **asked}
    return {"request": request, "result": run_job(home, environment, request)}


def run_job(
    home: Path, environment: Mapping[str, str], request: Mapping[str, Any], code: Path = CODE
) -> dict[str, Any]:
    """The job's result."""
    file = home / "result.json"
    asked = {"EVERGREEN_JOB_REQUEST": json.dumps(request), "EVERGREEN_JOB_RESULT": str(file)}
    run_module("include.jobs", environment={**environment, **asked}, code=code)
    result: dict[str, Any] = json.loads(file.read_text())
    return result


def count_log(home: Path) -> int:
    return sum(pl.read_parquet(path).height for path in (home / "store" / "predictions").rglob("*.parquet"))


# --- what is told about it --------------------------------------------------------------------------------------------


def describe_registry(environment: Mapping[str, str]) -> dict[str, Any]:
    """Runs and versions as MLflow's own interface tells them."""
    url = f"{environment['MLFLOW_TRACKING_URI']}/api/2.0/mlflow"
    with httpx.Client(trust_env=False, timeout=30) as client:
        experiment = client.get(f"{url}/experiments/get-by-name", params={"experiment_name": NAME}).json()["experiment"]
        asked = {"experiment_ids": [experiment["experiment_id"]], "max_results": 1000}
        runs = client.post(f"{url}/runs/search", json=asked).raise_for_status().json()["runs"]
        versions = client.get(f"{url}/model-versions/search").raise_for_status().json()["model_versions"]
    return {
        "runs": {run["info"]["run_id"]: describe_run(run) for run in runs},
        "versions": {each["version"]: describe_version(each) for each in versions},
    }


def describe_run(run: Mapping[str, Any]) -> dict[str, Any]:
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"] if tag["key"].startswith("evergreen.")}
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    return {"status": run["info"]["status"], "tags": tags, "metrics": metrics}


def describe_version(version: Mapping[str, Any]) -> dict[str, Any]:
    """A blessing is long, and known by its hash."""
    tags = {tag["key"]: hashlib.sha256(tag["value"].encode()).hexdigest() for tag in version["tags"]}
    return {"run_id": version["run_id"], "tags": tags}


def describe_ledger(home: Path) -> dict[str, Any]:
    lines = (home / "store" / "ledger.jsonl").read_bytes().splitlines()
    kinds = sorted({json.loads(line)["what"] for line in lines})
    head = hashlib.sha256(lines[-1]).hexdigest()
    return {"ledger": {"entries": len(lines), "kinds": kinds, "newest": head}}


# --- how it is packed -------------------------------------------------------------------------------------------------


def clean_database(path: Path, home: Path) -> None:
    """Without this machine's paths, and as small as it gets."""
    with closing(sqlite3.connect(path)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]
            for column, (found, shown) in ((column, pair) for column in columns for pair in hidden(home)):
                change = f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)'
                database.execute(change, (found, shown, found))
        database.commit()
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("VACUUM")


def hidden(home: Path) -> tuple[tuple[str, str], ...]:
    return (str(home), "@HOME@"), (str(CODE), "@CODE@")


def hide_paths(text: str, home: Path) -> str:
    for found, shown in hidden(home):
        text = text.replace(found, shown)
    return text


def pack(home: Path, archive: Path) -> None:
    """Nobody's files: without owners, and in one order, which also keeps them small."""
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for path in sorted(found_files(home), key=lambda path: (path.suffix, path.name)):
            hide_in_file(path, home)
            packed.add(path, path.relative_to(home), filter=without_owner)


def found_files(home: Path) -> Iterator[Path]:
    for name in KEPT:
        place = home / name
        found = [place] if place.is_file() else place.rglob("*")
        yield from (path for path in found if path.is_file() and not path.name.endswith(SCRATCH))


def hide_in_file(path: Path, home: Path) -> None:
    data = path.read_bytes()
    cleaned = data
    for found, shown in hidden(home):
        cleaned = cleaned.replace(found.encode(), shown.encode())
    if cleaned == data:
        return
    if path.name == "ledger.jsonl" or b"\0" in data:
        raise SystemExit(f"{path.relative_to(home)} holds a path of this machine and cannot be changed.")
    times, mode = path.stat(), path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(cleaned)
    path.chmod(mode)
    os.utime(path, (times.st_atime, times.st_mtime))


def without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
