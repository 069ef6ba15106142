"""Runs one job as a process or a pod: request in by environment, result out by file, verdict by exit code.

    EVERGREEN_JOB_REQUEST='{"job": "ingest", ...}' python -m include.jobs

Exit 0: a result was written (a refusal by the gate is a result). 65: permanent, do not retry. 75: temporary, retry.
The result file appears whole or not at all, and on failure it holds the one sentence that explains it.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import time
from pathlib import Path

from include.adapters import factory
from include.adapters.files import write_atomic
from include.core.errors import EvergreenError, RequestInvalid
from include.core.job import (
    DEFAULT_RESULT_PATH,
    JOBS,
    REQUEST_VARIABLE,
    RESULT_VARIABLE,
    JobRequest,
    JobResult,
    read_request,
)

log = logging.getLogger("evergreen.job")


def run(request: JobRequest) -> JobResult:
    """The job itself, in this process: what tests call. Raises `EvergreenError`."""
    if request.job not in JOBS:
        raise RequestInvalid(f"There is no job {request.job!r}; choose one of {', '.join(JOBS)}.")
    result: JobResult = importlib.import_module(f"include.jobs.{request.job}").run(request, factory.manifest())
    return result


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    for ours in ("include", "evergreen"):  # libraries speak up for warnings only
        logging.getLogger(ours).setLevel(logging.INFO)
    place = Path(os.environ.get(RESULT_VARIABLE, DEFAULT_RESULT_PATH))
    began = time.monotonic()
    try:
        result = run(read_request(os.environ.get(REQUEST_VARIABLE)))
    except EvergreenError as error:
        told = {"error": str(error), "kind": type(error).__name__, "data_docs": getattr(error, "page", None)}
        _leave(place, json.dumps(told))
        log.error("%s: %s", type(error).__name__, error)
        return error.exit_code
    _leave(place, result.model_dump_json())
    log.info("%s in %.1f s: %s", result.job, time.monotonic() - began, result.summary)
    return 0


def _leave(place: Path, text: str) -> None:
    """The result, whole or not at all; drafts of runs that were killed while they wrote it go first."""
    for draft in place.parent.glob(f".{place.name}.*"):
        draft.unlink(missing_ok=True)
    write_atomic(place, text)


if __name__ == "__main__":
    sys.exit(main())
