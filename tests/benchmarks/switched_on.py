"""Proof that what was measured ran with everything on: the strict schema, the metrics, the prediction log.

Asked of the server itself and of what it left behind, since a server that forgot its log would be the fastest of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from prometheus_client.parser import text_string_to_metric_families

from tests.benchmarks.contestants import Row, Running


def refusals(server: Running, row: Row) -> list[int]:
    """Statuses of a column too many, a text for a number, one column too few, and a number beyond 64 bits."""
    short = dict(list(row.items())[:-2])
    wrong = [{**row, "Salary": 1.0}, {**row, "Amount": "1000"}, {k: v for k, v in short.items() if k != "Amount"}]
    asked = [*({"rows": [each]} for each in wrong), {"rows": [{**row, "Amount": 10**400}]}]
    return [server.http.post(server.contestant.path, json=body).status_code for body in asked]


def counted(server: Running, path: str) -> int:
    """Answers with 200 on this path, as /metrics tells."""
    found = _samples(server, "evergreen_requests_total")
    return int(sum(value for labels, value in found if labels["path"] == path and labels["status"] == "200"))


def lost(server: Running) -> int:
    """Rows the prediction log could not take."""
    return int(sum(value for _, value in _samples(server, "evergreen_log_lost_rows_total")))


def recorded(store: Path) -> int:
    """Rows answered with 200 in the prediction log's segments, each request id counted once."""
    segments = sorted(store.glob("predictions/*/*.parquet"))
    tables = [pq.read_table(path, columns=["request_id", "status"]) for path in segments]
    return len({each["request_id"] for table in tables for each in table.to_pylist() if each["status"] == 200})


def _samples(server: Running, name: str) -> Sequence[tuple[dict[str, str], float]]:
    text: Any = server.http.get("/metrics").text
    families = text_string_to_metric_families(text)
    return [(each.labels, each.value) for family in families for each in family.samples if each.name == name]
