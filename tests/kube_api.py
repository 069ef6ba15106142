"""A Kubernetes API server in small: real HTTP, the rules that matter, and a script of what goes wrong.

It keeps any namespaced object under its path and holds to what clients rely on: names are unique (409), a named
resourceVersion is compared (409), a deletion may name a uid, owners take what they own with them, a watch starts at a
version and expires (410). `script` makes the next answers of a path faults: a status, a broken connection before or
after the effect, or silence.

`Kubelet` runs a pod's container as a process: its command, with the environment its ConfigMaps and Secrets make.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Object = dict[str, Any]
NAMED = re.compile(
    r"^(?P<kind>/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/[^/]+)?/[a-z]+)(?:/(?P<name>[^/]+))?(?P<sub>/[a-z]+)?$"
)
PROXIED = re.compile(
    r"^/api/v1/namespaces/(?P<namespace>[^/]+)/(?P<kind>services|pods)/(http:)?(?P<name>[^:/]+)[^/]*/proxy(?P<rest>/.*)?$"
)


@dataclass(frozen=True)
class Fault:
    """What happens instead of an answer. `effect`: the request was carried out all the same."""

    status: int = 0  # 0: the connection breaks
    message: str = "scripted"
    retry_after: str | None = None
    effect: bool = False
    silent_s: float = 0


RESET, LOST = Fault(), Fault(effect=True)


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class KubeApi:
    """`asked` is every request in its order, as (verb, path)."""

    objects: dict[str, Object] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    missing_groups: set[str] = field(default_factory=set)
    lingering: set[str] = field(default_factory=set)  # paths of pods that take their time to end
    logs: dict[str, str] = field(default_factory=dict)
    reach: Callable[[str, str, str], int | None] | None = None  # (namespace, services or pods, name) -> a port

    def __post_init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._version = itertools.count(1)
        self._events: list[tuple[int, str, str, Object]] = []
        self._expired = 0
        self._faults: list[tuple[str, re.Pattern[str], Fault]] = []
        self._between: list[tuple[str, re.Pattern[str], Callable[[], Any]]] = []
        self.stopped = False

    # --- the script -----------------------------------------------------------------------------------------------

    def script(self, verb: str, path: str, *faults: Fault) -> None:
        """The next requests of this verb whose path matches get these, one each."""
        self._faults += [(verb, re.compile(path), fault) for fault in faults]

    def fault(self, verb: str, path: str) -> Fault | None:
        with self._changed:
            for number, (of, matching, _) in enumerate(self._faults):
                if of == verb and matching.search(path):
                    return self._faults.pop(number)[2]
        return None

    def meanwhile(self, verb: str, path: str, action: Callable[[], Any]) -> None:
        """Before the next request of this verb whose path matches is carried out, this happens."""
        self._between.append((verb, re.compile(path), action))

    def happen(self, verb: str, path: str) -> None:
        for number, (of, matching, action) in enumerate(self._between):
            if of == verb and matching.search(path):
                self._between.pop(number)
                action()
                return

    def still(self) -> threading.Condition:
        """Nobody writes while this is held."""
        return self._changed

    def expire(self) -> None:
        """Forgets its history: every watch that is open ends, and every version known so far is too old to begin at."""
        with self._changed:
            self._expired = next(self._version)
            self._changed.notify_all()

    # --- objects --------------------------------------------------------------------------------------------------

    def create(self, kind: str, body: Object) -> Object:
        name = body["metadata"].get("name")
        with self._changed:
            if f"{kind}/{name}" in self.objects:
                raise Refused(409, f'{kind.rsplit("/", 1)[1]} "{name}" already exists')
            meta = body["metadata"]
            number = next(self._version)
            meta |= {"uid": f"uid-{number}", "creationTimestamp": datetime.now(UTC).isoformat()[:19] + "Z"}
            if "/namespaces/" in kind:
                meta.setdefault("namespace", kind.split("/namespaces/")[1].split("/")[0])
            if kind.endswith("/pods"):
                body.setdefault("status", {"phase": "Pending"})
            return self._store(f"{kind}/{name}", body, "ADDED")

    def _store(self, path: str, body: Object, event: str) -> Object:
        number = next(self._version)
        body["metadata"]["resourceVersion"] = str(number)
        if event == "DELETED":
            self.objects.pop(path)
        else:
            self.objects[path] = deepcopy(body)
        self._events.append((number, event, path, deepcopy(body)))
        self._changed.notify_all()
        return deepcopy(body)

    def read(self, path: str) -> Object:
        with self._changed:
            if path not in self.objects:
                raise Refused(404, f"{path} not found")
            return deepcopy(self.objects[path])

    def change(self, path: str, change: Callable[[Object], Any], version: str | None = None) -> Object:
        """As a controller would: `change` works on the object itself."""
        with self._changed:
            now = self.read(path)
            if version and version != now["metadata"]["resourceVersion"]:
                raise Refused(409, "the object has been modified; please apply your changes to the latest version")
            before = deepcopy(now)
            change(now)
            return now if now == before else self._store(path, now, "MODIFIED")

    def delete(self, path: str, uid: str | None = None, at_once: bool = False) -> Object:
        with self._changed:
            found = self.read(path)
            if uid and uid != found["metadata"]["uid"]:
                raise Refused(409, "the UID in the precondition does not match")
            if path in self.lingering and not at_once:
                stamp = {"deletionTimestamp": found["metadata"]["creationTimestamp"]}
                return self.change(path, lambda each: each["metadata"].update(stamp))
            self._store(path, found, "DELETED")
            owned = [p for p, each in self.objects.items() if _owned_by(each, found["metadata"]["uid"])]
            for each in owned:
                self.delete(each)
            return found

    def under(self, kind: str, query: Mapping[str, list[str]]) -> list[Object]:
        with self._changed:
            found = [each for path, each in self.objects.items() if path.rsplit("/", 1)[0] == kind]
        return [deepcopy(each) for each in found if _selected(each, query)]

    def newest_version(self) -> str:
        return str(self._events[-1][0] if self._events else 0)

    def watch(self, kind: str, query: Mapping[str, list[str]]) -> Iterator[Object]:
        """Events after the version that is named; one that is forgotten is told as 410 and ends it."""
        seen, until = int(query["resourceVersion"][0]), time.monotonic() + float(query.get("timeoutSeconds", ["30"])[0])
        while True:
            with self._changed:
                if seen < self._expired:
                    yield {
                        "type": "ERROR",
                        "object": {"kind": "Status", "code": 410, "message": "too old", "reason": "Expired"},
                    }
                    return
                fresh = [event for event in self._events if event[0] > seen]
                if not fresh and (time.monotonic() >= until or self.stopped):
                    return
                if not fresh:
                    self._changed.wait(min(0.5, max(0.0, until - time.monotonic())))
            for number, event, path, body in fresh:
                seen = number
                if path.rsplit("/", 1)[0] == kind and _selected(body, query):
                    yield {"type": event, "object": body}

    # --- what tests look at ---------------------------------------------------------------------------------------

    def of(self, plural: str) -> list[Object]:
        return [deepcopy(each) for path, each in self.objects.items() if path.split("/")[-2] == plural]

    def stop(self) -> None:
        with self._changed:
            self.stopped = True
            self._changed.notify_all()


def _owned_by(each: Object, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in each["metadata"].get("ownerReferences", ()))


def _selected(each: Object, query: Mapping[str, list[str]]) -> bool:
    labels = each["metadata"].get("labels") or {}
    for part in filter(None, ",".join(query.get("labelSelector", [])).split(",")):
        name, _, value = part.partition("=")
        if name not in labels or (value and labels[name] != value):
            return False
    for part in filter(None, ",".join(query.get("fieldSelector", [])).split(",")):
        name, _, value = part.partition("=")
        found: Any = each
        for step in name.split("."):
            found = (found or {}).get(step)
        if found != value:
            return False
    return True


def _merged(into: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    into = dict(into) if isinstance(into, dict) else {}
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        else:
            into[key] = _merged(into.get(key), value)
    return into


def _put(now: Object, new: Object) -> None:
    now.clear()
    now.update(new)


class Answers(BaseHTTPRequestHandler):
    """One connection of one client."""

    api: KubeApi
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes, and the second would wait 40 ms

    def log_message(self, *_: Any) -> None:
        """Tests read `asked`."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.api.asked.append((self.command, parts.path))
        if self.api.reach and (through := PROXIED.match(parts.path)):
            return self._hand_on(through, self.api.reach, sent)
        body = json.loads(sent) if sent else None
        query = parse_qs(parts.query)
        self.api.happen(self.command, parts.path)
        watching = query.get("watch", [""])[0].lower() == "true"
        if fault := self.api.fault("WATCH" if watching else self.command, parts.path):
            return self._misbehave(fault, parts.path, query, body)
        if watching:
            return self._stream(parts.path, query)
        try:
            return self._send(*self._answer(parts.path, query, body))
        except Refused as refusal:
            return self._send(refusal.status, {"kind": "Status", "message": str(refusal), "code": refusal.status})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _hand_on(self, through: re.Match[str], reach: Callable[[str, str, str], int | None], sent: bytes) -> None:
        """The server's own proxy to Services and pods."""
        port = reach(through["namespace"], through["kind"], through["name"])
        try:
            if port is None:
                raise OSError(f"no endpoints available for service {through['name']}")
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            content = {"Content-Type": self.headers.get("Content-Type", "application/json")}
            client.request(self.command, through["rest"] or "/", sent, content)
            answer = client.getresponse()
            self._send(answer.status, answer.read(), {k: v for k, v in answer.getheaders() if k.startswith("x-")})
        except (OSError, http.client.HTTPException) as error:
            self._send(503, {"kind": "Status", "message": str(error), "code": 503})

    def _misbehave(self, fault: Fault, path: str, query: Any, body: Any) -> None:
        if fault.effect:
            self._answer(path, query, body)
        if fault.silent_s:
            time.sleep(fault.silent_s)
        if fault.status:
            more = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            return self._send(fault.status, {"kind": "Status", "message": fault.message, "code": fault.status}, more)
        self.close_connection = True
        self.connection.close()
        return None

    def _answer(self, path: str, query: Mapping[str, list[str]], body: Any) -> tuple[int, Any]:
        named = NAMED.match(path)
        if named is None:
            return self._discover(path)
        kind, name, sub = named["kind"], named["name"], named["sub"]
        if sub == "/log":
            return 200, self.api.logs.get(f"{kind}/{name}", "")
        if sub == "/token":
            return 201, {"status": {"token": "a-token"}}
        if self.command == "POST":
            return 201, self.api.create(kind, body)
        if name is None:
            return 200, {
                "items": self.api.under(kind, query),
                "metadata": {"resourceVersion": self.api.newest_version()},
            }
        return 200, self._one(f"{kind}/{name}", body)

    def _one(self, path: str, body: Any) -> Object:
        if self.command == "GET":
            return self.api.read(path)
        if self.command == "DELETE":
            at_once = (body or {}).get("gracePeriodSeconds") == 0
            return self.api.delete(path, ((body or {}).get("preconditions") or {}).get("uid"), at_once)
        version = body["metadata"].get("resourceVersion") if "metadata" in body else None
        if self.command == "PUT":
            return self.api.change(path, lambda now: _put(now, body), version)
        return self.api.change(path, lambda now: _put(now, _merged(now, body)), version)

    def _discover(self, path: str) -> tuple[int, Any]:
        group = path.removeprefix("/apis/").split("/")[0]
        if group in self.api.missing_groups:
            raise Refused(404, f"the server could not find the requested resource {group}")
        return 200, {"kind": "APIResourceList", "resources": [{"name": "httproutes"}]}

    def _stream(self, path: str, query: Mapping[str, list[str]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in self.api.watch(path, query):
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:  # the client has seen enough
            self.close_connection = True

    def _send(self, status: int, content: Any, more: Mapping[str, str] | None = None) -> None:
        is_json = not isinstance(content, str | bytes)
        data = json.dumps(content).encode() if is_json else content.encode() if isinstance(content, str) else content
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if is_json else "text/plain")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving() -> Iterator[KubeApi]:
    """A server on a free port of this machine, and on its way out no client is kept waiting."""
    api = KubeApi()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Answers,), {"api": api}))
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.stop()
        server.shutdown()
        server.server_close()
        thread.join()


