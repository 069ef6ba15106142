"""A policy of the organisation may add denials, and a file that cannot be run is a sentence with the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.gate import policy_rego
from include.gate.policy_rego import RegoPolicy
from include.kernel.errors import Permanent

SAMPLE = Path(__file__).resolve().parents[2] / "include/policies/bias.rego"
HEAD = "package evergreen.gate\n\n"


@pytest.mark.parametrize("score", [0, 0.05, 0.1])
def test_the_sample_lets_a_small_bias_pass(score: float) -> None:
    assert policy_rego.read(SAMPLE).list_denials({"bias_score": score}) == ()


@pytest.mark.parametrize(
    ("report", "told"), [({"bias_score": 0.25}, "bias_score 0.250 is above 0.1"), ({}, "bias_score was not measured")]
)
def test_the_sample_denies_a_large_bias_and_one_nobody_measured(report: dict[str, float], told: str) -> None:
    [reason] = policy_rego.read(SAMPLE).list_denials(report)
    assert reason.startswith(told)


def test_a_policy_sees_every_check() -> None:
    rule = HEAD + 'deny contains c.name if {\n\tsome c in input.checks\n\tc.verdict == "inconclusive"\n}\n'
    checks = [{"name": "a", "verdict": "passed"}, {"name": "b", "verdict": "inconclusive"}]
    assert RegoPolicy("strict.rego", rule).list_denials({"checks": checks}) == ("b",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEAD + "deny contains r if {\n\tinput.a >\n}\n", "bad.rego cannot be run, line 4: "),
        ("deny contains", "bad.rego cannot be run, line 1: "),
        (HEAD + 'deny contains "x" if { nosuch(1) }\n', "Function not found: nosuch"),
        ("package evergreen.gates\n\ndeny contains x if { x := input.a }\n", "answers no set evergreen.gate.deny"),
        (HEAD + "allow := true\n", "answers no set evergreen.gate.deny"),
        (HEAD + 'deny := "x"\n', "answers no set evergreen.gate.deny"),
        ("", "bad.rego cannot be run"),
    ],
)
def test_a_policy_that_cannot_be_run_is_one_sentence_and_never_a_yes(
    text: str, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Permanent) as refused:
        RegoPolicy("bad.rego", text).list_denials({"a": "b"})
    assert told in str(refused.value) and "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_an_absent_policy_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=r"nowhere\.rego cannot be read: .*; correct gate\.policy"):
        policy_rego.read(tmp_path / "nowhere.rego")


def test_a_changed_policy_has_another_digest() -> None:
    text = SAMPLE.read_text()
    assert RegoPolicy("a", text).digest != RegoPolicy("a", text.replace("0.1", "0.2")).digest


def test_what_is_not_known_is_not_there() -> None:
    """This engine has null below every number, so a rule on a metric nobody measured would hold."""
    rule = HEAD + "deny contains name if {\n\tsome name, value in input.metrics\n\tvalue < 0.5\n}\n"
    report = {"metrics": {"auc": None, "recall": 0.4}, "checks": [None, {"why": None, "name": "a"}]}
    assert RegoPolicy("metrics.rego", rule).list_denials(report) == ("recall",)
    assert policy_rego.drop_nulls(report) == {"metrics": {"recall": 0.4}, "checks": [{"name": "a"}]}
