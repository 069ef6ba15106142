"""Who may do what, by `kubectl auth can-i` as the accounts that are shipped."""

from __future__ import annotations

import subprocess

import pytest

from tests.proofs.prove_k8s_manifests import kubectl

AIRFLOW = "evergreen-airflow"
IDLE = ("evergreen-job", "evergreen-server", "evergreen-mlflow")
MAY = (
    "create pods",
    "get pods",
    "list pods",
    "watch pods",
    "patch pods",
    "delete pods",
    "get pods --subresource=log",
    "list events",
    "create secrets",
    "get configmaps/evergreen-jobs",
    "get services/predictions",
    "update services/predictions",
    "get deployments.apps/slot-blue",
    "update deployments.apps/slot-blue",
    "update deployments.apps/slot-green",
    "get configmaps/evergreen-evidence",
    "patch configmaps/evergreen-evidence",
    "list endpointslices.discovery.k8s.io",
)
MAY_NOT = (
    "get secrets",
    "list secrets",
    "delete secrets",
    "get secrets/mlflow",
    "create deployments.apps",
    "delete deployments.apps/slot-blue",
    "update deployments.apps/mlflow",
    "update services/mlflow",
    "create services",
    "patch configmaps/evergreen-trusted-keys",
    "create rolebindings.rbac.authorization.k8s.io",
    "create serviceaccounts --subresource=token",
    "create pods --subresource=exec",
    "create pods --subresource=ephemeralcontainers",
    "impersonate serviceaccounts",
    "create persistentvolumeclaims",
)
BEYOND = ("get secrets", "list pods", "create pods", "get configmaps", "update services/predictions")
NODES = ("list nodes", "get nodes", "list namespaces", "create persistentvolumes", "get secrets -A", "list pods -A")


def said(settings, account: str, question: str, namespace: str | None) -> str:
    who = f"--as=system:serviceaccount:{settings.namespace}:{account}"
    at = [] if namespace is None else ["-n", namespace]
    command = [kubectl(), "auth", "can-i", *question.split(), who, *at]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    lines = done.stdout.split()
    assert lines, done.stderr
    return lines[0]


@pytest.mark.parametrize("question", MAY)
def test_airflow_may(settings, question):
    assert said(settings, AIRFLOW, question, settings.namespace) == "yes"


@pytest.mark.parametrize("question", MAY_NOT)
def test_airflow_may_not(settings, question):
    assert said(settings, AIRFLOW, question, settings.namespace) == "no"


@pytest.mark.parametrize("namespace", ["default", "kube-system"])
@pytest.mark.parametrize("question", BEYOND)
def test_airflow_may_do_nothing_in_another_namespace(settings, question, namespace):
    assert said(settings, AIRFLOW, question, namespace) == "no"


@pytest.mark.parametrize("question", NODES)
def test_airflow_may_do_nothing_to_the_cluster(settings, question):
    assert said(settings, AIRFLOW, question, None) == "no"


@pytest.mark.parametrize("account", IDLE)
@pytest.mark.parametrize("question", ["list pods", "create pods", "get secrets", "get configmaps", "list services"])
def test_jobs_servers_and_mlflow_may_do_nothing(settings, account, question):
    assert said(settings, account, question, settings.namespace) == "no"


def test_a_pod_of_a_slot_is_given_no_token(serving, release):
    release("1")
    for pod in serving.reached.slots("blue"):
        assert "kube-api-access" not in str(pod["spec"]["volumes"])
