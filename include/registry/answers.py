"""What an answer of MLflow means, whoever gives it: MLflow itself, its login, or a proxy before it that speaks HTML.

absent           there is no such thing                      the caller says what that means
refused          it does not know us, or withholds it        `AccessRefused`: who has to do what
away             no answer, too busy, a fault of its own     `ServiceUnavailable`: the task retries
not understood   it is no MLflow, or wants something else    `RequestInvalid`: one sentence, with status and place
"""

import re

from include.kernel.errors import AccessRefused, EvergreenError, RequestInvalid, ServiceUnavailable

REFUSED_CODES = frozenset(("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"))
REFUSED_STATUSES = frozenset((401, 403, 407))
AWAY_CODES = frozenset(("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"))
MAX_CHARACTERS = 200  # of what MLflow says


def is_absent(error: Exception) -> bool:
    code = getattr(error, "error_code", "")
    return code == "RESOURCE_DOES_NOT_EXIST" or (code == "INVALID_PARAMETER_VALUE" and "alias" in str(error))


def translate_error(error: Exception, uri: str) -> EvergreenError:
    """`error` is what MLflow's client or its HTTP library raised."""
    text, code, status = " ".join(str(error).split()), getattr(error, "error_code", ""), _find_status(error)
    if _is_outage(error):
        return ServiceUnavailable(f"MLflow at {uri} does not answer; start it (`make up`), the task retries by itself.")
    if code in REFUSED_CODES or status in REFUSED_STATUSES:
        return AccessRefused(
            f"MLflow at {uri} refuses us ({status or code}): set MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN, of "
            "a user who may do this, or allow this host there."
        )
    if _is_foreign(text):
        if status is not None and (status >= 500 or status == 429):
            return ServiceUnavailable(f"Before MLflow at {uri} something answers {status}; the task retries by itself.")
        return RequestInvalid(
            f"What answers at {uri} is no MLflow (status {status or 200}, no JSON); correct MLFLOW_TRACKING_URI, or "
            "let the proxy before it pass its API through."
        )
    kind = ServiceUnavailable if code in AWAY_CODES or (status or 0) >= 500 else RequestInvalid
    return kind(f"MLflow at {uri} does not do what it is asked: {text[:MAX_CHARACTERS].rstrip('.')}.")


def _is_outage(error: Exception) -> bool:
    """Connection errors surface as requests' own or wrapped in an MlflowException."""
    import requests

    causes = [error, error.__cause__, error.__context__]
    answered = any(getattr(cause, "response", None) is not None for cause in causes)
    is_broken = any(isinstance(cause, requests.exceptions.RequestException) for cause in causes) and not answered
    return is_broken or ("API request to" in str(error) and "failed with exception" in str(error))


def _is_foreign(text: str) -> bool:
    """Whether the client could not read the answer as MLflow's."""
    return "Response body: '" in text or "not in a valid JSON format" in text or "JSONDecodeError" in text


def _find_status(error: Exception) -> int | None:
    for cause in (error, error.__cause__, error.__context__):
        response = getattr(cause, "response", None)
        if response is not None:
            return int(response.status_code)
    told = re.search(r"failed with error code (\d{3})", str(error))
    return int(told[1]) if told else None
