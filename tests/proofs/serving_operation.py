"""Who may operate the server, and what its log keeps (rows 32 and 35): reloads, tokens, full disks, buffered rows."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pyarrow.dataset as ds

from tests import credit
from tests.ground import wait_for
from tests.load import Plan
from tests.proofs.data_disks import may_mount, small_disk
from tests.proofs.outcomes import Named, must
from tests.proofs.serving_processes import BODIES
from tests.proofs.serving_trust import turn_a_bit
from tests.proofs.serving_world import CANARY, TOKEN, Proof, Server, body, failures, under_load

CLIENT = f"client-{CANARY}"
RELOADS = 6


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def reload(server: Server, token: str = TOKEN, **headers: str) -> httpx.Response:
    return server.http.post("/admin/reload", headers=bearer(token) | headers)


# --- reloads ----------------------------------------------------------------------------------------------------------


def reload_under_load(proof: Proof) -> None:
    """Versions take turns, compiled and generic: not one request fails, and each answer names the version it is of."""
    with proof.server() as server:
        for number in (2, 3):  # the libraries of both forms are loaded before the load begins
            hand_over(proof, server, number)
        plan = Plan(f"{server.url}/predict", BODIES, connections=8, seconds=8, counted="x-evergreen-version")
        with under_load(plan) as found:
            for number in range(4, 4 + RELOADS):
                hand_over(proof, server, number)
    must(failures(found[0]) == "", f"lost {failures(found[0])} of {found[0].answered}")
    must(len(found[0].counted) > 2, f"the reloads fell outside the load: {dict(found[0].counted)}")
    proof.figures |= {"reload_requests": found[0].answered, "reload_max_ms": round(found[0].ms(100))}


def hand_over(proof: Proof, server: Server, number: int) -> None:
    server.stage(proof.shelf("generic" if number % 2 == 0 else "compiled"), str(number), generation=number)
    answer = reload(server)
    must(answer.status_code == 200, f"the reload was answered {answer.status_code} {answer.text}")
    must(server.http.get("/model").json()["version"] == str(number), "holds another version")


def reload_of_a_bad_one(proof: Proof) -> None:
    """A tampered release is refused with its sentence, and the one before serves on, without a gap."""
    with proof.server() as server:
        with under_load(Plan(f"{server.url}/predict", BODIES, 4, 4, counted="x-evergreen-version")) as found:
            digest = server.stage(proof.shelf("generic"), "2", generation=2)
            turn_a_bit("model.skops")(server.place / "artifacts" / digest)
            answer = reload(server)
        must(400 <= answer.status_code < 600 and "has the digest" in answer.text, f"{answer.status_code} {answer.text}")
    must(failures(found[0]) == "" and set(found[0].counted) == {"1"}, f"{failures(found[0])} {found[0].counted}")


# --- tokens -----------------------------------------------------------------------------------------------------------


def admin_needs_its_token(proof: Proof) -> None:
    """None, a wrong one, a client's, the right one twice, from another machine: 401 or 403, and nothing is reloaded."""
    with proof.server(EVERGREEN_API_TOKENS=f"client:{CLIENT}") as server:
        loaded = server.http.get("/model", headers=bearer(CLIENT)).json()["loaded_at"]
        asked = {
            "no token": (httpx.post(f"{server.url}/admin/reload", trust_env=False), 401),
            "a wrong token": (reload(server, "x" * len(TOKEN)), 401),
            "the start of the token": (reload(server, TOKEN[:-1]), 401),
            "a client's token": (reload(server, CLIENT), 403),
            "the token in the query": (server.http.post(f"/admin/reload?token={TOKEN}"), 401),
            "through a proxy": (reload(server, **{"x-forwarded-for": "10.0.0.1"}), 403),
        }
        for name, (answer, status) in asked.items():
            must(answer.status_code == status, f"{name} was answered {answer.status_code} {answer.text}")
            must(TOKEN not in answer.text and CLIENT not in answer.text, f"{name}: the answer tells a token")
        must(server.http.get("/model", headers=bearer(CLIENT)).json()["loaded_at"] == loaded, "it was reloaded")
        must(reload(server).status_code == 200, "the right token was refused")


def every_route_has_its_guard(proof: Proof) -> None:
    """With API tokens named, each route of the description asks for one; a path nobody knows tells no more."""
    with proof.server(EVERGREEN_API_TOKENS=f"client:{CLIENT}") as server:
        described = server.http.get("/openapi.json", headers=bearer(CLIENT)).json()["paths"]
        closed = 0
        for path, methods in {**described, "/nobody-knows": {"get": {}}}.items():
            for method in {"get", "post"} & methods.keys():
                sent = path.replace("{name}", "credit").replace("{version}", "1")
                status = server.http.request(method.upper(), sent).status_code
                is_open = (
                    sent in ("/health", "/ready", "/ping", "/version") or sent.startswith("/v2/health") or sent == "/v2"
                )
                must((status == 401) != is_open, f"{method} {path} without a token was answered {status}")
                closed += not is_open
        must(closed >= 5, f"only {closed} routes were asked")
        proof.figures["guarded_routes"] = closed


