"""`make prove-release`: releases under load, killed anywhere, and with everything around them failing.

Real processes: Envoy, two slots and MLflow under their process manager, the operators of the DAGs in processes of their
own, a load through the proxy. The parts, each in a module of its own:

    cycles   releases, aborts and rollbacks under a steady load: no request fails, switches and rollbacks are quick
    killed   kill -9 before every effect of a release, in every story of both strategies; run again, it comes to its end
    faults   slots, proxy, MLflow, disks, other runs and runs that are held up, while a release is under way
    airflow  kill -9 of tasks and workers of a real Airflow at every step, and of its scheduler during a soak
    guards   each guard is switched off once, and the case it stands for has to fail

It is a package of one module, since the fork server would import any other main module again in every process.

The last line is JSON; exit 0 if and only if every bound held in this very run.

    python -m tests.proofs.prove_release [--quick] [word of a case's name ...]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.proofs.outcomes import Named, Outcomes
from tests.proofs.release_airflow import of_airflow
from tests.proofs.release_cycles import of_cycles
from tests.proofs.release_faults import of_faults
from tests.proofs.release_guards import of_guards
from tests.proofs.release_killed import of_killed
from tests.proofs.release_world import world

PARTS = {"cycles": of_cycles, "killed": of_killed, "faults": of_faults, "guards": of_guards}


def part(outcomes: Outcomes, name: str, stories: list[Named], words: list[str]) -> None:
    """Runs what was asked for of one part, and notes the seconds it took."""
    began = time.monotonic()
    outcomes.run([each for each in stories if not words or any(word in each[0] for word in words)], 1)
    outcomes.figures.setdefault("seconds_by_part", {})[name] = round(time.monotonic() - began)


def main() -> int:
    asked = argparse.ArgumentParser(description="The last line is JSON.")
    asked.add_argument("--quick", action="store_true", help="few cycles and points, for development")
    asked.add_argument("words", nargs="*", help="only cases whose name holds one of these")
    given = asked.parse_args()
    began, outcomes = time.monotonic(), Outcomes()
    with tempfile.TemporaryDirectory(prefix="evergreen-proof-") as home, world(Path(home)) as running:
        outcomes.console.print(f"ok   {time.monotonic() - began:5.1f} s  the stack is up and version 1 serves")
        for name, of in PARTS.items():
            part(outcomes, name, of(running, outcomes, given.quick), given.words)
    with ExitStack() as started:
        part(outcomes, "airflow", of_airflow(started, outcomes, given.quick), given.words)
    return outcomes.end(time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
