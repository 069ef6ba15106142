"""The local serving target with real processes behind it, and artifacts to release into it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
from numpy.typing import NDArray

from include.embedded.configuration.settings import ProgramName
from include.embedded.stack.stack import Stack
from include.kernel.files import write_atomic
from include.kernel.words.colours import Colour
from include.kernel.words.verdicts import Verdict
from include.model import artifact
from include.model.artifact import Golden, ServableModel
from include.model.blessing.blessing import render_public_pem
from include.model.calibration import Calibration
from include.model.compiled import compiling
from include.model.integrity.artifact_integrity import copy_verified
from include.registry.base import ArtifactSource
from include.release.core.rollout import BLUE_GREEN, DesiredState, Release, ReleasePlan, Route
from include.release.targets.base import ServingTarget
from include.release.targets.local import envoy_routes
from include.release.targets.local.target import LocalTarget
from include.release.targets.local.traffic import LocalAddresses
from tests import blessed, credit
from tests.ground import wait_for

MODEL = "credit"  # the name in the artifacts of tests.credit


class Serving:
    """The local serving target with real processes behind it, and what an outage does to them.

    `can` is what files and Envoy add to a target's contract; another target may go without.
    """

    can = frozenset({"files", "split", "failover", "generation header", "guarded admin", "proxy"})

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.root = stack.settings.serving_dir
        self.addresses = LocalAddresses(
            stack.settings.serving_url,
            stack.settings.envoy_admin_url,
            {"blue": stack.settings.blue_url, "green": stack.settings.green_url},
            stack.build_env()["EVERGREEN_SUPERVISOR_URL"],
        )
        self.target: ServingTarget = LocalTarget(self.root, self.addresses, stack.secret.serving_token)
        self._client = httpx.Client(trust_env=False, timeout=5)
        with stack.settings.trusted_keys.open("a") as trusted:
            trusted.write(render_public_pem(blessed.KEY))

    def want(
        self,
        release: Release,
        kind: Literal["deploy", "rollback"] = "deploy",
        by: str = "a test",
        plan: ReleasePlan = BLUE_GREEN,
    ) -> DesiredState:
        """A wish as the deploy DAG makes it, with a blessing that the slots trust."""
        named = {"model": MODEL, "version": release.version, "digest": release.digest}
        envelope = blessed.envelope(blessed.document(**named))
        return self.target.request_release(release, by, "to see", kind, blessing=envelope, plan=plan)

    def ask(self, row: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """One prediction through the proxy, as a client would ask for it."""
        body = {"rows": [dict(row or credit.rows()[0])]}
        return self._client.post(f"{self.addresses.proxy}/predict", json=body, headers=dict(headers or {}))

    def scores(self, rows: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.float64], list[str]]:
        """Probabilities and labels of many rows through the proxy, a thousand a request."""
        found = []
        for first in range(0, len(rows), 1000):
            body = {"rows": [dict(row) for row in rows[first : first + 1000]]}
            answer = self._client.post(f"{self.addresses.proxy}/predict", json=body)
            found += answer.raise_for_status().json()["predictions"]
        return np.array([each["probability"] for each in found]), [each["label"] for each in found]

    def describe(self) -> dict[str, Any]:
        """What the live slot says it holds."""
        described: dict[str, Any] = self._client.get(f"{self.addresses.proxy}/model").json()
        return described

    def answers_with(self, version: str) -> bool:
        answer = self.ask()
        return answer.status_code == 200 and answer.json()["version"] == version

    def answered_by(self, colour: Colour) -> int:
        """How many predictions this slot's process has answered with 200."""
        told = self._client.get(f"{self.addresses.slots[colour]}/metrics").text
        found = re.findall(r'^evergreen_requests_total\{.*path="/predict".*status="200".*\} (\S+)$', told, re.MULTILINE)
        return int(sum(map(float, found)))

    def is_empty(self, colour: Colour) -> bool:
        return "empty" in self.target.explain_not_ready(colour)

    def kill(self, program: ProgramName) -> None:
        """SIGKILL by the process manager, which then restarts what it still wants."""
        self.stack.supervisor.rpc.signalProcess(program, "KILL")

    def stop(self, program: ProgramName) -> None:
        self.stack.supervisor.rpc.stopProcess(program)

    def start_all(self) -> None:
        """What a test stopped, runs again."""
        self.stack.start()

    def forget(self) -> None:
        """Nothing wanted, nothing staged, no route; the slots' processes keep what they hold until they are staged."""
        for name in ("wanted.json", "verdicts", "progress", "artifacts", "blessings", "slots"):
            _remove(self.root / name)
        write_atomic(self.root / "route" / "routes.yaml", envoy_routes.render(Route()))
        wait_for(lambda: self.ask().headers["x-evergreen-generation"] == "0")

    def go_live(self, colour: Colour, wanted: DesiredState, artifact_: Path) -> None:
        """As an earlier release left it; a slot whose process holds the release already is not restarted."""
        copy_verified(artifact_, self.root / "artifacts", wanted.release.digest)
        content = {**asdict(wanted.release), "generation": wanted.generation, "blessing": wanted.blessing}
        write_atomic(self.root / "slots" / f"{colour}.json", json.dumps(content))
        self.target.nudge(colour)
        wait_for(lambda: self.target.observe().get_slot(colour).ready)
        self.target.switch(colour, wanted)
        self.target.record_verdict(wanted.generation, "accepted", Verdict.PASSED, "an earlier run")
        self.target.record_verdict(wanted.generation, "soaked", Verdict.PASSED, "an earlier run")


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


