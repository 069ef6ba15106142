from __future__ import annotations

import pytest

from include.kernel.job import Intent
from include.model.blessing.approval import Next, choose_next, render_gate_approval
from tests.blessed import CHECK, REPORT


@pytest.mark.parametrize(
    "verdict, never, inconclusive, always",
    [
        ("passed", Next.BLESS, Next.BLESS, Next.ASK),
        ("inconclusive", Next.STOP, Next.ASK, Next.ASK),
        ("refused", Next.STOP, Next.STOP, Next.STOP),
    ],
)
def test_who_is_asked_when(verdict, never, inconclusive, always):
    asked = [choose_next(verdict, ask, Intent.LIVE) for ask in ("never", "inconclusive", "always")]
    assert asked == [never, inconclusive, always]


@pytest.mark.parametrize("intent", [Intent.HISTORICAL, Intent.REHEARSAL])
@pytest.mark.parametrize("verdict", ["passed", "inconclusive", "refused"])
@pytest.mark.parametrize("ask", ["never", "inconclusive", "always"])
def test_nobody_is_asked_about_a_training_that_is_not_live(verdict, ask, intent):
    assert choose_next(verdict, ask, intent) is not Next.ASK


def test_the_question_shows_what_did_not_pass_first_and_where_to_read_on():
    small = CHECK | {"name": "Home=priv", "verdict": "inconclusive", "reason": "11 rows", "blocks": False}
    text = render_gate_approval(REPORT | {"checks": [CHECK, small], "champion_version": "3"}, "http://mlflow/r1")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == ["| Check", "| Home=priv", "| auc"]
    assert "inconclusive (a warning)" in rows[1]
    assert "404 holdout rows; champion: version 3. [The run in MLflow](http://mlflow/r1)." in text


def test_names_from_the_data_neither_break_the_table_nor_become_markup():
    odd = CHECK | {"name": "Home=a|b\n<img src=x>", "reason": "x"}
    [row] = [line for line in render_gate_approval(REPORT | {"checks": [odd]}).splitlines() if "Home" in line]
    assert row.count(" | ") == 5 and "<" not in row and "a\\|b" in row
