"""Runs one job as a process or a pod: request in by environment, result out by file, verdict by exit code.

    EVERGREEN_JOB_REQUEST='{"job": "ingest", ...}' python -m include.jobs

Exit 0: a result was written (a refusal by the gate is a result). 65: permanent, do not retry. 75: temporary, retry.
70: something that nobody foresaw, which is retried too; the trace stands in the log, the sentence in the result.
The result file appears whole or not at all, and on failure it holds the one sentence that explains it. In a pod there
is no such file: the result goes to the store, by the pod's uid, and the termination message says its sha256.
"""

import importlib
import json
import logging
import os
import sys
import time
import traceback
from pathlib import Path

from include.data.wiring import open_job_results
from include.kernel.errors import EvergreenError, RequestInvalid, Unforeseen
from include.kernel.files import translate_write_errors, write_atomic
from include.kernel.job import (
    ATTEMPT_VARIABLE,
    DEFAULT_RECEIPT_PATH,
    DEFAULT_RESULT_PATH,
    JOBS,
    RECEIPT_VARIABLE,
    REQUEST_VARIABLE,
    RESULT_VARIABLE,
    JobRequest,
    JobResult,
    read_request,
    render_receipt,
)
from include.manifest import read_manifest

log = logging.getLogger("evergreen.job")


def run(request: JobRequest) -> JobResult:
    """The job itself, in this process: what tests call. Raises `EvergreenError`."""
    if request.job not in JOBS:
        raise RequestInvalid(f"There is no job {request.job!r}; choose one of {', '.join(JOBS)}.")
    module = f"include.{JOBS[request.job]}.jobs.{request.job}"
    result: JobResult = importlib.import_module(module).run(request, read_manifest())
    return result


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    for package in ("include", "evergreen"):  # libraries speak up for warnings only
        logging.getLogger(package).setLevel(logging.INFO)
    began = time.monotonic()
    try:
        _clear_result()
        request = read_request(os.environ.get(REQUEST_VARIABLE))
        result = run(request)
        _deliver_result(request, result.model_dump_json())
    except EvergreenError as error:
        return _write_failure(error)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of polars or another library in Rust is no Exception
        log.exception("an error that nobody foresaw")
        return _write_failure(_describe_unforeseen(error))
    log.info("%s in %.1f s: %s", result.job, time.monotonic() - began, result.summary)
    return 0


def _clear_result() -> None:
    """What an earlier job left is not taken for this one's, even if this one is killed now."""
    if ATTEMPT_VARIABLE not in os.environ:
        with translate_write_errors(_locate_result_file()):
            _locate_result_file().unlink(missing_ok=True)


def _describe_unforeseen(error: BaseException) -> Unforeseen:
    """One sentence: what was raised, where, and what can be done."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    own = [each for each in traceback.extract_tb(error.__traceback__) if "/include/" in each.filename]
    place = own[-1] if own else frame
    cause = " ".join(str(error).split())[:300] or "no word of it"
    return Unforeseen(
        f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno} ({cause}): nobody foresaw this; "
        "the trace stands in the job's log, so please report it, and what was delivered last may tell the cause."
    )


def _write_failure(error: EvergreenError) -> int:
    """Leaves the one sentence for whoever started the job; where nothing can be left, the log alone has it."""
    log.error("%s: %s", type(error).__name__, error)
    content = {"error": str(error), "kind": type(error).__name__, "data_docs": getattr(error, "page", None)}
    try:
        _explain(json.dumps(content))
    except (EvergreenError, OSError) as unwritable:
        log.error("%s: %s", type(unwritable).__name__, unwritable)
    return error.exit_code


def _deliver_result(request: JobRequest, text: str) -> None:
    """The result, to where it is fetched from."""
    attempt = os.environ.get(ATTEMPT_VARIABLE)
    if attempt is None:
        return _write_result(_locate_result_file(), text)
    _locate_message_file().write_text(render_receipt(text, open_job_results().save(request, attempt, text)))
    return None


def _explain(text: str) -> None:
    if ATTEMPT_VARIABLE in os.environ:
        _locate_message_file().write_text(render_receipt(text))
    else:
        _write_result(_locate_result_file(), text)


def _locate_result_file() -> Path:
    return Path(os.environ.get(RESULT_VARIABLE, DEFAULT_RESULT_PATH))


def _locate_message_file() -> Path:
    """The file a kubelet makes the termination message of; it is mounted, so it cannot be replaced by a rename."""
    return Path(os.environ.get(RECEIPT_VARIABLE, DEFAULT_RECEIPT_PATH))


def _write_result(path: Path, text: str) -> None:
    """The result, whole or not at all; drafts of runs that were killed while they wrote it go first."""
    for draft in path.parent.glob(f".{path.name}.*"):
        draft.unlink(missing_ok=True)
    write_atomic(path, text)


if __name__ == "__main__":
    sys.exit(main())
