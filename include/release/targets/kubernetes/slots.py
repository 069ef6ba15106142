"""Two Deployments. Whatever does not run as its Deployment says is started by Kubernetes."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from include.cluster.api_server import Object
from include.kernel.words.colours import Colour
from include.release.core.release_record import build_isolated_route
from include.release.core.rollout import DesiredState, Release, Slot
from include.release.targets.base import Slots
from include.release.targets.kubernetes.records import RELEASE_ANNOTATION, get_template_annotations, read_staged
from include.release.targets.kubernetes.traffic import KubernetesTraffic, is_ready


class KubernetesSlots(KubernetesTraffic, Slots):
    def _read_slot(self, colour: Colour) -> Slot:
        """Ready when enough pods are, and none of an earlier release is left to answer in their place."""
        deployment = self._read_deployment(colour)
        staged = read_staged(deployment)
        if staged is None:
            return Slot()
        pods = self._list_pods(colour)
        enough = sum(map(is_ready, pods)) >= int(deployment["spec"].get("replicas", 1))
        return Slot(staged, ready=enough and all(_is_current_pod(pod, deployment) for pod in pods))

    def explain_not_ready(self, colour: Colour) -> str:
        """The pod's own sentence, or the slot's, about why it is not ready."""
        for pod in self._list_pods(colour):
            for status in pod["status"].get("containerStatuses") or ():
                if waiting := status.get("state", {}).get("waiting"):
                    return (
                        f"pod {pod['metadata']['name']}: {waiting.get('reason')} {waiting.get('message', '')}".strip()
                    )
        answer = self._fetch_model_status(colour)
        return str(answer.get("why") or answer.get("state") or "it does not say why") if answer else "no pod answers"

    def explain_refusal(self, colour: Colour, release: Release) -> str | None:
        answer = self._fetch_model_status(colour) or {}
        tried_release = Release(str(answer.get("version")), str(answer.get("digest")))
        return str(answer["why"]) if answer.get("state") == "broken" and tried_release == release else None

    def _fetch_model_status(self, colour: Colour) -> dict[str, Any] | None:
        try:
            return dict(self._http.get(f"{self._slots[colour]}/model").json())
        except (httpx.HTTPError, ValueError):
            return None

    def install_release(self, colour: Colour, desired: DesiredState, artifact: Path) -> None:
        self._keep_artifact(artifact, desired.release.digest)
        self._change_route(desired, build_isolated_route, spared=colour)
        content = {**asdict(desired.release), "generation": desired.generation, "blessing": desired.blessing}

        def put_release(deployment: Object) -> None:
            get_template_annotations(deployment)[RELEASE_ANNOTATION] = json.dumps(content)
            deployment["spec"]["strategy"] = {"type": "Recreate"}  # no traffic comes here; the old release goes first
            deployment["spec"]["replicas"] = max(self._spec.replicas, int(deployment["spec"].get("replicas", 1)))

        self._edit_slot(colour, desired, put_release)

    def nudge(self, colour: Colour) -> None:
        """Nothing: whatever does not run as its Deployment says is started by Kubernetes."""

    def discard(self, colour: Colour, desired: DesiredState) -> None:
        """No pod of it stays."""
        self._change_route(desired, build_isolated_route, spared=colour)

        def empty_slot(deployment: Object) -> None:
            get_template_annotations(deployment).pop(RELEASE_ANNOTATION, None)
            deployment["spec"]["replicas"] = 0

        self._edit_slot(colour, desired, empty_slot)


def _is_current_pod(pod: Object, deployment: Object) -> bool:
    """Whether the pod was made for what the Deployment says now."""
    release = (pod["metadata"].get("annotations") or {}).get(RELEASE_ANNOTATION)
    return release == get_template_annotations(deployment).get(RELEASE_ANNOTATION)
