"""What a training says of itself in MLflow, whatever the window."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.data.core.lineage import describe_snapshots, may_include
from include.data.core.snapshots import Snapshot, Split
from include.data.dataset import list_columns
from include.kernel.job import Intent, JobRequest
from include.manifest import read_manifest
from include.registry.mlflow_registry import LONGEST_TAG, shorten_text
from include.training.training_plan import Training

FIRST = date(2024, 1, 1)


def plan(days: int) -> Training:
    manifest, unused = read_manifest(), Path("unused")
    kept = [
        Snapshot(
            id=f"{number:064x}"[::-1],
            day=FIRST + timedelta(days=number),
            rows=1,
            columns=(),
            source="test",
            manifest="m",
            expectations=0,
        )
        for number in range(days)
    ]
    request = JobRequest(job="train", run_key="k", as_of=FIRST + timedelta(days=days), intent=Intent.LIVE)
    nobody: Any = SimpleNamespace()
    split = Split(train=tuple(kept[:-1]), holdout=tuple(kept[-1:]))
    return Training(request, nobody, manifest, split, list_columns(manifest), nobody, unused)


@pytest.mark.parametrize("days", [2, 615, 616, 640, 5000])
def test_no_tag_of_a_training_is_longer_than_mlflow_keeps(days: int) -> None:
    training = plan(days)
    tags = training.build_tags("logistic")
    assert max(map(len, tags.values())) <= LONGEST_TAG
    assert all(may_include(tags["evergreen.data"], each) for each in training.snapshot_ids)
    assert may_include(tags["evergreen.data"], "f" * 64) == (days > 615), "a list that is whole says no by itself"


def test_a_long_window_is_told_by_its_number_of_days_and_a_digest_of_them() -> None:
    one, other = plan(640).snapshot_ids, plan(641).snapshot_ids[1:]
    assert describe_snapshots(one).endswith(" of 640 snapshots")
    assert describe_snapshots(one) != describe_snapshots(other)
    assert describe_snapshots(one[:2]) == ",".join(each[:12] for each in one[:2])


def test_prose_is_cut_and_says_so() -> None:
    assert shorten_text("a" * 8000, 8000) == "a" * 8000
    assert shorten_text("a" * 8001, 8000) == "a" * 7999 + "…"