class Trained(ArtifactSource):
    """Artifacts of the example data by version, as a registry hands them out.

    The good ones are compiled, as trainings leave them, and load in a tenth of a second; the bad ones are generic.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._save_compiled("1", credit.trained("logistic"))
        self._save_compiled("2", credit.trained("boosting"))
        self._save_compiled("narrow", credit.trained("boosting", "Age", "Amount", "Home"))
        self._save_compiled("gloomy", _gloomy(credit.trained("boosting")))
        self._save("extra-column", _asking_for_more(credit.trained("logistic")))
        self._damage(self._save("unloadable", credit.trained("logistic")))

    def _save(self, version: str, model: ServableModel) -> Path:
        artifact.save(model.pipeline, model.meta, self.root / version)
        return self.root / version

    def _save_compiled(self, version: str, model: ServableModel) -> None:
        artifact.save_compiled(compiling.compile_pipeline(model.pipeline), model.meta, self.root / version)

    @staticmethod
    def _damage(place: Path) -> None:
        """Broken before the digest is taken: it arrives as it was sent, and cannot be loaded."""
        (place / "model.skops").write_bytes(b"this was a model")

    def release(self, version: str) -> Release:
        return Release(version, artifact.compute_digest(self.root / version))

    def fetch(self, version: str, destination: Path) -> Path:
        return Path(shutil.copytree(self.root / version, destination / "artifact"))


def _gloomy(model: ServableModel) -> ServableModel:
    """A model that is sound by itself and finds everybody riskier than the others do: by one in log-odds."""
    calibration = Calibration(method="sigmoid", intercept=1.0)
    moved = calibration(np.array([g.probability for g in model.meta.golden]))
    golden = tuple(Golden(row=g.row, probability=float(p)) for g, p in zip(model.meta.golden, moved, strict=True))
    return ServableModel(model.meta.model_copy(update={"calibration": calibration, "golden": golden}), model.pipeline)


def _asking_for_more(model: ServableModel) -> ServableModel:
    """A model that demands a column no client sends; its own golden rows carry it, so only real rows find out."""
    column = model.meta.columns[0].model_copy(update={"name": "Salary", "nullable": False})
    golden = tuple(Golden(row={**g.row, "Salary": 1.0}, probability=g.probability) for g in model.meta.golden)
    meta = model.meta.model_copy(update={"columns": (*model.meta.columns, column), "golden": golden})
    return ServableModel(meta, model.pipeline)
