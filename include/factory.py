"""The composition root: which adapters stand behind the ports, by the manifest's target and the environment.

Everything is built on first use, so that importing this module costs nothing. The environment variables are those the
hooks render from Airflow Connections, the same for a process and for a pod.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from include import manifest as manifests
from include.cluster.spec import ClusterSpec
from include.kernel.errors import RequestInvalid
from include.manifest import Manifest
from include.release.core.rollout import COLOURS, Colour

if TYPE_CHECKING:
    from include.alerting.outbox import Outbox
    from include.cluster.api_server import Cluster
    from include.data.store.job_results import Results
    from include.data.store.local_store import LocalReports
    from include.data.store.snapshot_store import ContentStore
    from include.data.store.work_units import Pieces
    from include.feedback.segments import Segments
    from include.kernel.ledger_file import LocalLedger
    from include.registry.mlflow_registry import MlflowRegistry
    from include.release.service.driver import Rollout
    from include.release.service.experiment_outcomes import ExperimentOutcomes
    from include.release.service.reconciler import Reconciler
    from include.release.targets.base import Target, Upkeep
    from include.release.targets.local_target import LocalAddresses
    from include.scoring.score_store import ScoreStore
    from include.training.backtest_store import LocalBacktests

ROOT = Path(__file__).resolve().parents[1]


def setting(name: str) -> str:
    """Raises `RequestInvalid` when the environment does not hold `name`."""
    value = os.environ.get(name)
    if not value:
        raise RequestInvalid(f"{name} is not set; start the stack with `make up`, or set it as README.md says.")
    return value


def manifest() -> Manifest:
    return manifests.load(os.environ.get("EVERGREEN_MANIFEST") or manifests.DEFAULT_PATH)


def store() -> ContentStore:
    """The snapshots: in the directory or s3:// bucket of EVERGREEN_SNAPSHOTS, by default in EVERGREEN_STORE.

    EVERGREEN_STORE itself is always a local directory: the ledger and the reports are appended to and locked there,
    which a bucket cannot do, while snapshots must be reachable from every machine that trains.
    """
    place = _snapshots()
    if place.startswith("s3://"):
        from include.data.store.s3_store import S3Store

        return S3Store(place, cache=Path(setting("EVERGREEN_STORE")) / "cache")
    from include.data.store.local_store import LocalStore

    return LocalStore(Path(place))


def segments(attempts: int = 5) -> Segments:
    """The prediction log and the outcomes, beside the snapshots. `attempts` at one request to a bucket."""
    from include.feedback.segments import Segments

    place = _snapshots()
    if place.startswith("s3://"):
        from include.data.store import s3_client
        from include.data.store.s3_store import S3Objects

        patient = s3_client.client(read_timeout_s=10.0, attempts=attempts)
        return Segments(S3Objects(place, cache=Path(), client=patient))
    from include.data.store.local_store import LocalObjects

    return Segments(LocalObjects(Path(place)))


def has_snapshots() -> bool:
    """Whether the environment names a place for them: a model server may run without one."""
    return bool(os.environ.get("EVERGREEN_SNAPSHOTS") or os.environ.get("EVERGREEN_STORE"))


def scores() -> ScoreStore:
    """Results of batch scoring, beside the snapshots."""
    from include.scoring.score_store import ScoreStore

    return ScoreStore(store().objects)


def results() -> Results:
    """What jobs in pods left, beside the snapshots."""
    from include.data.store.job_results import Results

    return Results(store().objects)


def pieces() -> Pieces:
    """Parts of jobs' work that any process may have made, beside the snapshots."""
    from include.data.store.work_units import Pieces

    return Pieces(store().objects, manifest().fan_out.keep_days)


def _snapshots() -> str:
    return os.environ.get("EVERGREEN_SNAPSHOTS") or setting("EVERGREEN_STORE")


def work_room() -> Path:
    """Where jobs keep what is not published yet: on the store's own disk if it has one, so that nothing is copied."""
    place = _snapshots()
    return Path(setting("EVERGREEN_STORE") if place.startswith("s3://") else place) / "scratch"


def studies() -> Path:
    """Where the studies of trainings that are under way keep their trials."""
    return Path(setting("EVERGREEN_STORE")) / "studies"


def data_docs() -> Path:
    """Where Great Expectations keeps its pages."""
    return Path(setting("EVERGREEN_STORE")) / "data_docs"


def reports() -> LocalReports:
    from include.data.store.local_store import LocalReports

    return LocalReports(Path(setting("EVERGREEN_STORE")))


def backtests() -> LocalBacktests:
    """The folds of the manifest in force."""
    from include.training.backtest_store import LocalBacktests

    return LocalBacktests(Path(setting("EVERGREEN_STORE")), manifest().digest)


def ledger() -> LocalLedger:
    from include.kernel.ledger_file import LocalLedger

    return LocalLedger(Path(setting("EVERGREEN_STORE")) / "ledger.jsonl")


