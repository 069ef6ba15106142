from __future__ import annotations

from include.monitoring.core.signals import Severity, Signal, raised, worst


def signal(severity: Severity, **more: object) -> Signal:
    return Signal.model_validate(
        {"check": "feature_drift", "subject": "Age", "measure": "psi", "severity": severity, **more}
    )


def test_the_gravest_signal_decides_and_silence_is_well() -> None:
    assert worst([]) == "ok"
    assert worst([signal("warning"), signal("critical"), signal("unknown")]) == "critical"
    assert worst([signal("ok"), signal("unknown")]) == "unknown"


def test_what_is_unknown_is_not_raised() -> None:
    every = [signal("unknown"), signal("warning"), signal("ok"), signal("critical")]
    assert [s.severity for s in raised(every)] == ["critical", "warning"]


def test_a_signal_is_told_in_one_sentence_with_its_bound_and_its_action() -> None:
    told = signal("critical", value=0.31234, threshold=0.25, action="Train again.").sentence
    assert told == "critical: Age, psi 0.3123 (bound 0.25). Train again."
    assert signal("unknown").sentence == "unknown: Age, psi not measured."
