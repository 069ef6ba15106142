"""Alerts on their way: written down first, told afterwards, each once.

    <store>/alerts/waiting/<hash>.json   the alert, since when, which channels are still to be told, and what they said
    <store>/alerts/told/<hash>.json      what has been told; it also keeps the same key from being told again

Writing one down is one local file and delays nobody, so a rollback does it before its traffic moves; telling is a
network call to somebody else's server and comes when there is time. Whatever was not told (a kill, a channel that was
away, a command without Airflow's Connections) is told by the next one who delivers: every release and every run of the
monitor. A kill between telling and noting tells twice, which is better than never.

Nothing is given up: a webhook that was rotated on a Friday gets Monday everything that it missed. Until then the alert
is named by `list_untold`, so that the monitor's report and page say what people do not know yet.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from include.alerting.channels import Channel
from include.alerting.core import alert_rules
from include.alerting.core.alerts import Alert, Severity
from include.kernel.errors import AccessRefused, ServiceUnavailable
from include.kernel.files import hold_lock, write_atomic
from include.kernel.ledger import Entry
from include.kernel.ledger_file import LocalLedger

log = logging.getLogger(__name__)
LATE = timedelta(hours=1)  # from when on a told alert says of when it is
LOG_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.ERROR}


def record(ledger: LocalLedger, outbox: Outbox, entry: Entry) -> None:
    """Enters it, and writes down what people are to be told of it. Said again, it is said once.

    An alert that cannot be written down is lost to all but the log: the release matters more.
    """
    ledger.append(entry)
    try:
        if alert := alert_rules.build_alert(entry):
            outbox.put(alert)
    except OSError as error:
        log.error("Nobody can be told of %s: the outbox cannot be written (%s).", entry.what, error.strerror)


class Outbox:
    """`runbook` is the address that an alert's link begins with."""

    def __init__(self, root: Path, runbook: str, keep_trying: timedelta) -> None:
        self._waiting, self._delivered = root / "waiting", root / "told"
        self._lock = root / ".lock"
        self._runbook = runbook
        self._keep_trying = keep_trying

    def put(self, alert: Alert) -> bool:
        """Writes it down and into the log; False when its key is known already."""
        name = f"{hashlib.sha256(alert.key.encode()).hexdigest()[:32]}.json"
        if (self._waiting / name).exists() or (self._delivered / name).exists():
            return False
        log.log(LOG_LEVELS[alert.severity], "%s: %s (%s)", alert.title, alert.text, alert.link(self._runbook))
        letter = {"alert": alert.model_dump(mode="json"), "since": datetime.now(UTC).isoformat(), "left": None}
        letter["problem"] = None
        write_atomic(self._waiting / name, json.dumps(letter, indent=1))
        return True

    def deliver(self, channels: Sequence[Channel]) -> int:
        """Tells what waits, oldest first; how many alerts wait on. A channel that fails is not asked again this time.

        Raises nothing: that a channel is away is no reason for anything else to fail.
        """
        if not self._waiting.is_dir():
            return 0
        with hold_lock(self._lock):
            letters = sorted(self._read_letters(), key=_read_since)
            away: dict[str, str] = {}
            return sum(not self._deliver_letter(letter, path, channels, away) for letter, path in letters)

    def list_untold(self) -> list[str]:
        """What some channel did not take yet, oldest first: a sentence each, with since when, where and why."""
        letters = sorted((letter for letter, _ in self._read_letters() if letter.get("problem")), key=_read_since_of)
        return [_describe_untold(letter) for letter in letters]

    def _read_letters(self) -> Iterator[tuple[dict[str, Any], Path]]:
        """One that cannot be read is put away, or nobody would ever be told of anything again."""
        for path in list(self._waiting.glob("*.json")):
            try:
                letter = json.loads(path.read_text())
                Alert.model_validate(letter["alert"])
                yield letter, path
            except (ValueError, KeyError, TypeError):
                log.error("The alert in %s cannot be read and is told to nobody.", path)
                self._put_away(path)

    def _put_away(self, path: Path) -> None:
        self._delivered.mkdir(exist_ok=True)
        os.replace(path, self._delivered / path.name)

    def _deliver_letter(
        self, letter: dict[str, Any], path: Path, channels: Sequence[Channel], away: dict[str, str]
    ) -> bool:
        """Whether nothing is left to do for this letter."""
        alert, known_channels = Alert.model_validate(letter["alert"]), {channel.name: channel for channel in channels}
        if letter["left"] is None:  # who is to be told is decided when somebody first can
            letter["left"] = [recipient.name for recipient in channels if alert.severity.is_at_least(recipient.least)]
        for name in list(letter["left"]):
            problem = None
            if name in known_channels:
                problem = away.get(name) or self._send(known_channels[name], _date_alert(alert, letter), away)
            if problem is None:
                letter["left"].remove(name)
            letter["problem"] = problem or letter.get("problem")
            write_atomic(path, json.dumps(letter, indent=1))
        if letter["left"]:
            is_overdue = _measure_age(letter) >= self._keep_trying
            log.log(logging.ERROR if is_overdue else logging.WARNING, "%s waits: %s", alert.title, letter["problem"])
            return False
        self._put_away(path)
        return True

    def _send(self, channel: Channel, alert: Alert, away: dict[str, str]) -> str | None:
        """Why the channel did not take it; None when it did."""
        try:
            channel.send(alert, alert.link(self._runbook))
        except ServiceUnavailable as error:
            away[channel.name] = str(error)
            return str(error)
        except AccessRefused as error:
            return str(error)
        return None


def _describe_untold(letter: dict[str, Any]) -> str:
    left = ", ".join(letter["left"])
    return f"{letter['alert']['title']} (since {letter['since'][:16]} UTC; {left}: {letter['problem']})"


def _date_alert(alert: Alert, letter: dict[str, Any]) -> Alert:
    """What comes late says from when it is."""
    if _measure_age(letter) < LATE:
        return alert
    return alert.model_copy(update={"text": f"{alert.text}\nsince: {letter['since'][:16]} UTC"})


def _measure_age(letter: dict[str, Any]) -> timedelta:
    return datetime.now(UTC) - datetime.fromisoformat(letter["since"])


def _read_since_of(letter: dict[str, Any]) -> str:
    return str(letter["since"])


def _read_since(letter_file: tuple[dict[str, Any], Path]) -> str:
    return str(letter_file[0]["since"])
