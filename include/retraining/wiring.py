"""What sensors and triggers wait for, over the stores that the environment names.

Called at an edge alone: the execute of a sensor, the run of a trigger.
"""

from include.data.wiring import open_snapshot_store
from include.kernel.wiring import open_ledger
from include.monitoring.wiring import open_report_store
from include.registry.wiring import open_registry
from include.release.wiring import open_driver, open_target
from include.retraining.spec import RetrainingManifest
from include.retraining.wait_conditions import WaitConditions


def open_wait_conditions(manifest: RetrainingManifest) -> WaitConditions:
    """Looks at a release ask no registry, so the one that MLFLOW_TRACKING_URI names will do."""
    return WaitConditions(
        manifest,
        open_ledger(),
        open_report_store(),
        open_snapshot_store,
        lambda: open_target(manifest),
        lambda: open_driver(manifest, open_registry(manifest.name)),
    )
