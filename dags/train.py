"""
### Train and judge

Takes what was known as of a day, trains every candidate of the manifest, logs them to MLflow, and lets the gate judge
the best one against the champion on the same holdout rows. Three verdicts: *passed* is blessed and goes to `deploy`;
*refused* ends here; *inconclusive* ends here too, or asks a person, as `gate.approval` says. Every check stands in the
log of `evaluate` and in the run's `gate.json`. A person who rejects, or does not answer, fails the run.

* With `fan_out.tuning` its trials are searched by tasks of their own first, all at once.
* Runs when `training.requested`. A historical training is judged too, and never blessed.
* **Manual**: choose a day; `columns` trains on these columns only. Clients go on sending all of the contract's.
"""

from airflow.sdk import DAG, Param

from evergreen.assets import TRAINING_REQUESTED
from evergreen.dag_defaults import build_dag_defaults, make_date_param, make_intent_param, make_text_param
from evergreen.operators.approval import ApproveOperator
from evergreen.operators.gate import GateOperator
from evergreen.operators.job import make_job_task, make_mapped_job
from evergreen.operators.registry import BlessOperator
from include.manifest import read_manifest

manifest = read_manifest()

with DAG(
    "train",
    schedule=[TRAINING_REQUESTED],
    doc_md=__doc__,
    params={
        "as_of": make_date_param("As of", "What the training may know; empty: what the request says."),
        "columns": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "enum": list(manifest.contract.columns)},
            title="Columns",
            description="Train on these columns only; empty: all of the contract.",
        ),
        "reason": make_text_param("Reason", "Why this training was asked for; it goes to the ledger."),
        "intent": make_intent_param(),
    },
    **(build_dag_defaults(manifest, "model") | {"deadline": None}),
) as dag:
    # What the studies before it did not get to, `train` does itself, so it asks only whether they have ended.
    train = make_job_task(manifest, "train", job="train", params_from=["columns", "reason"], trigger_rule="all_done")
    if manifest.studies > 1:
        make_mapped_job(manifest, "tune", job="tune", shards=manifest.studies, params_from=["columns"]) >> train
    evaluate = make_job_task(
        manifest, "evaluate", job="evaluate", job_params={"run_id": "{{ read_output(ti, 'train', 'run_id') }}"}
    )
    gate = GateOperator(task_id="gate", result=evaluate.output)
    approve = ApproveOperator(
        task_id="approve",
        manifest=manifest,
        result=evaluate.output,
        url="{{ read_output(ti, 'train', 'url') }}",
    )
    bless = BlessOperator(
        task_id="bless",
        result=evaluate.output,
        approval=approve.output,
        trigger_rule="none_failed_min_one_success",  # a model that passed comes here without being asked about
    )
    train >> evaluate >> gate >> [approve, bless]
    approve >> bless
