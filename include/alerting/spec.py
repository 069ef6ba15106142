"""The manifest's section about telling people."""

from typing import Annotated

from pydantic import Field

from include.alerting.core import alerts
from include.kernel.spec import BaseManifest, Section


class AlertsSpec(Section):
    """Whom to tell is an Airflow Connection; this says what is worth telling there."""

    runbook: str = Field("docs/runbook.md", description="its address; an alert links to a section of it")
    slack: alerts.Severity = Field(alerts.Severity.INFO, description="the lowest severity Slack is told of")
    pagerduty: alerts.Severity = Field(alerts.Severity.CRITICAL, description="the lowest severity PagerDuty is told of")
    email: alerts.Severity = Field(alerts.Severity.WARNING, description="the lowest severity that is mailed")
    timeout_s: Annotated[float, Field(gt=0, le=30)] = Field(3.0, description="seconds one channel may take")
    keep_trying_hours: Annotated[float, Field(gt=0)] = Field(
        24.0, description="hours after which an alert that a channel did not take is an error in the log; it is kept"
    )


class AlertingManifest(BaseManifest):
    """The manifest as far as telling people is concerned."""

    alerts: AlertsSpec = AlertsSpec()
