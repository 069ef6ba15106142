"""Processes that die, hang up or are too slow, behind the proxy and without it (rows 27 and 29, and the signals).

Everything behind the proxy runs on one stack: Envoy, two slots and the process manager that brings back what dies.
A load runs meanwhile in a process of its own; what it may lose is each case's guarantee.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import httpx
import psutil

from include.embedded.configuration.settings import ProgramName
from include.release.core.rollout import DesiredState
from tests import credit, ground
from tests.ground import wait_for
from tests.load import Plan, Result
from tests.proofs.outcomes import Named, must
from tests.proofs.serving_requests import still_serves
from tests.proofs.serving_world import (
    Proof,
    body,
    connected,
    failures,
    head,
    probabilities,
    received,
    request,
    under_load,
)
from tests.served import Serving, Trained

SOCKETS = 300
CLOSED_WITHIN_S = 11.0  # the proxy gives a request ten
BACK_WITHIN_S = 60.0
BODIES = [body(credit.rows()[number : number + 1]) for number in range(64)]


@dataclass
class Behind:
    """The stack, with version 1 in the blue slot and version 2 in the green one."""

    serving: Serving
    trained: Trained

    @property
    def url(self) -> str:
        return f"{self.serving.addresses.proxy}/predict"

    def pid(self, program: ProgramName) -> int:
        return int(self.serving.stack.supervisor.read_statuses()[program].pid)

    def one_is_live(self) -> None:
        """Version 1, alone."""
        self.serving.start_all()
        self.serving.forget()
        self.serving.go_live("blue", self._wanted("1"), self.trained.root / "1")

    def two_are_live(self) -> None:
        """Version 2 with version 1 as its standby."""
        self.one_is_live()
        target, wanted = self.serving.target, self._wanted("2")
        target.install_release("green", wanted, self.trained.root / "2")
        wait_for(lambda: target.observe().get_slot("green").ready)
        target.switch("green", wanted)
        wait_for(lambda: self.serving.answers_with("2"))

    def _wanted(self, version: str) -> DesiredState:
        return self.serving.want(self.trained.release(version), by=f"proof of {version}")

    def steady(self) -> None:
        """I1 and I2: a ready version serves, the one that is wanted, from the slot that the route names."""
        serving, wanted = self.serving, self.serving.target.read_desired_state()
        assert wanted is not None
        wait_for(lambda: serving.answers_with(wanted.release.version), BACK_WITHIN_S)
        seen = serving.target.observe()
        must(seen.route.live is not None and seen.get_slot(seen.route.live).release == wanted.release, f"found {seen}")

    def killed(self, program: ProgramName, how: signal.Signals) -> float:
        """Kills the very process, and gives the seconds until its successor is ready."""
        before, began = self.pid(program), time.monotonic()
        os.kill(before, how)
        wait_for(lambda: self.pid(program) not in (0, before), BACK_WITHIN_S)
        if program != "envoy":
            colour = "blue" if program == "slot-blue" else "green"
            wait_for(lambda: self.serving.target.observe().get_slot(colour).ready, BACK_WITHIN_S)
        return time.monotonic() - began


@contextmanager
def behind_the_proxy(home: Path) -> Iterator[Behind]:
    with ExitStack() as stack:
        running = stack.enter_context(ground.stack(home / "stack", "envoy", "slot-blue", "slot-green"))
        (home / "releases").mkdir(parents=True, exist_ok=True)
        yield Behind(Serving(running), Trained(home / "releases"))


# --- a slot dies ------------------------------------------------------------------------------------------------------


def with_a_standby(proof: Proof, behind: Behind, how: signal.Signals) -> None:
    """Nobody notices: what never reached the slot, and what it had not answered, is asked of the standby."""
    behind.two_are_live()
    with under_load(Plan(behind.url, BODIES, connections=8, seconds=12, counted="x-evergreen-version")) as found:
        wait_for(lambda: behind.serving.answers_with("2"))
        back = behind.killed("slot-green", how)
    must(failures(found[0]) == "", f"lost {failures(found[0])} of {found[0].answered}")
    must(set(found[0].counted) == {"1", "2"}, f"answered by {dict(found[0].counted)}")
    behind.steady()
    name = how.name.lower()
    proof.figures |= {f"{name}_standby_requests": found[0].answered, f"{name}_standby_max_ms": round(found[0].ms(100))}
    proof.largest("back_s", round(back, 1))


def without_a_standby(proof: Proof, behind: Behind, how: signal.Signals) -> None:
    """Others get a 503 until the process manager has brought it back, and never an answer of another version."""
    behind.one_is_live()
    with under_load(Plan(behind.url, BODIES, connections=8, seconds=20, counted="x-evergreen-version")) as found:
        back = behind.killed("slot-blue", how)
    [result] = found
    must(set(result.statuses) <= {200, 503}, f"answered {result.statuses}")
    must(not result.failures, f"connections were lost: {result.summary()['failures']}")
    must(set(result.counted) <= {"1", "none"}, f"answered by {dict(result.counted)}")
    gap = outage(result)
    must(gap > 0.3, "the slot did not die under this load")
    must(gap <= back + 2, f"answered nobody for {gap:.1f} s, and the slot was ready after {back:.1f} s")
    behind.steady()
    proof.figures[f"{how.name.lower()}_outage_s"] = round(gap, 1)


def outage(result: Result) -> float:
    """The longest time without a 200, in seconds."""
    good = sorted((result.due + result.latency)[result.status == 200])
    return float(max((later - former for former, later in pairwise(good)), default=0.0))


def a_killed_proxy(proof: Proof, behind: Behind) -> None:
    """Its connections are lost; it comes back on the same route, and the slots have not noticed."""
    behind.two_are_live()
    slots = behind.pid("slot-blue"), behind.pid("slot-green")
    with under_load(Plan(behind.url, BODIES, connections=8, seconds=8)) as found:
        back = behind.killed("envoy", signal.SIGKILL)
    must(set(found[0].statuses) <= {200, 503}, f"answered {found[0].statuses}")
    must((behind.pid("slot-blue"), behind.pid("slot-green")) == slots, "a slot was restarted")
    must(outage(found[0]) < back + 2, f"answered nobody for {outage(found[0]):.1f} s")
    behind.steady()


# --- slow clients -----------------------------------------------------------------------------------------------------


def half_open(port: int, text: bytes) -> list[socket.socket]:
    found = []
    for _ in range(SOCKETS):
        sock = socket.create_connection(("127.0.0.1", port), 10)
        sock.sendall(text)
        sock.setblocking(False)
        found.append(sock)
    return found


def until_closed(sockets: list[socket.socket], seconds: float, trickle: bytes = b"") -> int:
    """How many are still open after these seconds; each is sent another byte a second."""
    deadline, open_ = time.monotonic() + seconds, set(sockets)
    while open_ and time.monotonic() < deadline:
        readable, _, _ = select.select(list(open_)[:1000], [], [], 1.0)
        open_ -= {sock for sock in readable if _is_over(sock)}
        for sock in list(open_):
            if trickle and not _sends(sock, trickle):
                open_.discard(sock)
    return len(open_)


def _is_over(sock: socket.socket) -> bool:
    try:
        return sock.recv(65536) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _sends(sock: socket.socket, data: bytes) -> bool:
    try:
        return sock.send(data) > 0
    except BlockingIOError:
        return True
    except OSError:
        return False


def slowloris(proof: Proof, behind: Behind, text: bytes, trickle: bytes) -> None:
    """Three hundred clients that never end their request: hung up on in time, and nobody else waits for them."""
    behind.one_is_live()
    port = int(behind.url.split(":")[2].split("/")[0])
    sockets = half_open(port, text)
    try:
        with under_load(Plan(behind.url, BODIES, connections=4, seconds=6)) as found:
            left = until_closed(sockets, CLOSED_WITHIN_S, trickle)
    finally:
        for sock in sockets:
            sock.close()
    must(left == 0, f"{left} of {SOCKETS} are still open after {CLOSED_WITHIN_S:g} s")
    must(failures(found[0]) == "", f"others lost {failures(found[0])}")
    must(found[0].ms(99) < 2000, f"others waited {found[0].ms(99):.0f} ms")
    proof.largest("slowloris_p99_ms", round(found[0].ms(99)))
    behind.steady()


def slow_at_the_server(proof: Proof) -> None:
    """Past the proxy, on loopback: they may stay, but nobody waits for them and they cost next to nothing."""
    server = proof.shared()
    before = server.rss_mib()
    sockets = half_open(server.port, head()[:-2])
    try:
        with under_load(Plan(f"{server.url}/predict", BODIES, connections=4, seconds=3)) as found:
            pass
    finally:
        for sock in sockets:
            sock.close()
    must(
        failures(found[0]) == "" and found[0].ms(99) < 2000, f"others lost {failures(found[0])}, p99 {found[0].ms(99)}"
    )
    must(server.rss_mib() - before < 30, f"grew by {server.rss_mib() - before:.0f} MiB")


# --- a server alone ---------------------------------------------------------------------------------------------------


def terminated_in_flight(proof: Proof) -> None:
    """SIGTERM while eight requests of a thousand rows are under way: all are answered, rightly, and then it ends."""
    rows = credit.rows()[:1000]
    truth = proof.model.predict_proba(rows)
    roomy = {"queue_rows": 10_000, "deadline_ms": 60_000}
    with proof.server("generic", serving=roomy) as server, ExitStack() as opened:
        assert server.process is not None
        clients = [opened.enter_context(connected(server.port, 60)) for _ in range(8)]
        for client in clients:
            client.sendall(request(body(rows)))
        works = psutil.Process(server.process.pid).cpu_times().user + 0.05
        wait_for(lambda: psutil.Process(server.process.pid).cpu_times().user >= works)
        server.process.send_signal(signal.SIGTERM)
        answers = [received(client) for client in clients]
        code = server.process.wait(30)
    must(all(answer[9:12] == b"200" for answer in answers), f"answered {[answer[:30] for answer in answers]}")
    for answer in answers:
        must(max(abs(truth - probabilities(json.loads(answer.partition(b"\r\n\r\n")[2])))) < 1e-6, "answered wrongly")
    must(code in (0, -signal.SIGTERM), f"ended with {code}")


def _post(url: str, sent: bytes) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.post(f"{url}/predict", content=sent, headers={"content-type": "application/json"})


def killed_and_back(proof: Proof) -> None:
    """kill -9 in the middle of a load, started again: ready by itself with what it held, from its own place."""
    with proof.server() as server:
        with under_load(Plan(f"{server.url}/predict", BODIES, connections=4, seconds=2)):
            server.stop(signal.SIGKILL)
        server.start()
        must(server.http.get("/ready").status_code == 200, "is not ready again")
        must([path for path in server.place.rglob("*") if path.name.startswith(".")] == [], "left something temporary")


def hang_ups(proof: Proof, kind: str) -> None:
    """Half of the clients hang up right after asking; each of the others gets the answer to its own rows."""
    server = proof.shared(kind)
    truth = proof.model.predict_proba(credit.rows()[:200])
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(partial(_ask_or_leave, server.port, server.url), range(200)))
    wrong = [number for number, answer in enumerate(found) if answer is not None and abs(answer - truth[number]) > 1e-6]
    must(not wrong, f"answered wrongly: {wrong}")
    must(sum(answer is not None for answer in found) == 100, "somebody got no answer")
    must("Traceback" not in server.log(), f"left a traceback: {server.log()[-600:]}")
    still_serves(proof)


def _ask_or_leave(port: int, url: str, number: int) -> float | None:
    sent = body(credit.rows()[number : number + 1])
    if number % 2:
        with connected(port) as sock:
            sock.sendall(request(sent))
        return None
    return probabilities(_post(url, sent).json())[0]


def poison(proof: Proof, kind: str) -> None:
    """One bad row in one of many requests at once: its sender gets a 422, everybody else the right answer."""
    server = proof.shared(kind)
    truth = proof.model.predict_proba(credit.rows()[:200])
    bad = body([{**credit.rows()[0], "Age": "poison"}])
    with ThreadPoolExecutor(32) as pool:
        sent = [bad if number % 10 == 0 else body(credit.rows()[number : number + 1]) for number in range(200)]
        answers = list(pool.map(partial(_post, server.url), sent))
    for number, answer in enumerate(answers):
        if number % 10 == 0:
            must(answer.status_code == 422, f"the poison was answered {answer.status_code}")
        else:
            must(answer.status_code == 200, f"another was answered {answer.status_code} {answer.text}")
            must(abs(probabilities(answer.json())[0] - truth[number]) < 1e-6, "another was answered wrongly")


def of_processes(proof: Proof, behind: Callable[[], Behind]) -> list[Named]:
    def play(story: Callable[..., None], *given: object) -> Callable[[], None]:
        return lambda: story(proof, behind(), *given)

    first, half = head()[:-2], head("/predict", "content-length: 1000") + b'{"rows"'
    kill, term = signal.SIGKILL, signal.SIGTERM
    return [
        ("27 slowloris, 300 half-open headers through the proxy: closed in 11 s", play(slowloris, first, b"x")),
        ("27 slow bodies, 300 through the proxy: closed in 11 s", play(slowloris, half, b" ")),
        ("27 300 half-open sockets at the server itself: nobody waits for them", partial(slow_at_the_server, proof)),
        (
            "29 half the clients hang up (compiled): the others get their own answers",
            partial(hang_ups, proof, "compiled"),
        ),
        (
            "29 half the clients hang up (generic): the others get their own answers",
            partial(hang_ups, proof, "generic"),
        ),
        ("29 poison rows among good ones (compiled): only they are refused", partial(poison, proof, "compiled")),
        ("29 poison rows among good ones (generic): only they are refused", partial(poison, proof, "generic")),
        ("SIGTERM with requests in flight: all answered, then it ends", partial(terminated_in_flight, proof)),
        ("SIGKILL under load: started again, it is ready by itself", partial(killed_and_back, proof)),
        ("SIGKILL of the live slot, with a standby: 0 failed, back by itself", play(with_a_standby, kill)),
        ("SIGTERM of the live slot, with a standby: 0 failed, back by itself", play(with_a_standby, term)),
        ("SIGKILL of the only slot: 503 until it is back, by itself", play(without_a_standby, kill)),
        ("SIGTERM of the only slot: 503 until it is back, by itself", play(without_a_standby, term)),
        ("SIGKILL of the proxy: back on the same route, slots untouched", play(a_killed_proxy)),
    ]
