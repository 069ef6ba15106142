"""The week of `make prove-told` keeps its promises, and the runbook shows it as it was told."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard

from tests.proofs.prove_told import replay

ROOT = Path(__file__).resolve().parents[2]


def test_a_week_is_told_in_order_with_nothing_lost_and_the_runbook_shows_it(
    small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small()
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
    monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_SLACK", "")  # set by the week itself, and taken back
    week, kept = replay(tmp_path)
    assert [promise for promise, is_kept in kept.items() if not is_kept] == []
    assert week.render_markdown() in (ROOT / "docs/runbook.md").read_text()
