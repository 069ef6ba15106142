"""What Airflow costs between two tasks on the embedded stack: `make bench-orchestration`.

Starts a stack of its own (another home, free ports), runs a chain of twelve tasks that do nothing, and stops the stack.
Two numbers: the run's duration by its tasks, and the time from one task's start to the next one's. The last line is
JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from include.embedded.commands.airflow_api import AirflowApi, wait_for
from tests import ground

RUNS = 4
BOUND_S = 0.25
DAGS = Path(__file__).with_name("dags")
PROGRAMS = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def measured(api: AirflowApi) -> tuple[float, list[float]]:
    """One run: seconds a task, and the gaps between the starts of neighbours."""
    run_id = api.start_run("chain")
    run = api.wait_for_end("chain", run_id, 120)
    if run["state"] != "success":
        raise SystemExit(f"The chain ended as {run['state']}.")
    tasks: list[dict[str, Any]] = api.get(f"/dags/chain/dagRuns/{run_id}/taskInstances")["task_instances"]
    starts = sorted(moment(task["start_date"]) for task in tasks)
    return (moment(run["end_date"]) - moment(run["start_date"])) / len(tasks), [b - a for a, b in pairwise(starts)]


def ready(stack: Any) -> AirflowApi:
    settings = stack.settings
    api = AirflowApi(settings.airflow_url, settings.user, settings.password)
    wait_for("the chain among the DAGs", lambda: "chain" in api.list_dag_ids() or None, 60)
    api.unpause("chain")
    return api


def main() -> int:
    per_task, gaps = [], []
    print("starting a stack of its own", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="evergreen-bench-") as home,
        ground.stack(Path(home), *PROGRAMS, dags=DAGS) as stack,
    ):
        api = ready(stack)
        measured(api)  # the first run pays for imports
        for number in range(1, RUNS + 1):
            each, between = measured(api)
            per_task.append(each)
            gaps += between
            print(f"run {number}: {each:.3f} s a task, {statistics.median(between):.3f} s start to start", flush=True)
    found, gap = statistics.median(per_task), statistics.median(gaps)
    ok = found <= BOUND_S
    print(json.dumps({"ok": ok, "task_s": round(found, 3), "start_to_start_s": round(gap, 3), "bound_s": BOUND_S}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
