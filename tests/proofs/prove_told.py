"""`make prove-told`: what people were told in a week with a bad day, a rotated webhook, a retraining and a rollback.

The real operators, callbacks, ledger and outbox, and a real webhook over a port; the model servers are played, since
what they do is another proof's business (prove-release). The days pass one after the other without a clock. The page
that comes out is the one in docs/runbook.md (`--markdown` prints it), and a test holds the two together.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
OPERATORS = ("announce", "approval", "gate", "reconcile", "registry", "rollout", "scoring")
EXPECTED = [
    "The release of version 1 begins",
    "Version 1 serves all traffic",
    "The delivery of 2026-08-04 was refused",
    "The world moved: drift-1-2026-08-05",
    "The release of version 2 begins",
    "Version 2 serves all traffic",
    "A rollback to version 1 begins",
    "Version 1 serves all traffic",
    "The release of version 2 was refused",
]


@dataclass
class Week:
    """What happened on each day, and what the webhook was told while it did."""

    rows: list[tuple[str, str, list[str]]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    path: str = "/services/T0/B0/first"  # the webhook that is valid now; any other is answered 404

    def on(self, day: str, what: str) -> None:
        told = [*self.told]
        self.told.clear()
        self.rows.append((day, what, told))
        print(f"{day:4} {what}", *(f"\n       told: {each}" for each in told), flush=True)

    @property
    def titles(self) -> list[str]:
        return [title for _, _, told in self.rows for title in told]

    def render_markdown(self) -> str:
        lines = [f"| {day} | {what} | {'; '.join(told) or 'nothing'} |" for day, what, told in self.rows]
        return "\n".join(["| Day | What happened | What people were told |", "|---|---|---|", *lines])


@contextmanager
def webhook(week: Week) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path == week.path:
                week.told.append(body["text"].split("*")[1])
            self.send_response(200 if self.path == week.path else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """The page is the log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Played:
    """The release machine of the week: what is wanted serves, and leaves the verdicts of a release that went well."""

    def __init__(self, world: Any) -> None:
        self.world = world

    def choose_poll_interval(self, step: Any) -> float:
        return 0.0

    def run(self, generation: int, max_wait_s: float) -> Iterator[tuple[Any, float]]:
        from include.kernel.files import write_atomic
        from include.kernel.words.verdicts import ACCEPTED, SOAKED, Verdict
        from include.release.core.rollout import Route, Step
        from include.release.targets.local import envoy_routes

        target = self.world.open_target()
        wanted, root = target.read_desired_state().release, self.world.root / "serving"
        for part in (ACCEPTED, SOAKED):
            target.record_verdict(generation, part, Verdict.PASSED, "played")
        slot = {"version": wanted.version, "digest": wanted.digest, "generation": generation}
        write_atomic(root / "slots" / "blue.json", json.dumps(slot))
        write_atomic(root / "route" / "routes.yaml", envoy_routes.render(Route("blue", None, generation)))
        yield Step.SWITCH, 0.1
        yield Step.DONE, 0.1


@dataclass
class Stage:
    """The tasks of the week's DAG runs, each executed as its task would be."""

    world: Any

    def deploy(self, version: str, run_id: str) -> None:
        from evergreen.operators.rollout import RequestReleaseOperator
        from tests.plugins.conftest import context, event

        found = context(event(version=version), run_type="asset_triggered", dag_id="deploy", run_id=run_id)
        self._roll_out(RequestReleaseOperator(task_id="want").execute(found), found)

    def try_deploy(self, version: str, run_id: str) -> str:
        """Why the event is let go; empty when it is not."""
        from airflow.sdk.exceptions import AirflowSkipException

        try:
            self.deploy(version, run_id)
        except AirflowSkipException as skip:
            return str(skip)
        return ""

    def roll_back(self, why: str) -> None:
        from evergreen.operators.rollout import RequestRollbackOperator
        from tests.plugins.conftest import context

        found = context(params={"why": why}, dag_id="rollback", run_id="by ada")
        self._roll_out(RequestRollbackOperator(task_id="want").execute(found), found)

    def _roll_out(self, request: dict[str, Any], found: Any) -> None:
        from evergreen.operators.registry import PromoteOperator
        from evergreen.operators.rollout import RolloutOperator

        told = RolloutOperator(task_id="rollout", release_request=request).execute(found)
        PromoteOperator(task_id="go_live", result=told).execute(found)

    def refuse(self, day: str) -> None:
        from evergreen.errors import JobRefused
        from evergreen.operators.rejection_callback import record_refused_day
        from tests.plugins.conftest import context

        refused = JobRefused(f"{day} breaks 1 rule(s) of the contract", "DataRefused")
        task = SimpleNamespace(job_params={"day": day})
        record_refused_day(context(dag_id="ingest", run_id=day) | {"task": task, "exception": refused})

    def detect_drift(self, key: str) -> None:
        from evergreen.assets import DRIFT_DETECTED
        from evergreen.operators.announce import AnnounceOperator
        from tests.plugins.conftest import context

        episode = {"key": key, "sentence": "Income moved (PSI 0.41)"}
        task = AnnounceOperator(task_id="announce", asset=DRIFT_DETECTED, result=episode, fields=["key"], once="key")
        task.execute(context(dag_id="watch", run_id="hourly"))

    def list_untold(self) -> list[str]:
        from include.alerting.wiring import open_outbox

        return open_outbox(self.world.manifest).list_untold()


