"""The serving target on Kubernetes as the contract suite takes it: on nodes in small, over an API server over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from kubernetes.client import ApiClient, Configuration

from include.cluster.api_server import Cluster
from include.cluster.spec import ClusterSpec
from include.kernel.words.colours import COLOURS, Colour
from include.kernel.words.verdicts import Verdict
from include.model.blessing.blessing import render_public_pem
from include.release.core.rollout import DesiredState
from include.release.targets.kubernetes.target import KubernetesTarget
from include.release.targets.local.traffic import LocalAddresses
from tests import blessed, credit, kube_api, kube_nodes
from tests.ground import wait_for
from tests.kube_api import KubeApi
from tests.kube_nodes import NAMESPACE, Nodes
from tests.served import Serving

TOKEN = "a-token-of-sixteen"
SPEC = ClusterSpec(attempts=6, timeout_s=30, longest_wait_s=0.2, replicas=1)


def target_of(
    api: KubeApi, disk: Path, slots: Mapping[Colour, str], predictions: str, spec: ClusterSpec = SPEC
) -> KubernetesTarget:
    """By the real client."""
    return KubernetesTarget(cluster_of(api, spec), spec, NAMESPACE, disk, slots, predictions, TOKEN)


def cluster_of(api: KubeApi, spec: ClusterSpec = SPEC) -> Cluster:
    return Cluster(ApiClient(Configuration(host=api.url)), spec)


class ClusterServing(Serving):
    """What Serving is for processes behind Envoy. A Service neither fails over, nor splits, nor adds a header."""

    can = frozenset[str]()

    def __init__(self, api: KubeApi, room: Path) -> None:
        self.api, self.root = api, room / "disk"
        self.root.mkdir()
        keys = {"EVERGREEN_TRUSTED_KEYS": render_public_pem(blessed.KEY), "EVERGREEN_SERVING_TOKEN": TOKEN}
        self.nodes = Nodes(api, room / "nodes", self.root, {**keys, "EVERGREEN_UNBLESSED": "refuse"})
        slots: dict[Colour, str] = {colour: self.nodes.address(f"slot-{colour}") for colour in COLOURS}
        self.addresses = LocalAddresses(self.nodes.address("predictions"), "", slots, "")
        self.target = target_of(api, self.root, slots, self.addresses.proxy)
        self._client = httpx.Client(trust_env=False, timeout=5, limits=httpx.Limits(max_keepalive_connections=0))

    def ask(self, row: Mapping[str, Any] | None = None) -> httpx.Response:
        """A Service without endpoints refuses the connection, which a client takes for a 503."""
        try:
            return super().ask(row or credit.rows()[0])
        except httpx.TransportError:
            return httpx.Response(503, json={})

    def is_empty(self, colour: Colour) -> bool:
        return self.nodes.pods[f"slot-{colour}"] == []

    def kill(self, program: str) -> None:
        self.nodes.kill(program)

    def go_live(self, colour: Colour, wanted: DesiredState, artifact_: Path) -> None:
        self.target.install_release(colour, wanted, artifact_)
        wait_for(lambda: self.target.observe().get_slot(colour).ready)
        self.target.switch(colour, wanted)
        self.target.record_verdict(wanted.generation, "accepted", Verdict.PASSED, "an earlier run")
        self.target.record_verdict(wanted.generation, "soaked", Verdict.PASSED, "an earlier run")


@contextmanager
def on_nodes(room: Path) -> Iterator[ClusterServing]:
    with kube_api.serving() as api:
        kube_nodes.install(api)
        served = ClusterServing(api, room)
        try:
            yield served
        finally:
            served.nodes.stop()
