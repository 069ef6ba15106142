"""Requests that are wrong (rows 25 and 26): in their values, in their JSON, in their bytes, in their size."""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import credit
from tests.proofs.outcomes import Named, must
from tests.proofs.serving_world import CANARY, KINDS, MIB, Proof, body, head, probabilities, raw, row_text

LIMIT = MIB  # max_body_bytes
PLAIN = {"content-type": "application/json"}
RANDOM_BODIES = 300


@dataclass(frozen=True)
class Refused:
    """What is sent, and what the refusal must say."""

    name: str
    body: bytes
    status: int = 422
    field: str | None = None
    told: str = ""


def cell(**cells: str) -> bytes:
    return f'{{"rows": [{row_text()}, {row_text(1, **cells)}]}}'.encode()


def of_json(text: str) -> bytes:
    return text.encode()


FINITE, NUMBER = "must be a finite number", "must be a number"
CELLS = [
    Refused("NaN", cell(Age="NaN"), 422, "Age", FINITE),
    Refused("Infinity", cell(Age="Infinity"), 422, "Age", FINITE),
    Refused("-Infinity", cell(Age="-Infinity"), 422, "Age", FINITE),
    Refused("1e400", cell(Age="1e400"), 422, "Age", FINITE),
    Refused("-1e400", cell(Age="-1e400"), 422, "Age", FINITE),
    Refused("an integer of 400 digits", cell(Age="7" * 400), 422, "Age", FINITE),
    Refused("an integer of 5,000 digits", cell(Age="7" * 5000), 422, "Age", FINITE),
    Refused('the text "1.5" for a number', cell(Age=f'"1.5{CANARY}"'), 422, "Age", NUMBER),
    Refused("true for a number", cell(Age="true"), 422, "Age", NUMBER),
    Refused("a list for a number", cell(Age=f'["{CANARY}"]'), 422, "Age", NUMBER),
    Refused("an object for a number", cell(Age=f'{{"{CANARY}": 1}}'), 422, "Age", NUMBER),
    Refused("a number for a text", cell(Home="7"), 422, "Home", "must be a string"),
    Refused("half of a surrogate pair", cell(Home=f'"\\ud800{CANARY}"'), 422, "Home", "surrogate"),
    Refused("null where a value must be", cell(Amount="null"), 422, "Amount", "must be given"),
    Refused(
        "an unknown column", cell(**{CANARY.replace("-", "_"): "1"}), 422, CANARY.replace("-", "_"), "no such column"
    ),
    Refused("an unknown column that looks like somebody's data", cell(**{f"{CANARY} <b>": "1"}), 422, None, "no such"),
]
WHOLES = [
    Refused("a key given twice", of_json(f'{{"rows": [{row_text()[:-1]}, "Age": 3}}]}}'), 400, None, "same key twice"),
    Refused(
        "nested 100,000 deep", b'{"rows": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, None, "nested too deeply"
    ),
    Refused("bad UTF-8", of_json('{"row": {"Home": "') + b'\xff\xfe"}}', 400, None, "not UTF-8"),
    Refused("a byte order mark", b"\xef\xbb\xbf" + body(credit.rows()[:1]), 400, None, "byte order mark"),
    Refused("an empty body", b"", 400, None, "empty"),
    Refused("no JSON", f"{CANARY}=1".encode(), 400, None, "not JSON"),
    Refused("JSON and more", body(credit.rows()[:1]) + CANARY.encode(), 400, None, "not JSON"),
    Refused("no rows", b'{"rows": []}', 422, "rows", "at least one row"),
    Refused("another document", f'{{"instances": ["{CANARY}"]}}'.encode(), 422, None, "nothing else"),
    Refused("a row that is a list", f'{{"rows": [["{CANARY}"]]}}'.encode(), 422, None, "must be an object"),
    Refused("1,001 rows", b'{"rows": [' + b"{}," * 1000 + b"{}]}", 422, "rows", "at most"),
]


