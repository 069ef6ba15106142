"""A hundred users of the model server, for people who want to see it under their own eyes: `make load`.

    make load                               a minute without a browser; exit code 1 if anything failed
    make load WEB=1                         locust's page on http://127.0.0.1:8089, with its graphs
    make load USERS=500 SECONDS=300         more of it
    make load HOST=http://127.0.0.1:9000    another server; LOCUST_TOKEN is its API token

Rows are those of the manifest's example, as clients would send them; a user asks twice a second. Most ask for one
prediction, some for twenty; a few speak MLflow's or the Open Inference Protocol's dialect, and a few want to know why,
where the model can be explained. An answer counts as good when it holds one probability for each row. How fast the
server can be is another question: see bench-serving, whose client costs less than the server.
"""

from __future__ import annotations

import math
import random
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from locust import FastHttpUser, constant_throughput, events, task
from locust.env import Environment

from include.embedded.commands.traffic import read_rows
from include.embedded.configuration.settings import EmbeddedSettings
from include.manifest import DEFAULT_PATH, load

PER_USER = 2.0  # requests a second
MANY = 20
START_S = 60.0
Row = dict[str, object]
Reads = Callable[[Any], Sequence[float]]


MANIFEST = load(DEFAULT_PATH)
ROWS = read_rows(DEFAULT_PATH.parents[1] / MANIFEST.source.path, MANIFEST)
DATATYPES = {name: "FP64" if spec.kind == "number" else "BYTES" for name, spec in MANIFEST.contract.columns.items()}


@events.init_command_line_parser.add_listener
def options(parser: ArgumentParser) -> None:
    parser.add_argument("--token", default="", env_var="LOCUST_TOKEN", is_secret=True, help="an API token")


@events.init.add_listener
def wait_for_explanations(environment: Environment, **_: object) -> None:
    """The explainer starts with its first question, and says 503 until it is there: users come afterwards."""
    url = environment.host or Client.host
    with httpx.Client(base_url=url, headers=headers(environment), timeout=30, trust_env=False) as client:
        deadline = time.monotonic() + START_S
        try:
            while (status := client.post("/predict-and-explain", json={"row": ROWS[0]}).status_code) == 503:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.5)
        except httpx.TransportError as error:
            raise SystemExit(f"Nothing answers at {url} ({type(error).__name__}); start it with `make up`.") from error
    Client.explains = status == 200


def headers(environment: Environment) -> dict[str, str]:
    token = environment.parsed_options.token
    return {"authorization": f"Bearer {token}"} if token else {}


def tensor(name: str, values: Sequence[object]) -> dict[str, object]:
    return {"name": name, "shape": [len(values)], "datatype": DATATYPES[name], "data": list(values)}


class Client(FastHttpUser):
    """One caller with a keep-alive connection."""

    host = EmbeddedSettings().serving_url
    wait_time = constant_throughput(PER_USER)
    model = "unknown"
    explains = False

    def on_start(self) -> None:
        self.headers = headers(self.environment)
        described = self.client.get("/model", headers=self.headers)
        if described.ok:
            self.model = described.json()["name"]

    @task(68)
    def one(self) -> None:
        self.ask("/predict", {"row": random.choice(ROWS)}, 1, predictions)

    @task(15)
    def many(self) -> None:
        self.ask("/predict", {"rows": random.choices(ROWS, k=MANY)}, MANY, predictions, name="/predict (20 rows)")

    @task(7)
    def as_mlflow(self) -> None:
        row = random.choice(ROWS)
        body = {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}
        self.ask("/invocations", body, 1, mlflow_predictions)

    @task(7)
    def as_kserve(self) -> None:
        rows = random.choices(ROWS, k=2)
        tensors = [tensor(name, [row[name] for row in rows]) for name in rows[0]]
        path = f"/v2/models/{self.model}/infer"
        self.ask(path, {"inputs": tensors}, 2, tensor_of_probabilities, name="/v2/models/{name}/infer")

    @task(3)
    def why(self) -> None:
        if self.explains:
            self.ask("/predict-and-explain", {"row": random.choice(ROWS)}, 1, predictions)

    @task(1)
    def look(self) -> None:
        self.client.get("/model", headers=self.headers)

    def ask(self, path: str, body: object, rows: int, read: Reads, name: str | None = None) -> None:
        with self.client.post(path, json=body, headers=self.headers, catch_response=True, name=name or path) as answer:
            if answer.status_code != 200:
                return answer.failure(f"{answer.status_code}: {answer.text[:200]}")
            try:  # locust would report what is raised here, and not count it as a failure
                found = read(answer.json())
            except (KeyError, TypeError, ValueError) as error:
                return answer.failure(f"no prediction: {type(error).__name__}")
            if len(found) != rows or not all(math.isfinite(each) and 0 <= each <= 1 for each in found):
                answer.failure(f"{len(found)} probabilities for {rows} rows")


def predictions(answer: Any) -> list[float]:
    return [each["probability"] for each in answer["predictions"]]


def mlflow_predictions(answer: Any) -> list[float]:
    return [float(each) for each in answer["predictions"]]


def tensor_of_probabilities(answer: Any) -> list[float]:
    [found] = [each["data"] for each in answer["outputs"] if each["name"] == "probability"]
    return [float(each) for each in found]
