"""Airflow Connections -> the channels that alerts go to. A Connection that is absent is a channel nobody wants.

    evergreen_slack       password: the webhook's address, or its token alone
    evergreen_pagerduty   password: the integration key; host: another address than PagerDuty's own
    evergreen_email       an smtp Connection; extra: from_email, to_email

Nothing here fails a run: what cannot be told is logged, and told by the next run that delivers.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from evergreen.hooks.connections import ConnectionsHook
from include.alerting import outbox
from include.alerting.channels import PAGERDUTY, SLACK, Channel, PagerDuty, Slack
from include.alerting.core import alert_rules
from include.alerting.core.alerts import Alert, Severity
from include.alerting.spec import AlertingManifest
from include.kernel.errors import AccessRefused, ServiceUnavailable
from include.kernel.ledger import Entry
from include.kernel.ledger_file import LocalLedger

log = logging.getLogger(__name__)
EMAIL_CONNECTION = "evergreen_email"


def announce(*alerts: Alert) -> None:
    """Writes alerts down, each once for its key, and tells whatever waits. Raises nothing."""
    enqueue_alerts(*alerts)
    deliver()


def announce_entry(entry: Entry) -> None:
    """Tells people of an entry of the ledger, where it is worth it; said again, it is told once. Raises nothing."""
    if alert := alert_rules.build_alert(entry):
        announce(alert)


def enqueue_alerts(*alerts: Alert) -> None:
    """Writes alerts down without telling them, where not even a second may be lost. Raises nothing."""
    try:
        waiting = ConnectionsHook().open_outbox()
        for alert in alerts:
            waiting.put(alert)
    except Exception:  # whatever it is, the release matters more
        log.exception("An alert could not be written down.")


def record(ledger: LocalLedger, entry: Entry) -> None:
    """Enters it in the ledger, and writes down what people are to be told of it."""
    outbox.record(ledger, ConnectionsHook().open_outbox(), entry)


def deliver() -> None:
    """Tells whatever waits. Raises nothing."""
    try:
        hook = ConnectionsHook()
        available = list(open_channels(hook.manifest))
        if waiting := hook.open_outbox().deliver(available):
            log.warning("%d alerts wait for a channel; the next run of monitor tries again.", waiting)
        if not available:
            log.info("Alerts go to this log alone: there is no Connection evergreen_slack, _pagerduty or _email.")
    except Exception:
        log.exception("Alerts could not be told; the next run of monitor tries again.")


def open_channels(manifest: AlertingManifest) -> Iterable[Channel]:
    spec = manifest.alerts
    if slack := _find_connection("evergreen_slack"):
        yield Slack(_build_webhook_url(slack), spec.slack, spec.timeout_s)
    if pagerduty := _find_connection("evergreen_pagerduty"):
        key, url = str(pagerduty.password), _build_address(pagerduty) or PAGERDUTY
        yield PagerDuty(key, manifest.name, spec.pagerduty, spec.timeout_s, url)
    if email := _find_connection(EMAIL_CONNECTION):
        yield Email(str(email.extra_dejson.get("to_email", "")), spec.email, spec.timeout_s)


@dataclass(frozen=True)
class Email(Channel):
    """By the hook of Airflow's smtp provider, but with a patience of seconds: an alert must hold up nobody."""

    to: str
    least: Severity
    timeout_s: float
    name: str = "email"

    def send(self, alert: Alert, link: str) -> None:
        if not self.to:
            raise AccessRefused(f"The Airflow Connection {EMAIL_CONNECTION} names no to_email in its extra.")
        body = f"<p>{escape(alert.text)}</p>".replace("\n", "<br>") + f"<p>What to do: {escape(link)}</p>"
        try:
            with self._open_hook() as hook:
                hook.send_email_smtp(to=self.to, subject=f"[{alert.severity}] {alert.title}", html_content=body)
        except Exception as error:  # smtplib, ssl and the hook have a dozen kinds
            raise ServiceUnavailable(f"email was not sent ({type(error).__name__}).") from None

    def _open_hook(self) -> Any:
        from airflow.providers.smtp.hooks.smtp import SmtpHook

        patience = max(1, round(self.timeout_s))

        class HastySmtpHook(SmtpHook):
            timeout = patience  # its own default is half a minute, five times
            smtp_retry_limit = 1

        return HastySmtpHook(smtp_conn_id=EMAIL_CONNECTION)


def _find_connection(name: str) -> Any:
    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None


def _build_webhook_url(connection: Any) -> str:
    secret = str(connection.password or "")
    return secret if secret.startswith("http") else f"{_build_address(connection) or SLACK}/{secret}"


def _build_address(connection: Any) -> str | None:
    """The host as an address: with its scheme and port where they stand apart."""
    host = connection.host
    if not host or "://" in host:
        return host or None
    port = f":{connection.port}" if connection.port else ""
    return f"{connection.schema or 'https'}://{host}{port}"
