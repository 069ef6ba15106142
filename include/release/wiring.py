"""What stands behind releases, by the manifest's target and the environment.

Called at an edge alone; below it, target, driver and reconciler are passed in. The two targets are loaded when they are
asked for: a cluster's client takes seconds, and a rollback is in a hurry.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from include.alerting.wiring import open_outbox
from include.cluster.spec import ClusterSpec
from include.data.wiring import open_snapshot_store
from include.feedback.wiring import open_segments
from include.kernel.environment import read_setting
from include.kernel.wiring import open_ledger
from include.kernel.words.colours import COLOURS, Colour
from include.release.spec import ReleaseManifest

if TYPE_CHECKING:
    from include.cluster.api_server import Cluster
    from include.registry.mlflow_registry import MlflowRegistry
    from include.release.service.driver import ReleaseDriver
    from include.release.service.experiment_outcomes import ExperimentOutcomes
    from include.release.service.reconciler import Reconciler
    from include.release.targets.base import RepairableTarget, ServingTarget
    from include.release.targets.local.traffic import LocalAddresses


def open_target(manifest: ReleaseManifest) -> ServingTarget:
    """The one the manifest names. Raises `RequestInvalid` when the environment does not say where it is."""
    if manifest.target == "kubernetes":
        from include.release.targets.kubernetes.target import KubernetesTarget

        return KubernetesTarget(*_connect_cluster(manifest))
    from include.release.targets.local.target import LocalTarget

    return LocalTarget(*_find_local())


def open_repair(manifest: ReleaseManifest) -> RepairableTarget:
    """The target as it is looked after, with the rights to mend its records."""
    if manifest.target == "kubernetes":
        from include.release.targets.kubernetes.repair import KubernetesRepair

        target = KubernetesRepair(*_connect_cluster(manifest))
        target.slot_timeout_s = manifest.serving.ready_timeout_s
        return target
    from include.release.targets.local.repair import LocalRepair

    return LocalRepair(*_find_local(), manifest.serving.ready_timeout_s)


def open_driver(manifest: ReleaseManifest, registry: MlflowRegistry) -> ReleaseDriver:
    """A driver whose smoke requests are rows of the newest snapshot."""
    from include.release.service.driver import ReleaseDriver

    store = open_snapshot_store()
    newest = store.list_snapshots()[-1:]
    rows = [row for snapshot in newest for row in store.read_sample(snapshot, manifest.contract.columns)]
    return ReleaseDriver(open_target(manifest), registry, manifest, rows, lambda: open_experiment_outcomes(manifest))


def open_reconciler(manifest: ReleaseManifest, registry: MlflowRegistry, at_once: bool = False) -> Reconciler:
    """Looks whether registry, ledger and world agree, and mends what it can; `at_once`: also what has just ended."""
    from include.release.core.reconcile import ReconcileTimeouts
    from include.release.service.reconciler import Reconciler

    spec = manifest.release
    intervals = (spec.canary.look_s, manifest.experiment.look_s if manifest.experiment else 0.0)
    slowest = max(*intervals, spec.soak_interval_s)  # who looks so seldom has not gone away
    timeouts = ReconcileTimeouts(
        settle_s=0.0 if at_once else spec.settle_s,
        abandoned_s=max(spec.abandoned_s, 3 * slowest),
        approval_s=spec.approval_hours * 3600 + spec.abandoned_s,
    )
    return Reconciler(
        open_repair(manifest),
        registry,
        open_ledger(),
        open_outbox(manifest),
        timeouts,
        lambda: open_driver(manifest, registry),
    )


def open_experiment_outcomes(manifest: ReleaseManifest) -> ExperimentOutcomes:
    """What became of callers, by the prediction log."""
    from include.release.service.experiment_outcomes import ExperimentOutcomes

    return ExperimentOutcomes(open_segments(), open_snapshot_store(), manifest, os.environ.get("EVERGREEN_LOG_KEY"))


def _connect_cluster(
    manifest: ReleaseManifest,
) -> tuple[Cluster, ClusterSpec, str, Path, dict[Colour, str], str, str | None]:
    """Slots are asked by the names of their Services, unless the environment knows other addresses."""
    from include.cluster import api_server

    spec, namespace = manifest.cluster, manifest.jobs.namespace
    slots: dict[Colour, str] = {
        colour: os.environ.get(f"EVERGREEN_{colour.upper()}_URL") or f"http://slot-{colour}.{namespace}.svc"
        for colour in COLOURS
    }
    predictions = os.environ.get("EVERGREEN_SERVING_URL") or f"http://predictions.{namespace}.svc"
    root, token = Path(read_setting("EVERGREEN_SERVING_DIR")), os.environ.get("EVERGREEN_SERVING_TOKEN")
    return api_server.connect(spec), spec, namespace, root, slots, predictions.rstrip("/"), token


def _find_local() -> tuple[Path, LocalAddresses, str | None]:
    from include.release.targets.local.traffic import LocalAddresses

    slots = {colour: f"http://127.0.0.1:{read_setting(f'EVERGREEN_{colour.upper()}_PORT')}" for colour in COLOURS}
    proxy, admin = (read_setting(f"EVERGREEN_{name}_URL").rstrip("/") for name in ("SERVING", "ENVOY_ADMIN"))
    addresses = LocalAddresses(proxy, admin, slots, read_setting("EVERGREEN_SUPERVISOR_URL"))
    return Path(read_setting("EVERGREEN_SERVING_DIR")), addresses, os.environ.get("EVERGREEN_SERVING_TOKEN")
