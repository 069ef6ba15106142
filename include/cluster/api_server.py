"""The Kubernetes API server, asked patiently: the one place where its refusals become errors of ours.

Every request has a timeout and a bounded number of tries. What may be over soon (429, 5xx, a connection that broke)
is tried again, no sooner than the server asks for and no later than the manifest allows; what a person must change (a
role, a field) is one sentence at once. A try whose answer was lost may have had its effect, so every write here is one
that can be repeated: creations have a fixed name, changes and deletions name the version or the uid they are meant for.

urllib3 tries again by itself, and waits as long as a Retry-After says, an hour if need be; that is switched off.
"""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from include.cluster.spec import ClusterSpec
from include.kernel.errors import AccessRefused, Conflict, EvergreenError, RequestInvalid, ServiceUnavailable

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Object = dict[str, Any]
TRANSIENT_STATUSES = (429, 500, 502, 503, 504)
log = logging.getLogger(__name__)


class Cluster:
    """Objects are plain dictionaries, as the API server writes them. `Conflict`: somebody else wrote first."""

    def __init__(self, client: ApiClient, spec: ClusterSpec) -> None:
        from kubernetes.client import ApiClient

        configuration = copy.copy(client.configuration)
        configuration.retries = False
        self._client = ApiClient(configuration)
        self._spec = spec
        self.host = str(configuration.host)

    def get(self, path: str) -> Object | None:
        """The object at this path of the API, or None."""
        return self._allow_missing(lambda: self._ask("GET", path))

    def list(self, path: str, **query: str) -> list[Object]:
        return list(self._ask("GET", path, query=query)["items"])

    def create(self, path: str, body: Object) -> Object | None:
        """None when an object of this name is there already, which may be our own of an earlier try."""
        try:
            return self._ask("POST", path, body)
        except Conflict:
            return None

    def replace(self, path: str, body: Object) -> Object:
        """With the body's resourceVersion, raises `Conflict` unless the object still has it."""
        return self._ask("PUT", path, body)

    def patch(self, path: str, body: Object) -> Object | None:
        """Merges `body` into the object; None when there is none. Its resourceVersion is compared, as in `replace`."""
        return self._allow_missing(lambda: self._ask("PATCH", path, body))

    def delete(self, path: str, uid: str) -> None:
        """Deletes this very object; one that is gone, or another one of its name, is no error."""
        try:
            self._allow_missing(lambda: self._ask("DELETE", path, {"preconditions": {"uid": uid}}))
        except Conflict:
            log.info("%s is another one by now", path)

    def read_text(self, path: str, **query: str) -> str:
        """A log, or an empty string where it is gone."""
        found = self._allow_missing(lambda: {"text": self._send("GET", path, None, query, kind=None)})
        return str(found["text"]) if found else ""

    def _ask(self, verb: str, path: str, body: Object | None = None, query: Mapping[str, str] | None = None) -> Object:
        return dict(self._send(verb, path, body, query))

    def _allow_missing(self, ask: Callable[[], Object]) -> Object | None:
        try:
            return ask()
        except _NotFound:
            return None

    def _send(
        self, verb: str, path: str, body: Object | None, query: Mapping[str, str] | None, kind: str | None = "object"
    ) -> Any:
        attempts = Retrying(
            stop=stop_after_attempt(self._spec.attempts),
            wait=self._wait,
            retry=retry_if_exception(_is_transient),
            before_sleep=lambda state: log.warning(
                "%s %s: %s; once more", verb, path, _extract_message(_get_error(state))
            ),
            reraise=True,
        )
        try:
            return attempts(self._send_once, verb, path, body, query, kind)
        except Exception as error:
            raise self._translate_error(error, verb, path) from error

    def _send_once(
        self, verb: str, path: str, body: Object | None, query: Mapping[str, str] | None, kind: str | None
    ) -> Any:
        """Without a `kind` the text as it is: the client takes a log that happens to be JSON for an object."""
        content = "application/merge-patch+json" if verb == "PATCH" else "application/json"
        answer = self._client.call_api(
            path,
            verb,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json, */*", "Content-Type": content},
            body=body,
            auth_settings=["BearerToken"],
            response_types_map=dict.fromkeys((200, 201, 202), kind),
            _return_http_data_only=True,
            _request_timeout=(self._spec.timeout_s, self._spec.timeout_s),
        )
        return answer if kind else self._client.last_response.data

    def _wait(self, state: RetryCallState) -> float:
        """What the server asks for, otherwise longer and longer; never longer than the manifest allows."""
        asked = (getattr(_get_error(state), "headers", None) or {}).get("Retry-After", "")
        longest = self._spec.longest_wait_s
        if asked.isdigit():
            return min(float(asked), longest)
        return min(wait_exponential_jitter(multiplier=0.2, max=longest, jitter=0.2)(state), longest)

    def _translate_error(self, error: Exception, verb: str, path: str) -> EvergreenError:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        if isinstance(error, ApiException) and error.status:
            return _translate_status(error.status, _extract_message(error), f"{verb} {path}", self.host)
        if isinstance(error, ApiException | HTTPError | OSError):
            return ServiceUnavailable(
                f"The Kubernetes API at {self.host} does not answer ({type(error).__name__}, {self._spec.attempts} "
                f"tries of {verb} {path}); check the address and the network, the task is retried by itself."
            )
        raise error


class _NotFound(RequestInvalid):
    """404: of a name that is asked for, an answer; of a namespace that is written to, an error."""


def connect(spec: ClusterSpec) -> Cluster:
    """By the account of the pod this runs in, or by KUBECONFIG. Raises `RequestInvalid` without either."""
    from kubernetes import client, config

    settings = client.Configuration()
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST") and not os.environ.get("KUBECONFIG"):
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(config_file=os.environ.get("KUBECONFIG"), client_configuration=settings)
    except config.ConfigException as error:
        raise RequestInvalid(
            f"No Kubernetes cluster is named ({error}); set KUBECONFIG, or run in a pod with a service account."
        ) from error
    return Cluster(client.ApiClient(settings), spec)


def _is_transient(error: BaseException) -> bool:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    if isinstance(error, ApiException) and error.status:
        return error.status in TRANSIENT_STATUSES
    return isinstance(error, ApiException | HTTPError | OSError)


def _translate_status(status: int, message: str, request: str, host: str) -> EvergreenError:
    if status == 409:
        return Conflict(f"The Kubernetes API refused {request}: {message}; look again and retry.")
    if status == 404:
        return _NotFound(
            f"The Kubernetes API knows nothing at {request}: {message}; apply the manifests of k8s/ first."
        )
    if status == 403 and "exceeded quota" in message:
        return ServiceUnavailable(f"{request}: {message}; wait for other pods to end, or raise the namespace's quota.")
    if status == 403 and "PodSecurity" in message:
        return RequestInvalid(f"{request}: {message}; correct the pod, or the namespace's Pod Security level.")
    if status in (401, 403):
        return AccessRefused(
            f"The Kubernetes API at {host} refused {request} ({status}: {message}); bind the role of k8s/base to "
            "this account."
        )
    if status in TRANSIENT_STATUSES:
        return ServiceUnavailable(
            f"The Kubernetes API at {host} answered {status} to every try of {request}: {message}; try again later."
        )
    return RequestInvalid(f"The Kubernetes API refused {request} ({status}): {message}; correct it in the manifest.")


def _extract_message(error: BaseException | None) -> str:
    """The server's own sentence, on one line and without a full stop."""
    try:
        text = json.loads(getattr(error, "body", "") or "")["message"]
    except (ValueError, KeyError, TypeError):
        text = getattr(error, "reason", None) or type(error).__name__
    return " ".join(str(text).split())[:400].rstrip(".")


def _get_error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
