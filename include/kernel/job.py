"""What goes into a job and what comes out: the one protocol between Airflow and the work.

A `JobRequest` travels in by environment variable, a `JobResult` out by file. The same request therefore starts the
same work inline, as a process or as a pod; data itself travels by URI. Time (`as_of`) and `intent` are fields like any
other: they are set once, at the DAG's edge, and no code behind this line ever asks the clock what day it is.
"""

import hashlib
import json
from datetime import date
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.kernel.errors import RequestInvalid

PROTOCOL: Final = 1
# job -> the slice whose jobs/ has the module of its name
JOBS: Final = {
    "ingest": "data",
    "train": "training",
    "evaluate": "gate",
    "monitor": "monitoring",
    "backtest": "training",
    "score": "scoring",
    "validate": "data",
    "tune": "training",
    "profile": "monitoring",
}
REQUEST_VARIABLE = "EVERGREEN_JOB_REQUEST"
RESULT_VARIABLE = "EVERGREEN_JOB_RESULT"
DEFAULT_RESULT_PATH = "/airflow/xcom/return.json"
ATTEMPT_VARIABLE = "EVERGREEN_JOB_ATTEMPT"  # set in a pod, to its uid: the result then goes to the store
RECEIPT_VARIABLE = "EVERGREEN_JOB_RECEIPT"
DEFAULT_RECEIPT_PATH = "/dev/termination-log"


class Intent(StrEnum):
    """Why a run exists. Only `live` may move production: live assets, the alias, alerts, a release."""

    LIVE = "live"
    HISTORICAL = "historical"
    REHEARSAL = "rehearsal"


class FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JobRequest(FrozenModel):
    """`run_key` names every output: a retry overwrites the same names and cannot register two models."""

    protocol: Literal[1] = PROTOCOL
    job: str
    run_key: str = Field(min_length=1)
    as_of: date = Field(description="the job may know what was known at the end of this day")
    intent: Intent
    params: dict[str, Any] = Field(default_factory=dict)


class JobResult(FrozenModel):
    """`verdict` is the job's answer where it decides something; a no is a result, not an error."""

    protocol: Literal[1] = PROTOCOL
    job: str
    run_key: str
    verdict: Literal["yes", "no", "wait"] = "yes"
    summary: str = Field(description="one sentence for the person who looks at the task")
    outputs: dict[str, Any] = Field(default_factory=dict, description="ids, URIs and metrics; never data")


def build_run_key(*parts: str) -> str:
    """A short, stable name for one piece of work: the first 16 hex digits of the sha256 over its identifying parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def read_request(text: str | None) -> JobRequest:
    """Raises `RequestInvalid` with one sentence when the request is absent or malformed."""
    if not text:
        raise RequestInvalid(f"No job request: set {REQUEST_VARIABLE} to the JSON of a JobRequest.")
    try:
        return JobRequest.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"])) or "the document"
        raise RequestInvalid(f"{REQUEST_VARIABLE}: {place}: {problem['msg']}.") from error


def derive_intent(run_type: str, *declared: str | None) -> Intent:
    """A backfill is historical whatever else is said; otherwise the first intent declared, otherwise live.

    Raises `RequestInvalid` for a word that is no intent.
    """
    if run_type == "backfill":
        return Intent.HISTORICAL
    intent = next((value for value in declared if value), Intent.LIVE)
    if intent not in [*Intent]:  # a list, since an event may hold what no set takes
        raise RequestInvalid(f"There is no intent {intent!r}; choose one of {', '.join(Intent)} for the run.")
    return Intent(intent)


def build_result_key(request: JobRequest, attempt: str) -> str:
    """Where one attempt at a request leaves its result: no attempt can be taken for another one."""
    return f"results/{request.run_key}/{request.job}-{attempt}.json"


def seal_result(text: str) -> bytes:
    """A result with its sha256, so that half of it, or another one, is not taken for it."""
    return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "result": text}).encode()


def unseal_result(sealed: bytes) -> tuple[str, str]:
    """The result as it was sealed, and its sha256; ValueError for anything else."""
    content = json.loads(sealed)
    if not isinstance(content, dict) or {*content} != {"sha256", "result"}:
        raise ValueError("it is no sealed result")
    text = str(content["result"])
    if hashlib.sha256(text.encode()).hexdigest() != content["sha256"]:
        raise ValueError("its sha256 is another one")
    return text, str(content["sha256"])


def render_receipt(text: str, sha256: str | None = None) -> str:
    """What a pod tells in its termination message: the result's sha256, or why there is none; at most 4096 bytes."""
    if sha256:
        return json.dumps({"sha256": sha256})
    told = {**json.loads(text), "error": json.loads(text)["error"][:900]}  # a character may take four bytes
    return json.dumps(told, ensure_ascii=False)
