"""kill -9 of a task's process, and of the worker above it, in a real Airflow at every step of a release.

A stack of its own with Airflow's four programs. The DAGs are those of dags/; they retry after a second instead of ten,
and a worker that is gone is noticed sooner (SOONER), so that a case takes seconds. A killed worker leaves its task's
process behind, which goes on while Airflow runs the task again: two runs of one release at the same time.

Also here: the scheduler and the API server, and with it the metadata database for every task, are gone during a soak.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

from include.embedded.commands.airflow_api import AirflowApi
from include.embedded.commands.airflow_api import wait_for as wait_for_airflow
from include.embedded.configuration import environment
from include.kernel.wiring import open_ledger
from tests.ground import wait_for
from tests.proofs.outcomes import Named, Outcomes, must
from tests.proofs.release_cycles import has_come
from tests.proofs.release_points import SWITCHED, Point
from tests.proofs.release_world import CURRENT, GLOOMY, GOOD, OTHER, World, world

AIRFLOW = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
SOONER = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
}
GENTLE = 50.0
ROUND = (GOOD, OTHER, GLOOMY)  # the one that is wanted is never in a slot already
BLUE_GREEN = {
    "want": Point("rename wanted.json"),
    "stage": Point("rename <slot>.json"),
    "await": Point("rename awaited.json"),
    "verify": Point("rename accepted.json"),
    "switch": Point(SWITCHED),
    "soak": Point("rename soaking.json"),
    "soaked": Point("rename soaked.json"),
    "go_live": Point("POST alias"),
}
BY_THE_WORKER = ("want", "stage", "verify", "shadow", "soak", "switch", "canary")
CANARY = BLUE_GREEN | {"shadow": Point("rename shadowed.json"), "canary": Point("rename canary-1.json")}


class Scheduled:
    """Releases by a real Airflow."""

    def __init__(self, running: World) -> None:
        self.world, settings = running, running.serving.stack.settings
        self._plan = settings.home / "kill.json"
        self.api = wait_for(lambda: AirflowApi(settings.airflow_url, settings.user, settings.password), 300)
        wait_for_airflow("the DAGs", lambda: {"deploy", "rollback"} <= self.api.list_dag_ids() or None, 150)
        must(self.api.list_import_errors() == [], f"{self.api.list_import_errors()}")
        self.api.unpause("deploy")

    def begin(self, manifest: str) -> tuple[str, str]:
        """Triggers a deployment of the next version; the run's id and the version."""
        version = ROUND[(ROUND.index(self.world.live) + 1) % len(ROUND)]
        shutil.copy(self.world.manifest(manifest), self.world.home / CURRENT)
        return self.api.start_run("deploy", version=version), version

    def end(self, run_id: str, version: str) -> None:
        """It ends well, exactly once, with this version live."""
        state = self.api.wait_for_end("deploy", run_id, 600)["state"]
        must(state == "success", f"the run ended as {state}: {self.api.read_task_states('deploy', run_id)}")
        must(self.world.live == version, f"{self.world.live} is live, not {version}")
        said = Counter(entry.what for entry in open_ledger().read_entries() if entry.who == f"deploy {run_id}")
        must(said["release.done"] == 1 and set(said.values()) == {1}, f"the ledger says {dict(said)}")
        self.world.steady()

    def killed(self, manifest: str, point: Point, whom: str) -> None:
        self._plan.write_text(json.dumps({"effect": point.effect, "number": point.number, "whom": whom}))
        try:
            with self.world.load(rate=GENTLE, connections=8) as found:
                self.end(*self.begin(manifest))
            must(not self._plan.exists(), f"the task never came to {point}")
        finally:
            self._plan.unlink(missing_ok=True)
        must(found[0].failed == 0, f"lost {found[0].problem} of {found[0].result.answered}")

    def without_airflow(self) -> None:
        """Neither scheduler nor API server during a soak: traffic goes on, and so does the release when they are back.

        A task that finds no API server fails; where all its tries fall into the outage, another run takes over.
        """
        with self.world.load(rate=GENTLE, connections=8) as found:
            run_id, version = self.begin("blue_green, soaking")
            wanted = wait_for(lambda: self._wanted(version))
            wait_for(lambda: has_come(self.world, version, wanted, "switched"), 300)
            for program in ("airflow-scheduler", "airflow-api-server"):
                self.world.serving.kill(program)  # type: ignore[arg-type]
            wait_for(lambda: self.api.read_run("deploy", run_id), 300)  # the process manager brings them back
            if self.api.wait_for_end("deploy", run_id, 600)["state"] != "success":
                run_id = self.api.start_run("deploy", version=version)
            self.end(run_id, version)
        must(found[0].failed == 0, f"lost {found[0].problem} of {found[0].result.answered}")

    def _wanted(self, version: str) -> int:
        wanted = self.world.serving.target.read_desired_state()
        return wanted.generation if wanted and wanted.release.version == version else 0


@contextmanager
def scheduled() -> Iterator[Scheduled]:
    """A stack with Airflow beside the others, for as long as the block takes."""
    options = environment.build_airflow_env
    with (
        tempfile.TemporaryDirectory(prefix="evergreen-proof-airflow-") as home,
        patch.object(environment, "build_airflow_env", lambda *told: options(*told) | SOONER),
        world(Path(home), *AIRFLOW, dags=Path(__file__).with_name("release_dags")) as running,
    ):
        yield Scheduled(running)


def of_airflow(running: ExitStack, outcomes: Outcomes, quick: bool) -> list[Named]:
    found: list[Scheduled] = []
    tried: list[ExitStack] = []

    def made() -> Scheduled:
        """Started by the first case that needs it; one that did not come up is not tried again."""
        if not found:
            must(running not in tried, "the stack with Airflow did not come up")
            tried.append(running)
            found.append(running.enter_context(scheduled()))
        return found[0]

    def story(manifest: str, point: Point, whom: str) -> None:
        made().killed(manifest, point, whom)
        outcomes.figures["airflow_kills"] = outcomes.figures.get("airflow_kills", 0) + 1

    cases = [("blue_green", step, point, "task") for step, point in BLUE_GREEN.items()]
    cases += [("canary", step, CANARY[step], "task") for step in ("shadow", "canary", "switch")]
    cases += [("canary", step, CANARY[step], "worker") for step in BY_THE_WORKER]
    chosen = [cases[1], cases[-1]] if quick else cases
    named: list[Named] = [
        (f"airflow: {whom} killed at {step}, {manifest}", partial(story, manifest, point, whom))
        for manifest, step, point, whom in chosen
    ]
    return [*named, ("airflow: scheduler and API server gone during a soak", lambda: made().without_airflow())]
