"""A proxy in front of a real server that breaks HTTP on request: it answers 503, stays silent, cuts, flips, hangs up.

It also tells a watcher before and after each request is handed on, which is where a proof kills the process that asked.
"""

from __future__ import annotations

import http.client
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from tests.ground import free_ports

Action = Literal["503", "silence", "cut", "flip", "reset"]
Headers = list[tuple[str, str]]
LEFT_OUT = ("content-length", "connection", "transfer-encoding")
BUSY: tuple[Headers, bytes] = [("Content-Type", "application/xml")], b"<Error><Code>SlowDown</Code></Error>"


@dataclass
class Fault:
    """What to do to the next `times` requests whose line holds `where`, such as "GET /lake/day.csv"."""

    action: Action
    where: str
    times: int = 1_000_000
    spared: int = 0  # how many of them are handed on first


@dataclass
class FaultProxy:
    """Hands requests on to a server unless a fault is due. `log` holds every request line and what was done to it."""

    url: str
    faults: list[Fault] = field(default_factory=list)
    log: list[tuple[str, str]] = field(default_factory=list)
    watch: Callable[[str, str], None] = lambda when, line: None  # told "before" and "after" a request is handed on
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def due(self, line: str) -> Action | None:
        with self._lock:
            found = next((fault for fault in self.faults if fault.times > 0 and fault.where in line), None)
            if found and found.spared:
                found.spared, found = found.spared - 1, None
            if found:
                found.times -= 1
            self.log.append((line, found.action if found else "handed on"))
            return found.action if found else None


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    [port] = free_ports(1)
    proxy = FaultProxy(f"http://127.0.0.1:{port}")
    handler = type("Handler", (_Handler,), {"proxy": proxy, "upstream": urlsplit(upstream)})
    server = _Server(("127.0.0.1", port), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed hangs up; that is what is being tested."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy
    upstream: SplitResult
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        sent = self._sent()
        line = f"{self.command} {self.path}"
        action = self.proxy.due(line)
        with suppress(BrokenPipeError, ConnectionResetError):
            self._act(action, sent, line)

    do_GET = do_PUT = do_POST = do_PATCH = do_HEAD = do_DELETE = _serve

    def _sent(self) -> bytes:
        """The request's body. An empty file comes in chunks, of which there are none, and is handed on as it is."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        del self.headers["Transfer-Encoding"]
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(chunks)

    def _act(self, action: Action | None, sent: bytes, line: str) -> None:
        if action in ("silence", "reset"):
            return self._hang_up(waiting=action == "silence")
        if action == "503":
            return self._answer(503, *BUSY)
        self.proxy.watch("before", line)
        status, headers, body = self._asked(sent)
        self.proxy.watch("after", line)
        if action == "flip":
            body = bytes([*body[:-1], body[-1] ^ 1])
        return self._answer(status, headers, body, len(body) // 2 if action == "cut" else None)

    def _hang_up(self, waiting: bool) -> None:
        if waiting:  # until the client gives up
            self.connection.settimeout(30)
            with suppress(TimeoutError):
                self.connection.recv(1, socket.MSG_PEEK)
        self.close_connection = True

    def _asked(self, sent: bytes) -> tuple[int, Headers, bytes]:
        connection = http.client.HTTPConnection(str(self.upstream.hostname), self.upstream.port, timeout=60)
        try:
            connection.request(self.command, self.path, sent, dict(self.headers))
            answer = connection.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in LEFT_OUT]
            length = answer.getheader("Content-Length")
            if self.command == "HEAD" and length:
                headers.append(("Content-Length", length))
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: Headers, body: bytes, cut_after: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if cut_after is None else body[:cut_after])
        if cut_after is not None:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass
