"""A DAG that looks different at every parse would get a new version in Airflow's history every thirty seconds."""

from __future__ import annotations

import json

from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

from tests.dags.conftest import ROOT


def serialized() -> dict[str, str]:
    bag = DagBag(str(ROOT / "dags"))
    return {dag_id: json.dumps(DagSerialization.to_dict(dag), sort_keys=True) for dag_id, dag in bag.dags.items()}


def test_two_parses_of_the_same_files_are_the_same_dags():
    first, second = serialized(), serialized()
    assert len(first) == 8
    assert first == second


def test_what_the_scheduler_reads_back_is_the_dag_that_was_written(bag):
    for dag_id, dag in bag.dags.items():
        back = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
        assert back.dag_id == dag_id
        assert back.task_ids == dag.task_ids
