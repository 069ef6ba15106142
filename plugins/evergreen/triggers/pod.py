"""Waits in the triggerer until a job's pod has come to its end, or has been stuck for too long; then fires once.

A watch only wakes it: what counts is always the pod as it is read afterwards, so an event that was lost, a connection
that broke or a version that expired (410) costs nothing but another look. It keeps nothing but how long it has seen the
pod not running; a restarted triggerer begins that patience anew. It judges with the same pure function as the worker,
which reads the pod once more and acts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from evergreen.hooks.connections import ConnectionsHook
from include.cluster import pods

if TYPE_CHECKING:
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook

log = logging.getLogger(__name__)


class PodTrigger(BaseTrigger):
    """`cluster` are the keyword arguments of AsyncKubernetesHook: what the worker knows of the Connection."""

    def __init__(self, name: str, namespace: str, uid: str, cluster: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name = name
        self.namespace = namespace
        self.uid = uid
        self.cluster = cluster

    def serialize(self) -> tuple[str, dict[str, Any]]:
        kwargs = {"name": self.name, "namespace": self.namespace, "uid": self.uid, "cluster": self.cluster}
        return "evergreen.triggers.pod.PodTrigger", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        manifest, waited = ConnectionsHook().manifest, 0.0
        async with self._open_hook().get_conn() as client:
            while pod := self._filter_waiting(await self._read(client, manifest.cluster.timeout_s), waited):
                began = time.monotonic()
                await self._await_change(
                    client, str(pod["metadata"]["resourceVersion"]), max(1, round(manifest.cluster.watch_s))
                )
                waited = waited + time.monotonic() - began if pod["status"].get("phase") == "Pending" else 0.0
        yield TriggerEvent({"uid": self.uid, "waited": waited})  # type: ignore[no-untyped-call]

    def _filter_waiting(self, pod: dict[str, Any] | None, waited: float) -> dict[str, Any] | None:
        """The pod while it is to be waited for. That it is gone, or another one, is something for the worker."""
        if pod is None or pod["metadata"]["uid"] != self.uid:
            return None
        return pod if pods.judge(pod, ConnectionsHook().manifest.jobs, waited).state == "waiting" else None

    async def _read(self, client: Any, timeout_s: float) -> dict[str, Any] | None:
        """The pod, None when it is gone. Asks until it is answered: a triggerer has time."""
        pause = 0.2
        while True:
            try:
                return await self._read_once(client, timeout_s)
            except _list_interruptions() as error:
                log.warning("pod %s cannot be read (%s); once more", self.name, type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 2, ConnectionsHook().manifest.cluster.longest_wait_s)

    async def _read_once(self, client: Any, timeout_s: float) -> dict[str, Any] | None:
        """A refusal ends the waiting: the worker meets it again, and says it better."""
        from kubernetes_asyncio.client import ApiException, CoreV1Api

        try:
            pod = await CoreV1Api(client).read_namespaced_pod(self.name, self.namespace, _request_timeout=timeout_s)
        except ApiException as error:
            if error.status in (401, 403, 404):
                return None
            raise
        return dict(client.sanitize_for_serialization(pod))

    async def _await_change(self, client: Any, version: str, seconds: int) -> None:
        """Returns at the next change of the pod, after `seconds`, or when the watch breaks."""
        from kubernetes_asyncio.client import CoreV1Api
        from kubernetes_asyncio.watch import Watch

        began = time.monotonic()
        try:
            async with Watch() as watch:
                changes = watch.stream(
                    CoreV1Api(client).list_namespaced_pod,
                    self.namespace,
                    field_selector=f"metadata.name={self.name}",
                    resource_version=version,
                    timeout_seconds=seconds,
                    _request_timeout=seconds + 5,
                )
                async for _ in changes:
                    return
        except _list_interruptions() as error:
            log.info("the watch of pod %s broke (%s); it is read anew", self.name, type(error).__name__)
            if time.monotonic() - began < 1:  # a watch that breaks at once must not become a busy loop
                await asyncio.sleep(1)

    def _open_hook(self) -> AsyncKubernetesHook:
        from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook

        return AsyncKubernetesHook(**self.cluster)

    async def on_kill(self) -> None:
        """A person marked the task, or cleared it: its pod ends. A triggerer that restarts does not come here."""
        from kubernetes_asyncio.client import ApiException, CoreV1Api, V1DeleteOptions, V1Preconditions

        async with self._open_hook().get_conn() as client:
            try:
                this = V1DeleteOptions(preconditions=V1Preconditions(uid=self.uid))
                await CoreV1Api(client).delete_namespaced_pod(self.name, self.namespace, body=this)
            except ApiException as error:
                if error.status not in (404, 409):
                    raise


def _list_interruptions() -> tuple[type[Exception], ...]:
    """What a connection to the API server may meet; a line of a watch that was cut in two is a ValueError."""
    from aiohttp import ClientError
    from kubernetes_asyncio.client import ApiException

    return (ApiException, ClientError, OSError, asyncio.TimeoutError, ValueError)