def outbox() -> Outbox:
    """Alerts that are on their way to people."""
    from include.alerting.outbox import Outbox

    spec = manifest().alerts
    return Outbox(Path(setting("EVERGREEN_STORE")) / "alerts", spec.runbook, timedelta(hours=spec.keep_trying_hours))


def registry(uri: str | None = None) -> MlflowRegistry:
    """The registry at `uri`, or at MLFLOW_TRACKING_URI."""
    from include.registry.mlflow_registry import MlflowRegistry

    return MlflowRegistry(manifest().name, (uri or setting("MLFLOW_TRACKING_URI")).rstrip("/"))


def served_artifact(digest: str) -> Path | None:
    """The copy of an artifact that the slots of this machine load, not verified; None where there is none."""
    place = Path(os.environ.get("EVERGREEN_SERVING_DIR") or "/nowhere") / "artifacts" / digest
    return place if place.is_dir() else None


def target() -> Target:
    """The one the manifest names. Raises `RequestInvalid` when the environment does not say where it is."""
    if manifest().target == "kubernetes":
        from include.release.targets.kubernetes_target import KubernetesTarget

        return KubernetesTarget(*_cluster())
    from include.release.targets.local_target import LocalTarget

    return LocalTarget(*_local())


def _cluster() -> tuple[Cluster, ClusterSpec, str, Path, dict[Colour, str], str, str | None]:
    """Slots are asked by the names of their Services, unless the environment knows other addresses."""
    from include.cluster import api_server

    spec, namespace = manifest().cluster, manifest().jobs.namespace
    slots: dict[Colour, str] = {
        colour: os.environ.get(f"EVERGREEN_{colour.upper()}_URL") or f"http://slot-{colour}.{namespace}.svc"
        for colour in COLOURS
    }
    predictions = os.environ.get("EVERGREEN_SERVING_URL") or f"http://predictions.{namespace}.svc"
    root, token = Path(setting("EVERGREEN_SERVING_DIR")), os.environ.get("EVERGREEN_SERVING_TOKEN")
    return api_server.connect(spec), spec, namespace, root, slots, predictions.rstrip("/"), token


def _local() -> tuple[Path, LocalAddresses, str | None]:
    from include.release.targets.local_target import LocalAddresses

    slots = {colour: f"http://127.0.0.1:{setting(f'EVERGREEN_{colour.upper()}_PORT')}" for colour in ("blue", "green")}
    proxy, admin = (setting(f"EVERGREEN_{name}_URL").rstrip("/") for name in ("SERVING", "ENVOY_ADMIN"))
    addresses = LocalAddresses(proxy, admin, slots, setting("EVERGREEN_SUPERVISOR_URL"))
    return Path(setting("EVERGREEN_SERVING_DIR")), addresses, os.environ.get("EVERGREEN_SERVING_TOKEN")


def reconciler(known_registry: MlflowRegistry | None = None, at_once: bool = False) -> Reconciler:
    """Looks whether registry, ledger and world agree, and mends what it can; `at_once`: also what has just ended."""
    from include.release.core.reconcile import Patience
    from include.release.service.reconciler import Reconciler

    spec = manifest()
    looks = (spec.release.canary.look_s, spec.experiment.look_s if spec.experiment else 0.0)
    slowest = max(*looks, spec.release.soak_interval_s)  # who looks so seldom has not gone away
    patience = Patience(
        settle_s=0.0 if at_once else spec.release.settle_s,
        abandoned_s=max(spec.release.abandoned_s, 3 * slowest),
        asking_s=spec.release.approval_hours * 3600 + spec.release.abandoned_s,
    )
    return Reconciler(upkeep(), known_registry or registry(), ledger(), outbox(), patience, rollout)


def upkeep() -> Upkeep:
    """The target as it is looked after, with the rights to mend its records."""
    spec = manifest()
    if spec.target == "kubernetes":
        from include.release.targets.kubernetes_repair import ClusterUpkeep

        kept = ClusterUpkeep(*_cluster())
        kept.patience_s = spec.serving.ready_timeout_s
        return kept
    from include.release.targets.local_repair import LocalUpkeep

    return LocalUpkeep(*_local(), spec.serving.ready_timeout_s)


def rollout(known_registry: MlflowRegistry | None = None) -> Rollout:
    """A driver whose smoke requests are rows of the newest snapshot."""
    from include.release.service.driver import Rollout

    spec, kept = manifest(), store()
    newest = kept.snapshots()[-1:]
    rows = [row for snapshot in newest for row in kept.sample(snapshot, spec.contract.columns)]
    return Rollout(target(), known_registry or registry(), spec, rows, experiment_outcomes)


def experiment_outcomes() -> ExperimentOutcomes:
    """What became of callers, by the prediction log."""
    from include.release.service.experiment_outcomes import ExperimentOutcomes

    return ExperimentOutcomes(segments(), store(), manifest(), os.environ.get("EVERGREEN_LOG_KEY"))
