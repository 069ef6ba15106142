"""What the API server's answers become where no release and no job is concerned."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.release.core.canary import Traffic
from include.release.targets.slot_counters import SlotCounters, merge_counters
from tests import kube_api
from tests.kube_api import Fault, KubeApi
from tests.served_cluster import cluster_of

POD = "/api/v1/namespaces/evergreen/pods/p"


@pytest.fixture
def api() -> Iterator[KubeApi]:
    with kube_api.serving() as served:
        yield served


@pytest.mark.parametrize("log", ["one\ntwo\n", "", '{"a": 1}', "5", "größer als \U0001f525"])
def test_a_log_is_read_as_it_was_written_whatever_it_looks_like(api, log):
    api.logs[POD] = log
    assert cluster_of(api).read_text(f"{POD}/log") == log


def test_a_log_that_is_gone_is_an_empty_one(api):
    api.script("GET", "/log$", Fault(404))
    assert cluster_of(api).read_text(f"{POD}/log") == ""


def test_a_deletion_means_one_object_and_no_later_one_of_its_name(api):
    kind = POD.rsplit("/", 1)[0]
    old = api.create(kind, {"metadata": {"name": "p"}})["metadata"]["uid"]
    api.delete(POD)
    api.create(kind, {"metadata": {"name": "p"}})
    cluster_of(api).delete(POD, old)
    assert cluster_of(api).get(POD) is not None


def test_several_processes_count_as_one_that_begins_anew_with_each_of_them():
    one = SlotCounters(1.0, Traffic(10, 1, (1, 2), (3, 4), 5))
    two = SlotCounters(2.0, Traffic(20, 0, (1, 1), (1, 1), 1))
    assert merge_counters([one, two]) == SlotCounters(3.0, Traffic(30, 1, (2, 3), (4, 5), 6))
    assert merge_counters([one, None]) is None
    assert merge_counters([]) is None
