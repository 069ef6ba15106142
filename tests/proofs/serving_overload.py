"""More than can be answered, and models that fail or take too long (row 28, and the breaker with its fallback)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx

from tests import credit, load
from tests.ground import wait_for
from tests.load import Plan
from tests.proofs.outcomes import Named, must
from tests.proofs.serving_entry import POISON
from tests.proofs.serving_operation import hand_over
from tests.proofs.serving_requests import PLAIN
from tests.proofs.serving_world import Proof, Server, body, failures, probabilities

TIMES = 4
QUEUE = 128  # requests; the load has three times as many connections
ONE_ROW = [body(credit.rows()[number : number + 1]) for number in range(256)]
FIFTY_ROWS = [body(credit.rows()[number : number + 50]) for number in range(0, 1600, 50)]
GOODPUT = 0.8
RECOVERS_WITHIN_S = 5.0
RULE = 0.75


def overloaded(proof: Proof, rows: int = 1) -> None:
    """Four times the measured capacity, open loop: 503 + Retry-After for what is too much, and no collapse.

    With `rows` 50 a request is fifty times the work, most of it before the queue.
    """
    bodies, abreast, bound = (ONE_ROW, QUEUE // 2, QUEUE) if rows == 1 else (FIFTY_ROWS, 16, 2048)
    with proof.server("generic", serving={"queue_rows": bound}) as server, load.process() as pool:
        url, before = f"{server.url}/predict", server.rss_mib()
        alone = pool.submit(load.run, Plan(url, bodies, connections=abreast, seconds=4)).result()
        must(alone.failed == 0, f"the queue's bound is passed already: {failures(alone)}")
        capacity = alone.per_second
        plan = Plan(url, bodies, 400, 8, rate=TIMES * capacity, timeout_s=20, counted="retry-after")
        result = pool.submit(load.run, plan).result()
        began = time.monotonic()
        wait_for(lambda: _quick(server), 30)
        recovered, grown = time.monotonic() - began, server.rss_mib() - before
    answered = result.statuses
    goodput = answered[200] / result.seconds / capacity
    proof.figures["overload" if rows == 1 else f"overload_{rows}_rows"] = {
        "capacity": round(capacity),
        "sent": round(TIMES * capacity),
        "goodput": round(goodput, 2),
        "statuses": {str(status): count for status, count in answered.items()},
        "p99_ms": round(result.ms(99)),
        "recovered_s": round(recovered, 2),
    }
    must(set(answered) <= {200, 503, 504}, f"answered {answered}")
    must(not result.failures, f"connections were lost: {result.summary()['failures']}")
    must(answered[503] > 0 and answered[503] == sum(result.counted.values()) - result.counted["none"], "no Retry-After")
    must(answered[504] <= 0.02 * result.answered, f"{answered[504]} waited for nothing")
    must(goodput >= GOODPUT, f"only {goodput:.2f} of the capacity was answered: {answered}")
    must(recovered <= RECOVERS_WITHIN_S, f"took {recovered:.1f} s to recover")
    must(grown < 150, f"grew by {grown:.0f} MiB")


def _quick(server: Server) -> bool:
    began = time.monotonic()
    answer = server.http.post("/predict", content=body(credit.rows()[:1]), headers=PLAIN)
    return answer.status_code == 200 and time.monotonic() - began < 0.5


# --- models that fail -------------------------------------------------------------------------------------------------


@contextmanager
def ailing(proof: Proof, kind: str = "compiled", **serving: Any) -> Iterator[Server]:
    """A server whose models can be made to fail. Guards that are switched off come with it."""
    without = "+".join(filter(None, ["ailing", proof.without]))
    server = proof.new(without, serving=serving)
    try:
        yield server.serving(proof.shelf(kind))
    finally:
        server.stop()


def ask(server: Server, number: int = 0, **headers: str) -> httpx.Response:
    sent = body(credit.rows()[number : number + 1])
    return server.http.post("/predict", content=sent, headers=PLAIN | headers)


def breaker_opens_and_closes(proof: Proof) -> None:
    """A failing model is left alone with a 503 + Retry-After, tried again by itself, and serves when it is well."""
    with ailing(proof, breaker={"failures": 5, "reset_s": 1.0}) as server:
        (server.place / "sick").write_text("compiled")
        first = Counter(ask(server).status_code for _ in range(5))
        later = [ask(server) for _ in range(20)]
        must(first == {500: 5}, f"the failing model was answered as {first}")
        must({answer.status_code for answer in later} == {503}, f"then {Counter(a.status_code for a in later)}")
        must(all(int(answer.headers["retry-after"]) >= 1 for answer in later), "a 503 without Retry-After")
        must(server.metric("evergreen_breaker_open") == 1, "no metric says so")
        must(server.http.get("/health").status_code == 200, "is not alive")
        (server.place / "sick").unlink()
        began = time.monotonic()
        wait_for(lambda: ask(server).status_code == 200, 20)
        must(time.monotonic() - began < 5, "took long to come back")
        must(server.metric("evergreen_breaker_open") == 0, "the metric stayed")


def rule_in_its_place(proof: Proof) -> None:
    """With `fallback: {rule: ...}` everybody is answered, and each such answer says whose it is."""
    with ailing(proof, fallback={"rule": RULE}, breaker={"failures": 5, "reset_s": 1.0}) as server:
        must(ask(server).json().get("served_by", "model") == "model", "the healthy model is not named")
        (server.place / "sick").write_text("compiled")
        for answer in [ask(server) for _ in range(20)]:
            must(answer.status_code == 200 and probabilities(answer.json()) == [RULE], f"answered {answer.text}")
            must(answer.json()["served_by"] == "rule", f"is not marked: {answer.text}")


def previous_in_its_place(proof: Proof) -> None:
    """With `fallback: previous` the version before answers, under its own name, and marked."""
    with ailing(proof, fallback="previous", breaker={"failures": 5, "reset_s": 1.0}) as server:
        hand_over(proof, server, 2)
        (server.place / "sick").write_text("generic")
        truth = float(proof.model.predict_proba(credit.rows()[:1])[0])
        for answer in [ask(server) for _ in range(20)]:
            told = answer.json()
            must(answer.status_code == 200 and told.get("served_by") == "previous", f"answered {answer.text}")
            must(told["version"] == "1", f"names version {told['version']}")
            must(abs(probabilities(told)[0] - truth) < 1e-6, "answered wrongly")


def rows_that_break_the_model(proof: Proof, kind: str) -> None:
    """Valid rows on which the model itself fails, among others in a batch: their senders alone get a 500."""
    truth = proof.model.predict_proba(credit.rows()[:200])
    bad = body([{**credit.rows()[0], "Seniority": POISON}])
    with ailing(proof, kind) as server, ThreadPoolExecutor(32) as pool:
        sent = [bad if number % 10 == 0 else body(credit.rows()[number : number + 1]) for number in range(200)]
        answers = list(pool.map(lambda each: server.http.post("/predict", content=each, headers=PLAIN), sent))
    for number, answer in enumerate(answers):
        if number % 10 == 0:
            must(answer.status_code == 500, f"the poison was answered {answer.status_code}")
        else:
            must(answer.status_code == 200, f"another was answered {answer.status_code} {answer.text}")
            must(abs(probabilities(answer.json())[0] - truth[number]) < 1e-6, "another was answered wrongly")


def too_slow(proof: Proof) -> None:
    """A model that takes a second, and a caller who waits 300 ms: a 504 in time, and probes that do not wait."""
    with ailing(proof, "generic") as server:
        ask(server)
        (server.place / "slow").write_text("generic")
        began = time.monotonic()
        answer = ask(server, **{"x-evergreen-timeout-ms": "300"})
        took = time.monotonic() - began
        must(answer.status_code == 504, f"answered {answer.status_code} after {took:.1f} s")
        must(took < 0.9, f"took {took:.1f} s")
        began = time.monotonic()
        must(server.http.get("/ready").status_code == 200 and time.monotonic() - began < 0.9, "the probe waited")


def of_overload(proof: Proof) -> list[Named]:
    return [
        (
            "28 four times the capacity: 503 + Retry-After, goodput >= 80 %, recovered in 5 s",
            partial(overloaded, proof),
        ),
        (
            "28 the same with fifty rows a request: refused before they are read",
            partial(overloaded, proof, 50),
        ),
        ("a failing model: 503 + Retry-After, tried again by itself", partial(breaker_opens_and_closes, proof)),
        ("a failing model, fallback to a rule: answered and marked", partial(rule_in_its_place, proof)),
        ("a failing model, fallback to the version before: answered and marked", partial(previous_in_its_place, proof)),
        (
            "29 rows that break the model (compiled): 500 for them alone",
            partial(rows_that_break_the_model, proof, "compiled"),
        ),
        (
            "29 rows that break the model (generic): 500 for them alone",
            partial(rows_that_break_the_model, proof, "generic"),
        ),
        ("a model that is too slow: 504 at the caller's deadline, probes answered", partial(too_slow, proof)),
    ]