def rate_limited(proof: Proof) -> None:
    """A token that asks too often gets 429 with Retry-After; another token does not notice."""
    tokens = f"client:{CLIENT},other:{CLIENT}-other"
    limit = {"per_second": 5, "burst": 10}
    with proof.server(serving={"rate_limit": limit}, EVERGREEN_API_TOKENS=tokens) as server:
        sent = body(credit.rows()[:1])
        found = [server.http.post("/predict", content=sent, headers=bearer(CLIENT)) for _ in range(60)]
        other = server.http.post("/predict", content=sent, headers=bearer(f"{CLIENT}-other"))
    refused = [answer for answer in found if answer.status_code == 429]
    must(len(refused) >= 20, f"only {len(refused)} of 60 were refused")
    must(all(int(answer.headers["retry-after"]) >= 1 for answer in refused), "a 429 without Retry-After")
    must(other.status_code == 200, f"another token was answered {other.status_code}")


# --- the prediction log -----------------------------------------------------------------------------------------------


@contextmanager
def logging(proof: Proof, store: Path, **log: Any) -> Iterator[Server]:
    spec = {"flush_s": 3600.0, "rows_per_segment": 50_000, "buffer_rows": 100_000, **log}
    with proof.server(serving={"log": spec}, EVERGREEN_STORE=str(store)) as server:
        yield server


def recorded(store: Path) -> list[str]:
    """Request ids of all records, in all segments."""
    files = [str(path) for path in (store / "predictions").rglob("*.parquet")]
    return ds.dataset(files).to_table(columns=["request_id"])["request_id"].to_pylist() if files else []


def loaded(server: Server, seconds: float = 2) -> int:
    """Requests that were answered under a short load; all of them must be."""
    with under_load(Plan(f"{server.url}/predict", BODIES, connections=4, seconds=seconds)) as found:
        pass
    must(failures(found[0]) == "", f"lost {failures(found[0])}")
    return int(server.metric("evergreen_requests_total", path="/predict", status="200"))


def counted(server: Server, what: str) -> int:
    return int(server.metric(f"evergreen_log_{what}", stream="predictions"))


def log_outlives_sigterm(proof: Proof) -> None:
    """Rows that were only in memory are written before the process ends, each once."""
    store = proof.new_place("store")
    with logging(proof, store) as server:
        answered = loaded(server)
        must(recorded(store) == [], "nothing was left to be written")
        server.stop(signal.SIGTERM)
    ids = recorded(store)
    must(len(ids) == len(set(ids)) == answered, f"{len(set(ids))} of {answered} are recorded, in {len(ids)} records")
    proof.figures["log_after_sigterm"] = len(ids)


def log_outlives_sigkill(proof: Proof) -> None:
    """What kill -9 takes is at most the last second; the next server writes the rest, and nothing twice."""
    store = proof.new_place("store")
    with logging(proof, store) as server:
        answered = loaded(server)
        wait_for(lambda: [path for path in server.place.rglob("*.arrows") if path.stat().st_size])
        time.sleep(1)  # the second that may be lost is over
        server.stop(signal.SIGKILL)
        server.start()
        wait_for(lambda: len(recorded(store)) >= answered, 90)
    ids = recorded(store)
    must(len(ids) == len(set(ids)) == answered, f"{len(set(ids))} of {answered} are recorded, in {len(ids)} records")


def log_on_a_full_disk(proof: Proof, kib: int) -> None:
    """Predictions go on; every row waits, is written or counted as lost; with room again, the log is written again."""
    store = proof.new_place("full")
    with small_disk(store, kib), logging(proof, store, flush_s=0.5, rows_per_segment=500, buffer_rows=2000) as server:
        answered = loaded(server, 4)
        wait_for(lambda: counted(server, "refused_total") > 0)
        total = partial(_total, server)
        wait_for(lambda: total() == answered)
        must(counted(server, "lost_rows_total") > 0, "nothing was lost, so the bound was not tried")
        subprocess.run(["mount", "-o", "remount,size=64m", str(store)], check=True)
        wait_for(lambda: counted(server, "waiting_rows") == 0, 120)
        must(total() == answered, f"{total()} of {answered} rows are accounted for")
        ids, written = recorded(store), counted(server, "written_rows_total")
        must(len(ids) == len(set(ids)) == written, f"{written} were counted as written, {len(set(ids))} are there")
        must([path for path in store.rglob(".*") if path.name != ".lock"] == [], "left something temporary")
        proof.figures |= {"log_full_disk_answered": answered, "log_full_disk_lost": answered - written}
        server.stop()


def _total(server: Server) -> int:
    return sum(counted(server, what) for what in ("written_rows_total", "lost_rows_total", "waiting_rows"))


def of_operation(proof: Proof) -> list[Named]:
    found: list[Named] = [
        ("reload under load, six times: 0 failed", partial(reload_under_load, proof)),
        ("reload of a tampered release: refused, the old one serves on", partial(reload_of_a_bad_one, proof)),
        ("32 admin without its token, or from elsewhere: 401 or 403", partial(admin_needs_its_token, proof)),
        ("32 every described route asks for a token when tokens are named", partial(every_route_has_its_guard, proof)),
        ("32 a token that asks too often: 429 + Retry-After, others unaffected", partial(rate_limited, proof)),
        ("35 SIGTERM with buffered rows: each written once", partial(log_outlives_sigterm, proof)),
        ("35 SIGKILL with buffered rows: the next server writes them, each once", partial(log_outlives_sigkill, proof)),
    ]
    if may_mount(proof.home):
        story = partial(log_on_a_full_disk, proof, 128)
        return [*found, ("35 disk full for the log: predictions go on, no row unaccounted for", story)]
    proof.figures["full_disk"] = "not tried: nothing can be mounted here"
    return found
