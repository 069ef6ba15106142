"""`make check-manifest` finds what the first training would have found."""

import pytest

from include.embedded.check_manifest import main


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train.candidates": {"logistic": {"C": "1e-3"}}}, "YAML takes C: 1e-3 for a text, write 0.001"),
        ({"train.candidates": {"boosting": {"max_leaf_nodes": 1}}}, "The 'max_leaf_nodes' parameter"),
        (
            {"train.tuning": {"trials": 2, "space": {"boosting": {"max_leaf_nodes": {"low": 1, "high": 9}}}}},
            "The 'max_leaf_nodes' parameter",
        ),
        ({"train.tuning": {"trials": 2, "space": {"logistic": {"c": {"low": 0.1, "high": 9}}}}}, "argument 'c'"),
    ],
)
def test_a_parameter_no_training_could_use_is_refused_in_one_sentence(small, capsys, changes, says):
    small(**changes)
    assert main() == 65
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1


def test_the_shipped_manifest_is_valid(monkeypatch, capsys):
    monkeypatch.delenv("EVERGREEN_MANIFEST", raising=False)
    assert main() == 0 and "is valid" in capsys.readouterr().out
