from __future__ import annotations

from include.monitoring.core.signals import Severity, Signal, find_worst_severity, list_raised


def signal(severity: Severity, **more: object) -> Signal:
    return Signal.model_validate(
        {"check": "feature_drift", "subject": "Age", "measure": "psi", "severity": severity, **more}
    )


def test_the_gravest_signal_decides_and_silence_is_well() -> None:
    assert find_worst_severity([]) == "ok"
    assert find_worst_severity([signal("warning"), signal("critical"), signal("unknown")]) == "critical"
    assert find_worst_severity([signal("ok"), signal("unknown")]) == "unknown"


def test_what_is_unknown_is_not_raised() -> None:
    every = [signal("unknown"), signal("warning"), signal("ok"), signal("critical")]
    assert [s.severity for s in list_raised(every)] == ["critical", "warning"]


def test_a_signal_is_told_in_one_sentence_with_its_bound_and_its_action() -> None:
    told = signal("critical", value=0.31234, threshold=0.25, action="Train again.").sentence
    assert told == "critical: Age, psi 0.3123 (bound 0.25). Train again."
    assert signal("unknown").sentence == "unknown: Age, psi not measured."
