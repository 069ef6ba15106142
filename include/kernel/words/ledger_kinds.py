"""What an entry of the ledger is called: noun.verb. Written by DAGs, jobs and commands; read by alerts, the metrics
exporter, the retraining policy, rollbacks and the rules of Prometheus."""

from typing import Final, Literal

DATASET_REFUSED: Final = "dataset.refused"
DRIFT_DETECTED: Final = "drift.detected"  # the asset's name too
MODEL_TRAINED: Final = "model.trained"
MODEL_BLESSED: Final = "model.blessed"  # the asset's name too
GATE: Final = "gate."
GATE_PASSED: Final = "gate.passed"
GATE_REFUSED: Final = "gate.refused"
GATE_INCONCLUSIVE: Final = "gate.inconclusive"
RETRAINING_APPROVED: Final = "retraining.approved"
RETRAINING_DECLINED: Final = "retraining.declined"
APPROVAL_GIVEN: Final = "approval.given"
APPROVAL_REFUSED: Final = "approval.refused"
APPROVAL_EXPIRED: Final = "approval.expired"  # nobody answered
DEPLOY_WANTED: Final = "deploy.wanted"
DEPLOY_REFUSED: Final = "deploy.refused"
ROLLBACK_WANTED: Final = "rollback.wanted"
ROLLBACK_REFUSED: Final = "rollback.refused"
RELEASE_LIVE: Final = "release.live"  # the one line by which a version becomes what serves
RELEASE_SOAKING: Final = "release.soaking"
RELEASE_ASKED: Final = "release.asked"
RELEASE_DONE: Final = "release.done"
RELEASE_REJECTED: Final = "release.rejected"
RELEASE_REVERTED: Final = "release.reverted"
RELEASE_SUPERSEDED: Final = "release.superseded"
RECONCILE_FOUND: Final = "reconcile.found"
RECONCILE_HEALED: Final = "reconcile.healed"
KINDS: Final = frozenset(
    found for name, found in dict(globals()).items() if name.isupper() and isinstance(found, str) and found[-1] != "."
)


def name_gate(verdict: Literal["passed", "refused", "inconclusive"]) -> str:
    return {"passed": GATE_PASSED, "refused": GATE_REFUSED, "inconclusive": GATE_INCONCLUSIVE}[verdict]


def name_outcome(outcome: str) -> str:
    """Of a rollout that came to an end, or to a question. Raises `KeyError` for a word that no reader knows."""
    ends = (RELEASE_DONE, RELEASE_REJECTED, RELEASE_REVERTED, RELEASE_SUPERSEDED, RELEASE_ASKED)
    return {end.removeprefix("release."): end for end in ends}[outcome]


def name_approval(how: Literal["given", "refused", "expired"]) -> str:
    return {"given": APPROVAL_GIVEN, "refused": APPROVAL_REFUSED, "expired": APPROVAL_EXPIRED}[how]


def name_wanted(kind: Literal["deploy", "rollback"]) -> str:
    return DEPLOY_WANTED if kind == "deploy" else ROLLBACK_WANTED


def name_refused(kind: Literal["deploy", "rollback"]) -> str:
    return DEPLOY_REFUSED if kind == "deploy" else ROLLBACK_REFUSED
