"""Runs in a pod: clients that ask the Service for predictions until they are told to end, and count every answer.

Half of them open a connection for each request; the others keep theirs, as a pool does. A kept connection that is
closed before a byte of an answer came is opened anew and the request sent again, which every HTTP client does; such
cases are counted apart. Anything else that is not a 200 is a failure. The image is the server's, so there is nothing
here but the standard library.

    GET /counts   what was answered so far, as JSON        POST /stop   ends the clients, then the same
"""

import http.client
import itertools
import json
import os
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

TARGET = urlsplit(os.environ["TARGET"])
ROWS = json.loads(os.environ["ROWS"])
CLIENTS = int(os.environ.get("CLIENTS", "4"))
STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
done = threading.Event()
lock = threading.Lock()
answers: Counter[str] = Counter()
failures: list[str] = []
told = {"reopened": 0, "slowest_s": 0.0, "last": ""}


def connection() -> http.client.HTTPConnection:
    return http.client.HTTPConnection(TARGET.hostname or "", TARGET.port or 80, timeout=10)


def asked(kept: http.client.HTTPConnection, row: object) -> tuple[int, str]:
    kept.request("POST", "/predict", json.dumps({"rows": [row]}), {"Content-Type": "application/json"})
    answer = kept.getresponse()
    answer.read()
    return answer.status, answer.headers.get("x-evergreen-version") or "?"


def once(kept: http.client.HTTPConnection, row: object, keeps: bool) -> tuple[int, str]:
    fresh = kept.sock is None
    try:
        return asked(kept, row)
    except STALE:
        kept.close()
        if fresh or not keeps:
            raise
        with lock:
            told["reopened"] += 1
        return asked(kept, row)


def client(keeps: bool) -> None:
    kept = connection()
    for row in itertools.cycle(ROWS):
        if done.is_set():
            return kept.close()
        began = time.monotonic()
        try:
            count(*once(kept, row, keeps), time.monotonic() - began)
        except (OSError, http.client.HTTPException) as error:
            kept.close()
            fail(f"{type(error).__name__}: {error}", time.monotonic() - began)
        if not keeps:
            kept.close()
        time.sleep(0.005)


def count(status: int, version: str, seconds: float) -> None:
    if status != 200:
        return fail(f"status {status}", seconds)
    with lock:
        answers[version] += 1
        told["last"], told["slowest_s"] = version, max(told["slowest_s"], seconds)
    return None


def fail(why: str, seconds: float) -> None:
    with lock:
        failures.append(f"{why} after {seconds:.2f} s, version {told['last']} had answered")


def counted() -> bytes:
    with lock:
        found = {"answered": sum(answers.values()), "failed": len(failures), "by_version": dict(answers)}
        return json.dumps({**found, **told, "failures": failures[:5]}).encode()


class Told(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def _answer(self) -> None:
        body = counted()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = _answer

    def do_POST(self) -> None:
        done.set()
        for each in clients:
            each.join()
        self._answer()


if __name__ == "__main__":
    clients = [threading.Thread(target=client, args=[number % 2 == 1]) for number in range(CLIENTS)]
    for each in clients:
        each.start()
    ThreadingHTTPServer(("", int(os.environ["PORT"])), Told).serve_forever()