def a_bad_body(proof: Proof, case: Refused) -> None:
    """The same 4xx from the compiled and the generic path, with a place and without an echo."""
    answers = [proof.shared(kind).http.post("/predict", content=case.body, headers=PLAIN) for kind in KINDS]
    first, second = ((answer.status_code, answer.text) for answer in answers)
    must(first == second, f"the two paths differ: {first} and {second}")
    must(first[0] == case.status, f"answered {first}")
    error = answers[0].json()["error"]
    must(case.told in error["message"], f"says {error}")
    must(error.get("field") == case.field, f"names {error}")
    must(case.field in (None, "rows") or error.get("row") == 1, f"names no row: {error}")
    must(CANARY not in error["message"] and "777" not in first[1], f"echoes: {first[1][:200]}")


def odd_and_right(proof: Proof) -> None:
    """-0, 2^63, 1e300, an unseen category, a missing value: answered, and alike on both paths, as in training."""
    odd: list[dict[str, str]] = [
        {"Age": "-0.0"},
        {"Assets": "9223372036854775808"},
        {"Assets": "1e300"},
        {"Home": '"nobody saw this"'},
        {"Income": "null"},
    ]
    for cells in odd:
        found = []
        for kind in KINDS:
            answer = proof.shared(kind).http.post("/predict", content=cell(**cells), headers=PLAIN)
            must(answer.status_code == 200, f"{cells} was answered {answer.status_code} {answer.text}")
            found.append(probabilities(answer.json()))
        must(max(abs(a - b) for a, b in zip(*found, strict=True)) < 1e-6, f"{cells}: the paths differ: {found}")


