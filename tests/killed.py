"""A job as a process that ends itself by kill -9 the n-th time it comes to some function: a kill at a known place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from include.kernel.job import REQUEST_VARIABLE, RESULT_VARIABLE, JobRequest

ROOT = Path(__file__).resolve().parents[1]
DOOMED = """
import importlib, os, signal, sys
from include.jobs.__main__ import main
module, name, left = importlib.import_module(sys.argv[1]), sys.argv[2], [int(sys.argv[3])]
told = getattr(module, name)
def once_too_often(*given):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return told(*given)
setattr(module, name, once_too_often)
sys.exit(main())
"""


def killed(request: JobRequest, module: str, function: str, time: int, result: Path) -> None:
    """Runs the job until it comes to `function` of `module` for the `time`-th time; fails if it never does."""
    protocol = {REQUEST_VARIABLE: request.model_dump_json(), RESULT_VARIABLE: str(result), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", DOOMED, module, function, str(time)]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | protocol, capture_output=True, text=True, timeout=300)
    assert ended.returncode == -9, ended.stdout + ended.stderr
