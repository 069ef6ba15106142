"""Results of jobs that run in pods: one file an attempt, beside the snapshots, each with its sha256.

A pod's result does not travel with the pod: it may be evicted, preempted or deleted the moment it ends, and its log
with it. What lies here is still here then. A log, a sidecar or an annotation would be lost with the pod or cut short.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.kernel.errors import StorageUnavailable
from include.kernel.job import JobRequest, JobResult, build_result_key, seal_result, unseal_result

if TYPE_CHECKING:
    from include.data.store.snapshot_store import ObjectStore


class JobResults:
    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def save(self, request: JobRequest, attempt: str, text: str) -> str:
        """Stores the result of this attempt, once; gives its sha256."""
        sealed = seal_result(text)
        self._objects.write(build_result_key(request, attempt), sealed, None)
        return unseal_result(sealed)[1]

    def read(self, request: JobRequest, attempt: str, expected: str | None = None) -> JobResult | None:
        """None where the attempt left none. Raises `StorageUnavailable` for one that is damaged, or another's.

        `expected` is the sha256 of the pod's receipt, where there is one.
        """
        key = build_result_key(request, attempt)
        found = self._objects.read(key)
        if found is None:
            return None
        try:
            text, sha256 = unseal_result(found.data)
            result = JobResult.model_validate_json(text)
            if (result.job, result.run_key) != (request.job, request.run_key) or sha256 != (expected or sha256):
                raise ValueError("it belongs to another run")
        except ValueError as error:
            raise StorageUnavailable(
                f"The result {self._objects.uri}/{key} is damaged ({type(error).__name__}); the task is "
                "retried by itself."
            ) from error
        return result
