"""
### Deploy blue-green

Holds registry and world against each other, says which blessed version is wanted, and follows the release machine:
stage into the idle slot, await, verify with real and golden rows, switch, soak under real traffic, keep the previous
version as warm standby. A release that fails before the switch never gets traffic; one that fails the soak is reverted.
Only after the soak does the champion alias move.

With `release.approval: before_switch` a person is asked before the switch; the traffic waits where it is.

* Runs when `model.blessed`.
* **Manual**: choose a version. A version without a blessing is refused.
"""

from airflow.sdk import DAG, TriggerRule

from evergreen.assets import MODEL_BLESSED
from evergreen.dag_defaults import build_dag_defaults, make_boolean_param, make_text_param
from evergreen.operators.approval import ApproveReleaseOperator
from evergreen.operators.reconcile import ReconcileOperator
from evergreen.operators.registry import PromoteOperator
from evergreen.operators.rollout import RequestReleaseOperator, RolloutOperator
from include.manifest import read_manifest

manifest = read_manifest()

with DAG(
    "deploy",
    schedule=[MODEL_BLESSED],
    doc_md=__doc__,
    params={
        "version": make_text_param("Version", "Registered model version; empty: the one the event names."),
        "why": make_text_param("Why", "It goes to the ledger; empty: the gate's sentence."),
        "experiment": make_boolean_param(
            "Experiment", "Deal callers to it and to what serves, until their outcomes decide."
        ),
    },
    **(build_dag_defaults(manifest, "release") | {"deadline": None}),
) as dag:
    reconcile = ReconcileOperator(task_id="reconcile")
    release_request = RequestReleaseOperator(task_id="want")
    rollout = RolloutOperator(task_id="rollout", release_request=release_request.output)
    go_live = PromoteOperator(task_id="go_live", result=rollout.output)
    if manifest.release.approval == "before_switch":
        try_out = RolloutOperator(task_id="try_out", release_request=release_request.output)
        approve = ApproveReleaseOperator(task_id="approve", manifest=manifest, result=try_out.output)
        rollout.trigger_rule = TriggerRule.NONE_FAILED  # where nothing was to be asked, approve is skipped
        release_request >> try_out >> approve >> rollout
    reconcile >> release_request >> rollout >> go_live
