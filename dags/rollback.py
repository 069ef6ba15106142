"""
### Roll back

Wants the last version that really served before the present one (or the one you name). If it is still warm this is one
round of smoke requests and one route write. A deploy that is under way gives way at its next step: a rollback never
queues behind it. No soak: what served before is trusted more than what serves now.
"""

from airflow.sdk import DAG

from evergreen.dag_defaults import build_dag_defaults, make_text_param
from evergreen.operators.registry import PromoteOperator
from evergreen.operators.rollout import RequestRollbackOperator, RolloutOperator
from include.manifest import read_manifest

manifest = read_manifest()

with DAG(
    "rollback",
    schedule=None,
    doc_md=__doc__,
    params={
        "version": make_text_param(
            "Version", "Empty: the last version that served before the present one and was not left by a rollback."
        ),
        "why": make_text_param("Why", "It goes to the ledger."),
    },
    **build_dag_defaults(manifest, "release"),
) as dag:
    release_request = RequestRollbackOperator(task_id="want")
    rollout = RolloutOperator(task_id="rollout", release_request=release_request.output)
    go_live = PromoteOperator(task_id="go_live", result=rollout.output)
    release_request >> rollout >> go_live
