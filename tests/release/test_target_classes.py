"""Both targets are what the abstract classes say, so that no use case can reach for what one of them alone can do."""

from __future__ import annotations

import inspect
from abc import ABC

import pytest

from include.release.targets.base import RepairableTarget, ServingTarget
from include.release.targets.kubernetes.repair import KubernetesRepair
from include.release.targets.kubernetes.target import KubernetesTarget
from include.release.targets.local.repair import LocalRepair
from include.release.targets.local.target import LocalTarget


@pytest.mark.parametrize(
    ("made", "promised"),
    [
        (LocalTarget, ServingTarget),
        (KubernetesTarget, ServingTarget),
        (LocalRepair, RepairableTarget),
        (KubernetesRepair, RepairableTarget),
    ],
)
def test_a_target_has_all_that_its_abstract_class_names_and_nothing_more(made, promised):
    assert issubclass(made, promised) and not inspect.isabstract(made)
    assert find_public(made) == find_public(promised)


@pytest.mark.parametrize("made", [LocalTarget, KubernetesTarget])
def test_no_step_of_a_release_can_mend_records(made):
    assert find_public(made) & (find_public(RepairableTarget) - find_public(ServingTarget)) == set()


@pytest.mark.parametrize("part", [part for part in RepairableTarget.__mro__ if part not in (ABC, object)])
def test_each_part_is_small(part):
    own = [name for name in vars(part) if not name.startswith("_")]
    assert len(own) <= 11, own


def find_public(kind: type) -> set[str]:
    return {name for name, value in inspect.getmembers(kind) if callable(value) and not name.startswith("_")}
