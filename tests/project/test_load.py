"""The load client against a real server of the standard library that answers as its path says."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import load
from tests.ground import wait_for
from tests.load import Plan


class Answers(BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", -1
    server: Served

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        number = self.server.count()
        getattr(self, self.path.strip("/"))(number, body)

    def echo(self, number: int, body: bytes) -> None:
        self._answer(200, body)

    def busy(self, number: int, body: bytes) -> None:
        self._answer(503 if number % 2 else 200, b"")

    def pieces(self, number: int, body: bytes) -> None:
        for piece in (b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 4\r\n\r\nab", b"cd"):
            self.wfile.write(piece)
            self.wfile.flush()
            time.sleep(0.002)

    def stall(self, number: int, body: bytes) -> None:
        if number == 10:
            time.sleep(0.5)
        self._answer(200, b"")

    def leave(self, number: int, body: bytes) -> None:
        self.send_response(200)
        self.send_header("connection", "close")
        self._rest(b"bye")

    def drop(self, number: int, body: bytes) -> None:
        if number % 5 == 0:
            self.close_connection = True
        else:
            self._answer(200, b"")

    def silence(self, number: int, body: bytes) -> None:
        if number != 3:
            self._answer(200, b"")

    def endless(self, number: int, body: bytes) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self._rest(body)

    def _rest(self, body: bytes) -> None:
        self.send_header("X-Version", str(self.server.number % 2))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Served(ThreadingHTTPServer):
    daemon_threads, number = True, 0
    request_queue_size = 64

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Answers)
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()

    def count(self) -> int:
        with self._lock:
            self.number += 1
            return self.number


@pytest.fixture
def server() -> Iterator[Served]:
    served = Served()
    yield served
    served.end()


def plan(server: Served, path: str, **more: object) -> Plan:
    url = f"http://127.0.0.1:{server.server_address[1]}/{path}"
    return Plan(**({"url": url, "bodies": [b"a", b"bc"], "connections": 4, "most": 40} | more))  # type: ignore[arg-type]


def test_a_closed_loop_sends_the_bodies_in_turn_and_ends_at_its_count(server: Served) -> None:
    result = load.run(plan(server, "echo", keep=True, counted="X-Version"))
    assert (result.answered, result.failed, server.number) == (40, 0, 40)
    assert Counter(result.bodies) == {b"a": 20, b"bc": 20}
    assert [(b"a", b"bc")[place] for place in result.which] == result.bodies
    assert result.counted.total() == 40 and set(result.counted) == {"0", "1"}


def test_headers_are_kept_for_each_answer_in_the_order_of_the_answers(server: Served) -> None:
    result = load.run(plan(server, "echo", keep=True, kept=("X-Version", "no-such")))
    assert len(result.kept) == 40 and {missing for _, missing in result.kept} == {"none"}
    assert {version for version, _ in result.kept} == {"0", "1"}


@pytest.mark.parametrize("rate", [None, 50.0])
def test_a_file_that_appears_ends_a_load_before_its_time(server: Served, tmp_path: Path, rate: float | None) -> None:
    stop = tmp_path / "stop"
    threading.Thread(target=lambda: (wait_for(lambda: server.number > 4), stop.touch()), daemon=True).start()
    result = load.run(plan(server, "echo", most=10**6, seconds=300, rate=rate, stop=stop))
    assert result.answered > 0 and result.seconds < 60 and result.failed == 0


def test_a_load_that_is_told_to_end_before_it_begins_ends(server: Served, tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    result = load.run(plan(server, "echo", most=10**6, seconds=300, stop=tmp_path / "stop"))
    assert (result.answered, result.failed) == (0, 0)


def test_a_closed_loop_ends_at_its_time(server: Served) -> None:
    began = time.monotonic()
    result = load.run(plan(server, "echo", most=10**6, seconds=0.3))
    assert 0.3 <= time.monotonic() - began < 3 and result.answered > 40
    assert result.per_second == pytest.approx(result.answered / result.seconds) and result.seconds < 3


def test_statuses_are_counted_and_all_but_200_failed(server: Served) -> None:
    result = load.run(plan(server, "busy"))
    assert (result.statuses, result.failed) == ({200: 20, 503: 20}, 20)


def test_an_answer_in_pieces_is_one_answer(server: Served) -> None:
    result = load.run(plan(server, "pieces", keep=True))
    assert result.failed == 0 and set(result.bodies) == {b"abcd"}


def test_a_stall_is_paid_by_every_request_that_was_due_during_it(server: Served) -> None:
    """One of 100 requests stalls for 0.5 s; sent one after the other, 99 would look fast."""
    result = load.run(plan(server, "stall", connections=1, rate=100, seconds=1, most=100))
    assert (result.answered, result.failed) == (100, 0)
    assert (result.latency > 0.1).sum() >= 35
    assert result.ms(100) >= 500 and result.ms(99) >= 450


def test_a_closed_loop_hides_the_stall_which_is_why_both_exist(server: Served) -> None:
    result = load.run(plan(server, "stall", connections=1, most=100))
    assert (result.latency > 0.1).sum() == 1


def test_an_open_loop_keeps_its_rate(server: Served) -> None:
    result = load.run(plan(server, "echo", rate=200, seconds=0.5, most=1000))
    assert result.answered == 100
    assert result.due - result.began == pytest.approx([n / 200 for n in range(100)], abs=0.05)


def test_after_connection_close_the_next_request_takes_a_new_connection(server: Served) -> None:
    result = load.run(plan(server, "leave"))
    assert (result.answered, result.failed) == (40, 0)


def test_a_lost_connection_is_a_failure_and_the_load_goes_on(server: Served) -> None:
    result = load.run(plan(server, "drop"))
    assert result.summary()["failures"] == {"connection lost": 8} and result.answered == 32


def test_silence_is_a_failure_after_the_timeout(server: Served) -> None:
    result = load.run(plan(server, "silence", connections=1, timeout_s=0.3))
    assert result.summary()["failures"] == {"timeout": 1} and result.answered == 39


def test_what_could_never_be_sent_is_a_failure_too(server: Served) -> None:
    result = load.run(plan(server, "silence", connections=1, rate=1000, seconds=0.2, most=3, timeout_s=0.3))
    assert result.answered + len(result.failures) == 3 and result.failed == 1


def test_an_answer_without_a_length_is_a_failure(server: Served) -> None:
    result = load.run(plan(server, "endless", connections=1, most=2))
    assert result.summary()["failures"] == {"an answer without content-length": 2}


def test_a_server_that_goes_down_and_comes_back_is_met_again() -> None:
    first = Served()
    with load.process() as process:
        waiting = process.submit(load.run, plan(first, "leave", connections=2, rate=50, seconds=2, most=1000))
        while first.number < 10:
            time.sleep(0.01)
        first.end()
        time.sleep(0.3)  # the outage itself
        again = Served(first.server_address[1])
        result = waiting.result(timeout=30)
        again.end()
    assert "no connection: ConnectionRefusedError" in result.summary()["failures"]
    assert result.answered >= 98, "what was due meanwhile waited, and its latency says so"
    assert result.ms(100) >= 150, "half of the outage: the server took its time to end"


def test_the_command_prints_its_figures_as_json(server: Served, tmp_path: Path) -> None:
    (tmp_path / "bodies").write_text('{"row": 1}\n{"row": 2}\n')
    url = f"http://127.0.0.1:{server.server_address[1]}/echo"
    command = [
        sys.executable,
        "-m",
        "tests.load",
        url,
        "--body",
        tmp_path / "bodies",
        "--rate",
        "100",
        "--seconds",
        "0.5",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    figures = json.loads(done.stdout)
    assert figures["statuses"] == {"200": 50} and figures["p50_ms"] <= figures["p99_ms"]


def test_nothing_listens_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "bodies").write_text("{}\n")
    command = [sys.executable, "-m", "tests.load", "http://127.0.0.1:9/x", "--body", tmp_path / "bodies"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr == "Nothing answers at http://127.0.0.1:9/x; start the server first.\n"
