"""Two Deployments. Whatever does not run as its Deployment says is started by Kubernetes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from include.cluster.api_server import Object
from include.release.core.release_record import alone
from include.release.core.rollout import Colour, Release, Slot, Wanted
from include.release.targets.base import Slots
from include.release.targets.kubernetes.records import RELEASE, read_staged, template_notes
from include.release.targets.kubernetes.traffic import KubernetesTraffic, is_ready


class KubernetesSlots(KubernetesTraffic, Slots):
    def _slot(self, colour: Colour) -> Slot:
        """Ready when enough pods are, and none of an earlier release is left to answer in their place."""
        deployment = self._deployment(colour)
        staged = read_staged(deployment)
        if staged is None:
            return Slot()
        pods = self._pods(colour)
        enough = sum(map(is_ready, pods)) >= int(deployment["spec"].get("replicas", 1))
        return Slot(staged, ready=enough and all(_holds(pod, deployment) for pod in pods))

    def why_not_ready(self, colour: Colour) -> str:
        """The pod's own sentence, or the slot's, about why it is not ready."""
        for pod in self._pods(colour):
            for status in pod["status"].get("containerStatuses") or ():
                if waiting := status.get("state", {}).get("waiting"):
                    return (
                        f"pod {pod['metadata']['name']}: {waiting.get('reason')} {waiting.get('message', '')}".strip()
                    )
        answer = self._told(colour)
        return str(answer.get("why") or answer.get("state") or "it does not say why") if answer else "no pod answers"

    def refusal(self, colour: Colour, release: Release) -> str | None:
        answer = self._told(colour) or {}
        tried = Release(str(answer.get("version")), str(answer.get("digest")))
        return str(answer["why"]) if answer.get("state") == "broken" and tried == release else None

    def _told(self, colour: Colour) -> dict[str, Any] | None:
        try:
            return dict(self._http.get(f"{self._slots[colour]}/model").json())
        except (httpx.HTTPError, ValueError):
            return None

    def stage(self, colour: Colour, wanted: Wanted, artifact: Path) -> None:
        self._keep_artifact(artifact, wanted.release.digest)
        self._route_to(wanted, alone, spared=colour)
        content = {**asdict(wanted.release), "generation": wanted.generation, "blessing": wanted.blessing}

        def put(deployment: Object) -> None:
            template_notes(deployment)[RELEASE] = json.dumps(content)
            deployment["spec"]["strategy"] = {"type": "Recreate"}  # no traffic comes here; the old release goes first
            deployment["spec"]["replicas"] = max(self._spec.replicas, int(deployment["spec"].get("replicas", 1)))

        self._edit_slot(colour, wanted, put)

    def nudge(self, colour: Colour) -> None:
        """Nothing: whatever does not run as its Deployment says is started by Kubernetes."""

    def discard(self, colour: Colour, wanted: Wanted) -> None:
        """No pod of it stays."""
        self._route_to(wanted, alone, spared=colour)

        def empty(deployment: Object) -> None:
            template_notes(deployment).pop(RELEASE, None)
            deployment["spec"]["replicas"] = 0

        self._edit_slot(colour, wanted, empty)


def _holds(pod: Object, deployment: Object) -> bool:
    """Whether the pod was made for what the Deployment says now."""
    own = (pod["metadata"].get("annotations") or {}).get(RELEASE)
    return own == template_notes(deployment).get(RELEASE)
