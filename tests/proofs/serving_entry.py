"""The model server with something about it changed, as a program: `python -m tests.proofs.serving_entry NAME`.

NAME is a guard that is switched off, or `ailing`: a model that fails, or takes its time, as files beside its slot tell
it to. The production code knows nothing of this; parts of it are replaced here before it starts. What is replaced must
exist, so a guard that is renamed or gone is an error and not a proof that nothing is needed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

POISON = 66.5  # of Seniority: a value that is valid, and that the ailing model cannot take


def put(place: object, name: str, value: object) -> None:
    if not hasattr(place, name):
        raise SystemExit(f"{place} has no {name} any more; say in serving_entry what took its place")
    setattr(place, name, value)


def ailing() -> None:
    """`sick` and `slow` in the serving directory hold the forms of model (compiled, generic) that are."""
    from include.model.artifact import CompiledModel, ServableModel

    place = Path(os.environ["EVERGREEN_SERVING_DIR"])

    def ailed(kind: str, healthy: Callable[..., Any]) -> Callable[..., Any]:
        def predict_proba(self: Any, rows: Sequence[dict[str, Any]]) -> Any:
            if kind in _told(place / "slow"):
                time.sleep(1.0)
            if kind in _told(place / "sick") or any(row.get("Seniority") == POISON for row in rows):
                raise RuntimeError("the model is ill")
            return healthy(self, rows)

        return predict_proba

    for kind, model in (("compiled", CompiledModel), ("generic", ServableModel)):
        put(model, "predict_proba", ailed(kind, model.predict_proba))


def _told(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def row_check() -> None:
    from include.serving.slot.input_schema import InputSchema

    put(InputSchema, "check_rows", lambda self, rows: [{name: row.get(name) for name in self.columns} for row in rows])


def duplicate_keys() -> None:
    from include.serving.protocols import request_body

    put(request_body, "_DECODERS", dict.fromkeys(request_body._DECODERS, json.JSONDecoder()))


def body_limit() -> None:
    from include.serving import wire

    async def read_body(request: Any, headers: Any, limit: int) -> bytes:
        return await request.body()  # type: ignore[no-any-return]

    put(wire, "read_body", read_body)


def compressed_bodies() -> None:
    from include.serving.protocols import native

    put(native, "check_headers", lambda headers, accepted: None)


def digest() -> None:
    from include.model.integrity import artifact_integrity

    put(artifact_integrity, "_compare", lambda *given: None)


def allowed_types() -> None:
    from include.model.integrity import skops_allowlist

    def read(data: bytes) -> Any:
        import skops.io as sio

        return sio.loads(data, trusted=sio.get_untrusted_types(data=data))

    put(skops_allowlist, "read", read)


def golden_rows() -> None:
    from include.model import conformance

    put(conformance, "check_golden", lambda model: None)


def blessing() -> None:
    from include.serving.slot.admission import Admission

    put(Admission, "verify_blessing", lambda self, *given: None)


def signature() -> None:
    from include.model.blessing import blessing as blessings

    put(blessings, "verify", lambda envelope, *given: None)


def slot_file() -> None:
    from include.serving.slot import contents

    class Loose(contents.SlotFile):
        version: str
        digest: str

    put(contents, "SlotFile", Loose)


def symbolic_links() -> None:
    from include.model.integrity import artifact_integrity

    put(artifact_integrity, "_read_plain_file", Path.read_bytes)
    put(artifact_integrity, "_list_files", lambda place: [path for path in sorted(place.rglob("*")) if path.is_file()])


def request_ids() -> None:
    from include.serving import wire

    put(wire, "read_request_id", lambda scope: dict(scope["headers"]).get(b"x-request-id", b"-").decode("latin-1"))


def loopback() -> None:
    os.environ["EVERGREEN_BIND"] = "0.0.0.0"


def silence() -> None:
    """Logs what was sent, as one does while looking for a fault."""
    import logging

    from include.serving.protocols import native

    parse = native.parse

    def told(body: bytes, *given: Any) -> Any:
        logging.getLogger("debug").warning("got %s", body)
        return parse(body, *given)

    put(native, "parse", told)


def admin_token() -> None:
    from include.serving.transport.guard import Guard

    put(Guard, "_check_admin", lambda self, scope: (None, {}))


def client_tokens() -> None:
    from include.serving.transport.guard import Guard

    put(Guard, "_check_client", lambda self, scope: (None, {}))


def rate_limit() -> None:
    from include.serving.transport.guard import Guard

    put(Guard, "_wait", lambda self, name: 0.0)


def swap() -> None:
    """Empties the slot while the next one is loaded."""
    from include.serving.endpoints.reloading import Reload
    from include.serving.slot.contents import Empty

    loaded = Reload._reload

    async def emptied(self: Any) -> Any:
        self._service.current_model.swap(Empty())
        return await loaded(self)

    put(Reload, "_reload", emptied)


def old_one() -> None:
    """Takes whatever came of the reload."""
    from include.serving.endpoints.reloading import Reload, ReloadOutcome

    def take(self: Any, found: Any) -> ReloadOutcome:
        self._service.current_model.swap(found)
        return ReloadOutcome(200, "loaded")

    put(Reload, "_take", take)


def last_words() -> None:
    from include.serving.log.prediction_log import PredictionLog

    put(PredictionLog, "close", lambda self, *given: None)


def spool() -> None:
    from include.serving.log.spool import Spool

    put(Spool, "begin", lambda self, *given: None)


def log_bound() -> None:
    from include.serving.log.segment_writer import SegmentWriter

    def offer(self: Any, item: Any) -> bool:
        self._waiting += item.rows
        self._offered.append(item)
        return True

    put(SegmentWriter, "offer", offer)


def drain() -> None:
    from include.serving.transport.graceful_shutdown import GracefulServer

    put(GracefulServer, "handle_exit", lambda self, sig, frame: os._exit(0))


def queue_bound() -> None:
    from include.serving.predict import scoring
    from include.serving.transport import connection

    put(connection.ConnectionPolicy, "is_full", lambda self, requests: False)
    put(scoring.Scorer, "is_full", False)
    put(scoring, "HEADROOM", float("inf"))


def deadline() -> None:
    from dataclasses import replace

    from include.serving.endpoints import prediction

    asked_by = prediction.build_context
    put(prediction, "build_context", lambda *given: replace(asked_by(*given), deadline=time.monotonic() + 60))


def breaker() -> None:
    from include.serving.predict.circuit_breaker import CircuitBreaker

    put(CircuitBreaker, "admit", lambda self, now: True)


def isolation() -> None:
    """A batch that fails, fails for all in it."""
    from include.serving.predict import batching

    whole = batching.ask

    def ask(predict: Any, requests: Any, control: Any) -> Any:
        try:
            predict([row for rows in requests for row in rows])
        except Exception as error:
            return [batching.RowsFailed(str(error)) for _ in requests], 0.0
        return whole(predict, requests, control)

    put(batching, "ask", ask)


def fallback() -> None:
    from include.serving.predict.scoring import Scorer

    async def nobody(self: Any, lane: Any, rows: Any, asked: Any, otherwise: Any) -> Any:
        return otherwise

    put(Scorer, "_fall_back", nobody)


if __name__ == "__main__":
    from include.serving.__main__ import main

    for name in sys.argv[1].split("+"):
        globals()[name]()
    sys.exit(main())
