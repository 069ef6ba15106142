"""Requests nobody would think of, sent to a running model server: what its OpenAPI document allows, what it forbids,
and bodies that are broken in the ways bodies break.

After every answer: it is no 5xx, it has the shape the document promises for its status, and a document or body that is
wrong is refused. schemathesis makes the first kind (and checks them by all it knows); ours are bodies that were right
and then had a byte, a value or a header changed, which comes closer to what clients get wrong.
"""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests import credit
from tests.serving.spoken import FORMS, Literal

PATHS = {"native": "/predict", "tensors": "/v2/models/credit/infer", "binary_tensors": "/v2/models/credit/infer"}
CANARY = "cana-ry-7f3a"  # in no answer, whatever was sent
SEED = 5


@dataclass
class Tally:
    """How many requests were answered, by what was asked and by status."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __call__(self, what: str, status: int) -> None:
        assert status < 500, f"{what} was answered with {status}"
        self.answers[what, status] += 1

    @property
    def cases(self) -> int:
        return self.answers.total()

    def statuses(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for (_, status), count in self.answers.items():
            found[str(status)] += count
        return dict(sorted(found.items()))


def run(strategy: st.SearchStrategy[Any], cases: int, each: Callable[[Any], None]) -> None:
    """`each` with so many examples, always the same; the smallest that fails is shown."""

    @seed(SEED)
    @settings(max_examples=cases, database=None, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
    @given(strategy)
    def one(example: Any) -> None:
        each(example)

    one()


PHASES = (Phase.explicit, Phase.generate, Phase.shrink)


def by_document(url: str, cases: int, tally: Tally) -> None:
    """So many cases that the document allows, and as many that it forbids, of every route with a body."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    session = requests.Session()
    session.trust_env = False
    for result in schema.get_all_operations():
        operation = result.ok()
        reads = "requestBody" in operation.definition.raw
        modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if reads else (GenerationMode.POSITIVE,)
        for mode in modes:
            run(operation.as_strategy(generation_mode=mode), cases if reads else 1, _asked(session, tally))


def _asked(session: requests.Session, tally: Tally) -> Callable[[Any], None]:
    def ask(case: schemathesis.Case) -> None:
        # how many values fit to a shape, or what is the future, is beyond JSON schema; there it may be refused
        beyond = [] if case.operation.path == "/predict" else [positive_data_acceptance]
        answer = case.call(session=session)
        tally(case.operation.label, answer.status_code)
        case.validate_response(answer, excluded_checks=beyond)

    return ask


def by_damage(url: str, cases: int, tally: Tally) -> None:
    """So many bodies of every form, each damaged, over one connection that is kept."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
    for form in FORMS:
        run(_damaged(form), cases, _sent(connection, form, tally))
    connection.close()


def _sent(connection: http.client.HTTPConnection, form: str, tally: Tally) -> Callable[[Any], None]:
    def send(damaged: tuple[bytes, dict[str, str]]) -> None:
        body, headers = damaged
        connection.request("POST", PATHS.get(form, "/invocations"), body, headers)
        answer = connection.getresponse()
        content = answer.read()
        tally(form, answer.status)
        assert CANARY.encode() not in content
        if answer.status != 200:
            _says_why(json.loads(content))

    return send


def _says_why(refusal: dict[str, Any]) -> None:
    told = refusal.get("error", refusal)
    message = told if isinstance(told, str) else told["message"]
    assert message.endswith(".") and "\n" not in message and len(message) < 300, message


odd_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.sampled_from([CANARY, [], {}]),
    st.sampled_from(["1e400", "-1e400", "NaN", "-Infinity", "9" * 5000, "-0", "1E5", "18446744073709551616", "1.",
                     "01", '"\\ud800"', '"1.5"', "[" * 3000, '{"a":1,"a":2}']).map(Literal),
)  # fmt: skip
names = st.sampled_from([column.name for column in credit.columns()]) | st.sampled_from([CANARY, "", "rows", "Shoe"])
example_rows = st.lists(st.sampled_from(credit.rows()[:50]), min_size=1, max_size=3)


@st.composite
def _damaged(draw: Any, form: str) -> tuple[bytes, dict[str, str]]:
    """A right request of a form with an odd value in it, or bytes changed, or another head."""
    rows = [dict(row) for row in draw(example_rows)]
    if form not in ("csv", "binary_tensors"):
        for _ in range(draw(st.integers(0, 2))):
            draw(st.sampled_from(rows))[draw(names)] = draw(odd_values)
    body, headers = FORMS[form](rows)
    for change in draw(st.lists(st.sampled_from(list(_DAMAGES)), max_size=2)):
        body, headers = _DAMAGES[change](draw, body, headers)
    return body, headers


def _cut(draw: Any, body: bytes, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    return body[: draw(st.integers(0, len(body)))], headers


def _spliced(draw: Any, body: bytes, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    place = draw(st.integers(0, len(body)))
    return body[:place] + draw(st.binary(max_size=6)) + body[place + draw(st.integers(0, 6)) :], headers


def _doubled(draw: Any, body: bytes, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    first, last = sorted(draw(st.tuples(st.integers(0, len(body)), st.integers(0, len(body)))))
    return body[:last] + body[first:], headers


def _reheaded(draw: Any, body: bytes, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    name = draw(st.sampled_from(["content-type", "content-encoding", "inference-header-content-length"]))
    values = ["", "gzip", "identity", "text/csv", "application/json;charset=utf-16", "0", "7", "-1", "9" * 400, "\xff"]
    return body, {**headers, name: draw(st.sampled_from(values))}


_DAMAGES = {"cut": _cut, "spliced": _spliced, "doubled": _doubled, "reheaded": _reheaded}


def progress(tally: Tally, *steps: tuple[str, Callable[[], None]]) -> Iterator[str]:
    """Runs the steps and tells after each how far it is."""
    for name, step in steps:
        before = tally.cases
        step()
        yield f"{name}: {tally.cases - before} requests"
