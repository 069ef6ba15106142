"""Where alerts go: Slack and PagerDuty, each by its own public format over HTTP.

Written here and not taken from Airflow's providers for Slack and PagerDuty: neither is needed for one POST, and both
would be two more dependencies of every worker. Who names the address is not this module's business. No error repeats
an address or a key, since both are secrets.
"""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import httpx

from include.alerting.core.alerts import Alert, Severity
from include.kernel.errors import AccessRefused, ServiceUnavailable

SLACK = "https://hooks.slack.com/services"
PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"
MESSAGE_STATUSES = (400, 413, 415, 422)  # by which a channel refuses one message, and may take the next
SEVERITY_EMOJI = {
    Severity.INFO: ":white_check_mark:",
    Severity.WARNING: ":warning:",
    Severity.CRITICAL: ":rotating_light:",
}


class Channel(ABC):
    """`least` is the lowest severity it is told of."""

    name: str
    least: Severity

    @abstractmethod
    def send(self, alert: Alert, link: str) -> None:
        """Raises `ServiceUnavailable` when nothing can be told there now, `AccessRefused` for this message alone."""


@dataclass(frozen=True)
class Slack(Channel):
    """An incoming webhook."""

    url: str
    least: Severity
    timeout_s: float
    name: str = "slack"

    def send(self, alert: Alert, link: str) -> None:
        title, text, target = (_escape_slack_text(part) for part in (alert.title, alert.text, link))
        _post(self, self.url, {"text": f"{SEVERITY_EMOJI[alert.severity]} *{title}*\n{text}\nWhat to do: {target}"})


@dataclass(frozen=True)
class PagerDuty(Channel):
    """Events API v2: what carries the same key is one incident there, too."""

    routing_key: str
    source: str
    least: Severity
    timeout_s: float
    url: str = PAGERDUTY
    name: str = "pagerduty"

    def send(self, alert: Alert, link: str) -> None:
        details = {"text": alert.text, "runbook": link}
        payload = {"summary": alert.title, "source": self.source, "severity": alert.severity.value}
        event = {"routing_key": self.routing_key, "event_action": "trigger", "dedup_key": alert.key}
        links = [{"href": link, "text": "What to do"}] if link.startswith("http") else []
        _post(self, self.url, {**event, "payload": {**payload, "custom_details": details}, "links": links})


def _post(channel: Slack | PagerDuty, url: str, content: dict[str, Any]) -> None:
    """Only an answer of 2xx has taken the message; who moved away, or drips, has not."""
    try:
        status = asyncio.run(_request_status(url, content, channel.timeout_s))
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        raise ServiceUnavailable(f"{channel.name} was not reached ({type(error).__name__}).") from None
    if 200 <= status < 300:
        return
    if status in MESSAGE_STATUSES:
        raise AccessRefused(f"{channel.name} answered {status} and does not take this message.")
    correct = f"; correct the Airflow Connection evergreen_{channel.name}" if 300 <= status < 500 else ""
    raise ServiceUnavailable(f"{channel.name} answered {status}{correct}.")


async def _request_status(url: str, content: dict[str, Any], timeout_s: float) -> int:
    """The limit holds for all of it: the client library's own begins anew with every byte that drips in."""
    async with (
        asyncio.timeout(timeout_s),
        httpx.AsyncClient(timeout=timeout_s) as client,
        client.stream("POST", url, json=content) as answer,
    ):
        return answer.status_code


def _escape_slack_text(text: str) -> str:
    """Slack reads these three as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