def replay(home: Path) -> tuple[Week, dict[str, bool]]:
    """The week, and whether each promise was kept. The environment must name a store and a manifest below `home`."""
    from evergreen.hooks import notifiers
    from tests.plugins.conftest import SmallWorld

    week, world = Week(), SmallWorld(home)
    world.driver, stage = Played(world), Stage(world)
    for version in ("1", "2"):
        world.shelf.has_blessed(version)
    with ExitStack() as stack:
        for name in OPERATORS:
            stack.enter_context(patch(f"evergreen.operators.{name}.ConnectionsHook", lambda: world))
        url = stack.enter_context(webhook(week))

        def connect(path: str) -> None:
            connection = {"conn_type": "generic", "password": f"{url}{path}"}
            os.environ["AIRFLOW_CONN_EVERGREEN_SLACK"] = json.dumps(connection)

        connect(week.path)
        stage.deploy("1", "monday")
        week.on("Mon", "version 1 is released")
        stage.refuse("2026-08-04")
        week.on("Tue", "the day's delivery breaks the contract")
        week.path = "/services/T0/B0/second"  # rotated, and nobody has corrected the Connection
        stage.detect_drift("drift-1-2026-08-05")
        stage.deploy("2", "wednesday")
        untold = stage.list_untold()
        week.on("Wed", f"the webhook is rotated; a drift is found, version 2 is trained and released. {len(untold)} "
                       "alerts wait, named in the monitor's report and on its page")  # fmt: skip
        connect(week.path)
        notifiers.deliver()
        week.on("Thu", "the Connection is corrected; the next run of `monitor` delivers")
        stage.roll_back("it answers nonsense")
        week.on("Fri", "a person rolls back")
        let_go = stage.try_deploy("2", "saturday")
        week.on("Sat", "`retrain` makes the same model; its event is let go, with who rolled it back and why")
    return week, _judge(week, untold, let_go, stage)


def _judge(week: Week, untold: list[str], let_go: str, stage: Stage) -> dict[str, bool]:
    reason = "slack answered 404; correct the Airflow"
    return {
        "in order, each once": week.titles == EXPECTED,
        "nothing lost to the rotated webhook": len(untold) == 3 and stage.list_untold() == [],
        "what waits is named with the reason": all(reason in each for each in untold),
        "the rollback stands": stage.world.open_target().observe().live.release.version == "1",
        "who and why": "was rolled back by rollback by ada (it answers nonsense)" in let_go,
    }


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--markdown", action="store_true", help="the page for docs/runbook.md as well")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="evergreen-proof-") as scratch:
        home = Path(scratch)
        os.environ |= {"AIRFLOW_HOME": f"{home}/airflow", "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False"}
        sys.path.insert(0, str(ROOT / "plugins"))
        from airflow.sdk.bases.operator import ExecutorSafeguard

        from tests import ground

        ExecutorSafeguard.test_mode = True  # there is no task runner around the operators
        os.environ["EVERGREEN_MANIFEST"] = str(ground.write_manifest(home / "pipeline.yaml", ground.SMALL))
        os.environ["EVERGREEN_STORE"] = str(home / "store")
        week, kept = replay(home)
    if given.markdown:
        print(week.render_markdown())
    for promise, is_kept in kept.items():
        print(f"{'ok  ' if is_kept else 'FAIL'} {promise}")
    print(json.dumps({"ok": all(kept.values()), "told": len(week.titles), "kept": kept}))
    return 0 if all(kept.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
