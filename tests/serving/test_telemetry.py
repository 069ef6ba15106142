"""What a server says of itself: lines, figures and spans; and that nothing of a person or of a secret is in them."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from include.kernel.errors import ArtifactRejected
from include.model.blessing.blessing import render_private_pem, render_public_pem
from include.serving.log.json_lines import JsonLines
from include.serving.routes import POLICY
from include.serving.spec import ServingSpec
from include.serving.transport.telemetry import FAILURES_AT_ONCE, RequestLog, make_tracing
from tests import blessed, credit
from tests.ground import wait_for, write_manifest
from tests.serving.test_guard import ADMIN, ANN, bearer, client
from tests.serving.test_model_server import ROOT, process

CANARY, NUMBER = "canary-of-a-person", 31337.125
PERSON = {**credit.rows()[0], "Job": CANARY, "Income": NUMBER}


@pytest.fixture
def told() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Every line the root logger has written so far, as the server formats it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(slot="blue"))
    logging.getLogger().addHandler(handler)
    logging.getLogger("evergreen").setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.getLogger().removeHandler(handler)


def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that chokes on a value and repeats it in its message, as numpy and pandas do."""

    def choke(_: Any, table: Any) -> Any:
        raise ValueError(f"could not convert string to float: {table.to_dict()!r}")

    monkeypatch.setattr("include.model.features.apply", choke)


class TestLines:
    def test_a_line_is_one_object_whatever_was_written_into_it(self, told: Any) -> None:
        logging.getLogger("evergreen.x").warning("a\nb\r\n{%s}", '"level": "x"\u2028\x1b[31m', extra={"who": "c\nd"})
        [line] = told()
        assert line["message"].startswith("a\nb") and line["who"] == "c\nd" and line["slot"] == "blue"
        assert set(line) == {"time", "level", "logger", "message", "slot", "who"}

    def test_of_an_exception_type_and_places_stay_and_its_text_only_if_it_is_ours(self, told: Any) -> None:
        for error in (ValueError(CANARY), ArtifactRejected("It is broken.")):
            try:
                raise error
            except Exception:
                logging.getLogger("evergreen.x").exception("failed")
        theirs, ours = (line["exception"] for line in told())
        assert theirs["type"] == "ValueError" and "test_telemetry.py" in theirs["at"][0] and "message" not in theirs
        assert ours["message"] == "It is broken."

    def test_a_failed_request_leaves_a_line_without_its_values(
        self, stage: Any, tmp_path: Path, monkeypatch: Any, told: Any
    ) -> None:
        stage("blue")
        app = client(tmp_path)
        failing(monkeypatch)
        answer = app.post("/predict", json={"row": PERSON}, headers={"x-request-id": "r-1"})
        assert answer.status_code >= 500 and CANARY not in answer.text
        [line] = [line for line in told() if line["logger"] == "evergreen.requests"]
        assert (line["route"], line["status"], line["version"]) == ("/predict", answer.status_code, "3")
        assert line["request_id"] == "r-1" and line["ms"] > 0 and "features" not in line
        assert CANARY not in json.dumps(told()) and str(NUMBER) not in json.dumps(told())

    def test_the_manifest_may_allow_columns_and_a_share_of_good_answers(
        self, stage: Any, tmp_path: Path, told: Any
    ) -> None:
        stage("blue")
        shown = {"serving.request_log": 1.0, "serving.logged_features": ["Job"]}
        app = client(tmp_path, manifest=write_manifest(tmp_path / "pipeline.yaml", shown))
        app.post("/predict", json={"row": PERSON})
        app.get(f"/nowhere/{CANARY}")
        good, lost = (line for line in told() if line["logger"] == "evergreen.requests")
        assert good["features"] == {"Job": CANARY} and good["status"] == 200
        assert lost["route"] == "other" and CANARY not in json.dumps(lost)

    def test_good_answers_leave_none_and_a_flood_of_failures_a_few_with_the_number_of_the_rest(self, told: Any) -> None:
        log, scope = RequestLog(ServingSpec()), {"path": "/predict", "state": {"request_id": "r"}}
        for status in [200, 404, *[503] * 1000]:
            log.tell(scope, status, "3", 0.001)
        assert FAILURES_AT_ONCE <= len(told()) < FAILURES_AT_ONCE + 50
        log._full_at = 0
        log.tell(scope, 503, "3", 0.001)
        assert told()[-1]["left_out"] > 900


