"""The demo's traffic counts what it sees: a failure that is not counted would make every claim of zero worthless."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from include import manifest
from include.embedded.commands.airflow_api import PlayStopped, wait_for
from include.embedded.commands.traffic import Traffic, read_rows


class Server(ThreadingHTTPServer):
    """Answers version 1; a row that says so gets a 503, or no answer at all."""

    daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        row = json.loads(self.rfile.read(int(self.headers["content-length"])))["row"]
        if row["want"] == "silence":
            self.close_connection = True
            return
        self.send_response(503 if row["want"] == "503" else 200)
        self.send_header("x-evergreen-version", "1")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def _asked(url: str, wants: list[str], at_least: int) -> Traffic:
    traffic = Traffic(url, [{"want": want} for want in wants], per_second=400)
    traffic.start()
    wait_for("answers", lambda: True if traffic.total >= at_least else None, 20, interval=0.05)
    traffic.stop()
    return traffic


def test_every_good_answer_is_counted_under_its_version(url: str) -> None:
    traffic = _asked(url, ["200"], 50)
    assert traffic.versions["1"] == traffic.total >= 50
    assert traffic.failures.total() == 0


def test_an_error_and_a_lost_connection_are_failures_of_their_own(url: str) -> None:
    traffic = _asked(url, ["200", "503", "silence"], 30)
    assert set(traffic.failures) == {"503", "RemoteProtocolError"}
    assert traffic.failures.total() + traffic.versions.total() == traffic.total


def test_the_rows_asked_are_all_rows_of_the_file_as_a_client_would_send_them() -> None:
    spec = manifest.load()
    rows = read_rows(Path(__file__).parents[2] / spec.source.path, spec)
    assert len(rows) == 4454
    assert set(rows[0]) == set(spec.contract.columns)
    assert sum(value is None for row in rows for value in row.values()) == 455


def test_waiting_for_what_never_comes_ends_in_one_sentence() -> None:
    with pytest.raises(PlayStopped, match="a miracle: not seen within"):
        wait_for("a miracle", lambda: None, 0.05, interval=0.01)
