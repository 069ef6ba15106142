"""Where alerts wait until they are told, by the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from include.alerting.spec import AlertingManifest
from include.kernel.environment import read_setting

if TYPE_CHECKING:
    from include.alerting.outbox import Outbox


def open_outbox(manifest: AlertingManifest) -> Outbox:
    """Alerts that are on their way to people."""
    from include.alerting.outbox import Outbox

    spec = manifest.alerts
    return Outbox(
        Path(read_setting("EVERGREEN_STORE")) / "alerts", spec.runbook, timedelta(hours=spec.keep_trying_hours)
    )