def test_no_secret_and_no_value_of_a_person_is_anywhere_in_what_a_server_says(
    stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process, told every secret there is, asked good, bad and forbidden things; then all of it is read."""
    stage("blue")
    secrets = {
        "EVERGREEN_SERVING_TOKEN": ADMIN,
        "EVERGREEN_API_TOKENS": f"ann:{ANN}",
        "EVERGREEN_LOG_KEY": "k" * 31 + "!",
    }
    secrets["AWS_SECRET_ACCESS_KEY"] = "aws-secret-of-the-test"
    shown = write_manifest(tmp_path / "pipeline.yaml", {"serving.request_log": 1.0})
    for name, value in {**secrets, "EVERGREEN_MANIFEST": str(shown)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EVERGREEN_TRUSTED_KEYS", render_public_pem(blessed.KEY))
    said = []
    with process(tmp_path) as (app, server):
        token = bearer(ANN)
        bodies: list[Any] = [PERSON, {**PERSON, "Age": CANARY}, {**PERSON, CANARY: 1}, {**PERSON, "Amount": None}]
        for body in bodies:
            said.append(app.post("/predict", json={"row": body}, headers=token))
            said.append(app.post("/invocations", json={"dataframe_records": [body]}, headers=token))
        said.append(app.post("/predict", content=f'{{"row": {CANARY}'.encode(), headers=token))
        said.append(app.post(f"/v2/models/{CANARY}/infer", json={"inputs": [CANARY]}, headers=token))
        odd = {**token, "x-request-id": "a\tb", "cookie": CANARY}
        said.append(app.get(f"/{CANARY}?{CANARY}={NUMBER}", headers=odd))
        said += [app.post("/admin/reload", headers=bearer(each)) for each in (ADMIN, ANN, "wrong" * 5)]
        said += [app.get(path, headers=token) for path in ("/metrics", "/model", "/openapi.json", "/docs", "/ready")]
        command = Path(f"/proc/{server.pid}/cmdline").read_text()
    log = (tmp_path / "blue.log").read_text()
    records = [json.loads(line) for line in log.splitlines()]
    assert len([line for line in records if line["logger"] == "evergreen.requests"]) >= len(said)
    assert [line for line in records if line["logger"] == "evergreen.audit"]
    everything = log + command + "".join(answer.text + str(answer.headers) for answer in said)
    private = [*(value.removeprefix("ann:") for value in secrets.values())]
    private += [render_private_pem(blessed.KEY), CANARY, str(NUMBER)]
    assert [secret for secret in private if secret in everything] == []


class TestMetrics:
    def test_prometheus_reads_them_and_their_labels_do_not_grow_with_what_callers_invent(
        self, stage: Any, tmp_path: Path
    ) -> None:
        stage("blue")
        app = client(tmp_path)
        rows = [PERSON, {**credit.rows()[1], "Age": 1000, "Income": None}, {**credit.rows()[2], "Age": -1}]
        app.post("/predict", json={"rows": rows})
        for number in range(30):
            app.get(f"/made/up/{number}")
            app.post(f"/v2/models/m{number}/infer", json={})
            app.post("/predict", json={"row": {f"c{number}": 1}})
        text = app.get("/metrics").text
        found = {family.name: family for family in text_string_to_metric_families(text)}
        assert {"evergreen_requests", "evergreen_predict_seconds", "evergreen_request_seconds"} <= set(found)
        own = [sample for family in found.values() for sample in family.samples if sample.name.startswith("evergreen_")]
        assert len(own) < 400 and "made" not in text and CANARY not in text and "c29" not in text
        assert {sample.labels.get("slot") for sample in own} == {"blue"}

        def value(name: str, **labels: str) -> float:
            family = found[re.sub("_(total|count)$", "", name)]
            return sum(s.value for s in family.samples if s.name == name and labels.items() <= s.labels.items())

        assert value("evergreen_out_of_range_total", column="Age", side="high") == 1
        assert value("evergreen_out_of_range_total", column="Age", side="low") == 1
        assert value("evergreen_missing_values_total", column="Income") == 1
        assert value("evergreen_unseen_categories_total", column="Job") == 1
        assert value("evergreen_decisions_total") == value("evergreen_score_count") == 3
        assert value("evergreen_requests_total", path="other") == 30
        assert value("evergreen_request_seconds_count", path="/predict", status="422") == 30
        assert value("evergreen_request_seconds_count", path="/predict", status="200") == 1

    def test_the_bounds_of_the_training_are_in_no_answer(self, stage: Any, tmp_path: Path) -> None:
        """The largest income is one person's."""
        stage("blue")
        columns = client(tmp_path).get("/model").json()["columns"]
        assert columns and not [column for column in columns if {"low", "high"} & set(column)]


class Collector(BaseHTTPRequestHandler):
    """As much of an OpenTelemetry collector as there is to receiving: OTLP over HTTP, in protobuf."""

    spans: list[Any]
    paths: set[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.spans += [(resource.resource, span) for span in scope.spans]
        self.paths.add(self.path)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def collector() -> Iterator[tuple[str, type[Collector]]]:
    handler = type("Collecting", (Collector,), {"spans": [], "paths": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        server.server_close()


class TestTraces:
    def test_a_collector_gets_the_spans_of_a_request_below_the_callers_own(
        self, stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stage("blue")
        trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        with collector() as (url, seen):
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
            with process(tmp_path) as (app, server):
                app.post("/predict", json={"row": PERSON}, headers={"traceparent": f"00-{trace}-{parent}-01"})
                app.post("/predict", json={"row": {CANARY: 1}})
                server.terminate()
                server.wait(20)
            wait_for(lambda: len(seen.spans) >= 6)
        assert seen.paths == {"/v1/traces"}
        spans = {span.name: span for _, span in seen.spans if span.trace_id.hex() == trace}
        assert set(spans) == {"POST /predict", "validate", "score", "log"}
        assert spans["POST /predict"].parent_span_id.hex() == parent
        assert {spans[name].parent_span_id for name in ("validate", "score", "log")} == {spans["POST /predict"].span_id}
        said = {each.key: each.value.string_value or each.value.int_value for each in spans["POST /predict"].attributes}
        assert (said["http.route"], said["http.response.status_code"], said["evergreen.version"]) == (
            "/predict",
            200,
            "3",
        )
        named = {each.key: each.value.string_value for each in seen.spans[0][0].attributes}
        assert (named["service.name"], named["evergreen.slot"]) == ("evergreen-model-server", "blue")
        assert CANARY not in str(seen.spans) and str(NUMBER) not in str(seen.spans)

    def test_without_a_collector_nothing_of_it_is_imported(self, stage: Any, tmp_path: Path) -> None:
        stage("blue")
        code = (
            "import sys; from pathlib import Path; from include.serving.transport import telemetry;"
            "from include.serving.app import create_app; from include.serving.settings import Settings;"
            "from include.serving.wiring import open_service;"
            f"settings = Settings(slot='blue', serving_dir=Path({str(tmp_path)!r}), port=0);"
            "create_app(open_service(settings), telemetry.make_tracing('blue'));"
            "print([name for name in sys.modules if name.startswith('opentelemetry')])"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.stdout.strip() == "[]", done.stderr

    @pytest.mark.parametrize(
        "environ",
        [
            {},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"},
        ],
    )
    def test_it_is_off_unless_a_collector_is_named(self, environ: dict[str, str]) -> None:
        assert make_tracing("blue", environ) is None


def test_the_routes_in_metrics_are_those_of_the_policy() -> None:
    from include.serving.metrics import PATHS

    assert frozenset(POLICY) == PATHS
