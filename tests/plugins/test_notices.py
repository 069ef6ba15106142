"""Alerts told to real servers on real ports: a webhook, PagerDuty's address, a mail server."""

from __future__ import annotations

import json
import logging
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email import message_from_string
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from evergreen.hooks import notifiers
from include.alerting.core.alerts import Alert, Severity
from include.alerting.wiring import open_outbox
from include.manifest import read_manifest
from tests.ground import free_ports

REVERTED = Alert(
    severity=Severity.CRITICAL,
    title="Version 7 was reverted",
    text="who: deploy\nwhy: 3 of 9 probes < all",
    runbook="roll-back",
    key="release.reverted-7",
)
BEGUN = Alert(severity=Severity.INFO, title="Version 7 is wanted", text="who: ada", runbook="roll-back", key="wanted-7")


@dataclass
class Receiver:
    """What a webhook was sent, and what it answers."""

    url: str = ""
    status: int = 200
    refused: str = ""  # a part of the texts that are answered `refusal`
    refusal: int = 400
    received: list[dict] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            made.received.append({"path": self.path, **body})
            is_refused = made.refused and made.refused in body.get("text", "")
            self.send_response(made.refusal if is_refused else made.status)
            if made.status in (301, 302, 308):
                self.send_header("location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_port}"
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield made
        server.shutdown()
        serving.join()


@pytest.fixture
def mailbox() -> Iterator[tuple[int, list[str]]]:
    """As much of SMTP as a client without a login needs."""
    letters: list[str] = []

    class Session(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline():
                word = line.strip().upper()
                if word == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    letters.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
                self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 fine\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server.server_address[1], letters
        server.shutdown()
        serving.join()


@pytest.fixture(autouse=True)
def manifest(small):
    return small()


def connect(monkeypatch, name: str, **fields) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_EVERGREEN_{name}", json.dumps({"conn_type": "generic", **fields}))


def slack(monkeypatch, url: str) -> None:
    connect(monkeypatch, "SLACK", password=f"{url}/services/T0/B0/secret")


def test_slack_is_told_once_with_what_who_why_and_where_to_read_on(monkeypatch, receiver):
    slack(monkeypatch, receiver.url)
    for _ in range(2):
        notifiers.announce(REVERTED)
    [told] = receiver.received
    assert told["path"] == "/services/T0/B0/secret"
    for part in ("*Version 7 was reverted*", "who: deploy", "3 of 9 probes &lt; all", "docs/runbook.md#roll-back"):
        assert part in told["text"]


def test_pagerduty_is_told_only_of_what_is_critical_with_a_key_that_makes_it_one_incident(monkeypatch, receiver):
    connect(monkeypatch, "PAGERDUTY", password="key", host=f"{receiver.url}/v2/enqueue")
    notifiers.announce(BEGUN, REVERTED)
    [told] = receiver.received
    assert (told["routing_key"], told["event_action"], told["dedup_key"]) == ("key", "trigger", "release.reverted-7")
    assert told["payload"]["severity"] == "critical" and "3 of 9" in told["payload"]["custom_details"]["text"]


def test_mail_goes_to_the_address_of_the_connection(monkeypatch, mailbox):
    port, letters = mailbox
    extra = {"to_email": "risk@example.com", "from_email": "evergreen@example.com", "disable_ssl": True}
    extra |= {"disable_tls": True}
    connect(monkeypatch, "EMAIL", conn_type="smtp", host="127.0.0.1", port=port, extra=extra)
    notifiers.announce(REVERTED)
    [letter] = map(message_from_string, letters)
    assert (letter["To"], letter["Subject"]) == ("risk@example.com", "[critical] Version 7 was reverted")
    [body] = letter.get_payload()
    assert "3 of 9 probes &lt; all" in body.get_payload(decode=True).decode()


def test_without_a_connection_the_log_is_told_and_nothing_fails(caplog):
    with caplog.at_level(logging.INFO):
        notifiers.announce(REVERTED)
    assert "Version 7 was reverted: who: deploy" in caplog.text and "there is no Connection" in caplog.text
    assert open_outbox(read_manifest()).deliver([]) == 0


def test_a_channel_that_is_away_fails_nothing_and_is_told_when_it_is_back(monkeypatch, receiver):
    slack(monkeypatch, receiver.url)
    receiver.status = 503
    notifiers.announce(BEGUN, REVERTED)
    assert len(receiver.received) == 1, "one that fails is not asked again at once"
    receiver.status, receiver.received = 200, []
    notifiers.deliver()
    assert ["Version 7 is wanted" in told["text"] for told in receiver.received] == [True, False]
    notifiers.deliver()
    assert len(receiver.received) == 2


def test_nobody_listening_is_no_failure_either(monkeypatch, caplog):
    slack(monkeypatch, f"http://127.0.0.1:{free_ports(1)[0]}")
    notifiers.announce(REVERTED)
    assert "slack was not reached (ConnectError)" in caplog.text and "secret" not in caplog.text


@pytest.mark.parametrize("status", [301, 302, 308, 401, 403, 404, 410, 429, 500, 503])
def test_only_a_2xx_has_taken_an_alert_whatever_else_is_answered_it_is_kept_and_told_when_that_is_put_right(
    monkeypatch, receiver, status, caplog
):
    """A webhook that was rotated answers 404, one that moved 308: both lost what was told meanwhile."""
    slack(monkeypatch, receiver.url)
    receiver.status = status
    notifiers.announce(BEGUN, REVERTED)
    assert len(receiver.received) == 1, "a channel that is away is not asked again at once"
    first, second = open_outbox(read_manifest()).list_untold()
    assert first.startswith("Version 7 is wanted (since ") and f"slack answered {status}" in first
    assert second.startswith("Version 7 was reverted") and "secret" not in first + second + caplog.text
    assert ("correct the Airflow Connection evergreen_slack" in first) == (status < 500)
    receiver.status, receiver.received = 204, []
    notifiers.deliver()
    assert len(receiver.received) == 2 and open_outbox(read_manifest()).list_untold() == []


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_message_that_is_refused_holds_up_no_other_and_is_named(monkeypatch, receiver, status):
    slack(monkeypatch, receiver.url)
    receiver.refused = "is wanted"
    receiver.refusal = status
    notifiers.announce(BEGUN, REVERTED)
    [untold] = open_outbox(read_manifest()).list_untold()
    assert "Version 7 is wanted" in untold and f"slack answered {status} and does not take this message" in untold
    assert any("reverted" in told["text"] for told in receiver.received)


def test_a_server_that_drips_is_held_to_the_whole_time_limit(monkeypatch, small):
    """A byte a tenth of a second: each begins the client library's own limit anew."""
    small(alerts={"timeout_s": 0.5})

    class Dripping(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                for letter in b"HTTP/1.1 200 OK\r\nx-slow: " + b"x" * 100:
                    self.wfile.write(bytes([letter]))
                    time.sleep(0.1)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dripping) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        slack(monkeypatch, f"http://127.0.0.1:{server.server_address[1]}")
        began = time.monotonic()
        notifiers.announce(REVERTED)
        assert time.monotonic() - began < 4, "of some 13 s that the answer takes"
        server.shutdown()
    [untold] = open_outbox(read_manifest()).list_untold()
    assert "slack was not reached (TimeoutError)" in untold


def test_what_is_told_late_says_of_when_it_is(monkeypatch, receiver, tmp_path):
    notifiers.enqueue_alerts(REVERTED)
    [waiting] = (tmp_path / "store" / "alerts" / "waiting").iterdir()
    letter = json.loads(waiting.read_text())
    waiting.write_text(json.dumps(letter | {"since": "2026-08-01T10:00:00+00:00"}))
    slack(monkeypatch, receiver.url)
    notifiers.deliver()
    assert "since: 2026-08-01T10:00 UTC" in receiver.received[0]["text"]


def test_what_was_written_down_without_connections_is_told_by_the_next_who_has_them(monkeypatch, receiver):
    notifiers.enqueue_alerts(REVERTED)
    slack(monkeypatch, receiver.url)
    notifiers.announce(BEGUN)
    assert len(receiver.received) == 2


def test_an_alert_nobody_took_for_long_is_an_error_in_the_log_and_kept(monkeypatch, small, receiver, caplog):
    small(alerts={"keep_trying_hours": 1e-9})
    slack(monkeypatch, receiver.url)
    receiver.status = 503
    notifiers.announce(REVERTED)
    assert any(each.levelname == "ERROR" and "slack answered 503" in each.message for each in caplog.records)
    receiver.status = 200
    notifiers.deliver()
    assert len(receiver.received) == 2


def test_an_alert_that_somebody_damaged_holds_up_no_other(monkeypatch, receiver, tmp_path, caplog):
    notifiers.enqueue_alerts(BEGUN)
    [waiting] = (tmp_path / "store" / "alerts" / "waiting").iterdir()
    waiting.write_text("{")
    slack(monkeypatch, receiver.url)
    notifiers.announce(REVERTED)
    assert len(receiver.received) == 1 and f"The alert in {waiting} cannot be read" in caplog.text


def test_a_store_that_cannot_be_written_fails_nothing(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EVERGREEN_STORE", str(tmp_path / "file"))
    notifiers.announce(REVERTED)
    assert "could not be written down" in caplog.text
