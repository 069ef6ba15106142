"""Where a DAG parts by intent: a live run goes on to what moves production, any other looks at the past."""

from __future__ import annotations

import pytest

from evergreen.operators.intent import IntentOperator
from tests.plugins.conftest import context


@pytest.mark.parametrize(
    ("run", "goes_on_with"),
    [
        ({"run_type": "scheduled"}, "decide"),
        ({"run_type": "manual"}, "decide"),
        ({"run_type": "backfill"}, "backtest"),
        ({"run_type": "backfill", "params": {"intent": "live"}}, "backtest"),
        ({"params": {"intent": "historical"}}, "backtest"),
        ({"params": {"intent": "rehearsal"}}, "backtest"),
    ],
)
def test_only_a_live_run_goes_on_to_what_moves_production(run, goes_on_with):
    branch = IntentOperator(task_id="intent", live="decide", otherwise="backtest")
    assert branch.choose_branch(context(**run)) == goes_on_with