def anything_at_all(proof: Proof) -> None:
    """Whatever JSON in whatever column: never a 5xx, and both paths say the same."""
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("own")
    value = st.recursive(leaf, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
    names = st.sampled_from([*credit.rows()[0], "other"])
    servers = [proof.shared(kind) for kind in KINDS]

    @settings(max_examples=RANDOM_BODIES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.dictionaries(names, value, max_size=3))
    def ask(cells: dict[str, Any]) -> None:
        sent = json.dumps({"row": {**credit.rows()[0], **cells}}).encode()
        answers = [server.http.post("/predict", content=sent, headers=PLAIN) for server in servers]
        first, second = (answer.status_code for answer in answers)
        must(first == second and first < 500, f"answered {first} and {second} to {sent[:300]!r}")
        must(first == 200 or answers[0].text == answers[1].text, "the two refusals differ")

    ask()
    proof.figures["random_bodies"] = RANDOM_BODIES * len(servers)


# --- size and framing -------------------------------------------------------------------------------------------------


def too_large(proof: Proof, size: int) -> None:
    """Refused at the limit, in a moment, and the memory of it is given back."""
    server = proof.shared()
    before = server.rss_mib()
    sent = b'{"rows": ["' + b"x" * size + b'"]}'
    began = time.monotonic()
    answer = raw(server.port, head("/predict", f"content-length: {len(sent)}") + sent)
    took = time.monotonic() - began
    must(b" 413 " in answer[:20] or answer == b"", f"answered {answer[:200]!r}")
    must(took < 5, f"took {took:.1f} s")
    must(server.rss_mib() - before < 20, f"grew by {server.rss_mib() - before:.0f} MiB")
    still_serves(proof)


def announced_too_large(proof: Proof) -> None:
    """Ten gigabytes announced and none sent: refused without waiting for them."""
    began = time.monotonic()
    answer = raw(proof.shared().port, head("/predict", "content-length: 10000000000"), seconds=5)
    must(b" 413 " in answer[:20], f"answered {answer[:100]!r} after {time.monotonic() - began:.1f} s")
    still_serves(proof)


def endless_chunks(proof: Proof) -> None:
    """A body without a length, refused when it passes the limit."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = raw(proof.shared().port, head("/predict", "transfer-encoding: chunked") + chunk * (2 * LIMIT // 0x10000))
    must(b" 413 " in answer[:20] or answer == b"", f"answered {answer[:100]!r}")
    still_serves(proof)


def a_gzip_bomb(proof: Proof) -> None:
    """A gigabyte in a megabyte is not unpacked at all."""
    server = proof.shared()
    bomb = gzip.compress(b" " * (256 * MIB), 9)
    before = server.rss_mib()
    answer = server.http.post("/predict", content=bomb, headers=PLAIN | {"content-encoding": "gzip"})
    must(answer.status_code == 415 and "compressed" in answer.text, f"answered {answer.status_code} {answer.text}")
    must(server.rss_mib() - before < 20, f"grew by {server.rss_mib() - before:.0f} MiB")


def a_bad_length(proof: Proof, lines: tuple[str, ...]) -> None:
    """A 400 and an end of the connection: what follows on it is nobody's request."""
    sent = head("/predict", *lines) + body(credit.rows()[:1])
    answer = raw(proof.shared().port, sent, seconds=5)
    must(answer == b"" or b" 400 " in answer[:20], f"answered {answer[:100]!r}")
    still_serves(proof)


def a_body_that_ends_early(proof: Proof) -> None:
    """Half a body and a hang-up: no crash, no 5xx, and it is counted as what it was."""
    server = proof.shared()
    before = server.metric("evergreen_requests_total", status="500")
    whole = body(credit.rows()[:1])
    for _ in range(20):
        sent = head("/predict", f"content-length: {len(whole)}") + whole[: len(whole) // 2]
        raw(server.port, sent, seconds=0.05)
    still_serves(proof)
    must(server.metric("evergreen_requests_total", status="500") == before, "counted a 500")
    must("Traceback" not in server.log(), f"left a traceback: {server.log()[-500:]}")


def huge_headers(proof: Proof) -> None:
    """Headers of a megabyte: refused or hung up on, and nothing else happens."""
    answer = raw(proof.shared().port, head("/predict", "x-long: " + "x" * MIB), seconds=5)
    must(answer == b"" or answer[9:10] == b"4", f"answered {answer[:100]!r}")
    still_serves(proof)


def still_serves(proof: Proof) -> None:
    """The next right request gets the right answer."""
    rows = credit.rows()[:3]
    answer = proof.shared().http.post("/predict", content=body(rows), headers=PLAIN)
    must(answer.status_code == 200, f"the next one was answered {answer.status_code} {answer.text}")
    wrong = max(abs(proof.model.predict_proba(rows) - probabilities(answer.json())))
    must(wrong < 1e-6, f"the next one was answered wrongly, by {wrong}")


def through(url: str, sent: bytes) -> httpx.Response:
    return httpx.post(f"{url}/predict", content=sent, headers=PLAIN, trust_env=False, timeout=30)


LENGTHS = {
    "letters": ("content-length: abc",),
    "negative": ("content-length: -5",),
    "two that differ": ("content-length: 5", "content-length: 500"),
    "and chunked too": ("content-length: 5", "transfer-encoding: chunked"),
}


def of_requests(proof: Proof) -> list[Named]:
    told = "the same 4xx on both paths, naming column and row, echoing nothing"
    found: list[Named] = [(f"25 {each.name}: {told}", partial(a_bad_body, proof, each)) for each in [*CELLS, *WHOLES]]
    found += [
        ("25 odd but right values: answered alike on both paths", partial(odd_and_right, proof)),
        ("25 anything hypothesis thinks of: no 5xx, both paths alike", partial(anything_at_all, proof)),
        ("26 a body of 10 MB: 413 at the limit, memory flat", partial(too_large, proof, 10 * MIB)),
        ("26 a body of 100 MB: 413 at the limit, memory flat", partial(too_large, proof, 100 * MIB)),
        ("26 10 GB announced: 413 at once, unread", partial(announced_too_large, proof)),
        ("26 chunks without end: 413 at the limit", partial(endless_chunks, proof)),
        ("26 a gzip bomb: 415, never unpacked", partial(a_gzip_bomb, proof)),
        ("26 a body that ends early: nobody else notices", partial(a_body_that_ends_early, proof)),
        ("26 headers of a megabyte: refused, nobody else notices", partial(huge_headers, proof)),
    ]
    for name, lines in LENGTHS.items():
        found.append((f"26 Content-Length of {name}: 400, connection closed", partial(a_bad_length, proof, lines)))
    return found
