"""What each DAG file adds to the time Airflow needs to parse it: `make bench-parse`.

The DAG processor forks for every file with airflow.sdk already loaded, so that import is not counted, and what two
files share is counted for both. Each number is the median over fresh interpreters. The last line is JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMES = 5
BOUND_S = 2.0
CODE = """
import runpy, sys, time
import airflow.sdk
began = time.perf_counter()
runpy.run_path(sys.argv[1])
print(time.perf_counter() - began)
"""


def seconds(path: Path, home: str) -> float:
    """Of one parse, in an interpreter of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "EVERGREEN_"))}
    env |= {"AIRFLOW_HOME": home, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}"}
    done = subprocess.run([sys.executable, "-c", CODE, str(path)], env=env, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> int:
    total = 0.0
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as home:
        for path in sorted((ROOT / "dags").glob("*.py")):
            found = sorted(seconds(path, home) for _ in range(TIMES))
            total += statistics.median(found)
            print(
                f"{path.name:<14} {statistics.median(found):6.3f} s   ({found[0]:.3f} to {found[-1]:.3f})", flush=True
            )
    ok = total <= BOUND_S
    print(json.dumps({"ok": ok, "total_s": round(total, 3), "bound_s": BOUND_S}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