def kubeconfig(path: Path, url: str, namespace: str = "default") -> Path:
    """A file that leads every client here."""
    context = {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": namespace}}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"token": "a-token"}}],
        "contexts": [context],
        "current-context": "here",
    }
    path.write_text(yaml.safe_dump(content))
    return path


class Kubelet:
    """Runs pods as processes of this machine; what they mount is this machine's own disk."""

    def __init__(self, api: KubeApi, room: Path, kind: str) -> None:
        self._api = api
        self._room = room
        self._kind = kind

    def run(self, name: str, **more: str) -> None:
        """The pod's container from its start to its end; `more` are variables its node adds."""
        path = f"{self._kind}/{name}"
        pod = self._api.read(path)
        container = pod["spec"]["containers"][0]
        message = self._room / f"{pod['metadata']['uid']}.message"
        message.touch()
        self.tell(name, phase="Running", containerStatuses=[container_status({"running": {}})])
        command = [sys.executable if part == "python" else part for part in container["command"]]
        environment = {**os.environ, **self._environment(pod, container), "EVERGREEN_JOB_RECEIPT": str(message), **more}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        self._api.logs[path] = ended.stdout + ended.stderr
        self.end(name, ended.returncode, message.read_text())

    def end(self, name: str, code: int, message: str = "", reason: str | None = None, **status: Any) -> None:
        """How the container ended."""
        told = {"exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error"), "message": message}
        phase = "Succeeded" if code == 0 else "Failed"
        self.tell(name, phase=phase, containerStatuses=[container_status({"terminated": told})], **status)

    def waits(self, name: str, reason: str, message: str = "") -> None:
        """Why the container does not start."""
        state = {"waiting": {"reason": reason, "message": message}}
        self.tell(name, phase="Pending", containerStatuses=[container_status(state)])

    def tell(self, name: str, **status: Any) -> None:
        self._api.change(f"{self._kind}/{name}", lambda pod: pod.update(status=status))

    def _environment(self, pod: Object, container: Object) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            found |= self._from(source)
        for variable in container.get("env", ()):
            by_field = (variable.get("valueFrom") or {}).get("fieldRef")
            found[variable["name"]] = pod["metadata"]["uid"] if by_field else variable["value"]
        return found

    def _from(self, source: Object) -> dict[str, str]:
        [(ref, named)] = source.items()
        plural, data = {"configMapRef": ("configmaps", "data"), "secretRef": ("secrets", "stringData")}[ref]
        try:
            return dict(self._api.read(f"{self._kind.rsplit('/', 1)[0]}/{plural}/{named['name']}")[data])
        except Refused:
            if named.get("optional"):
                return {}
            raise


def container_status(state: Object) -> Object:
    return {"name": "base", "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": state}
