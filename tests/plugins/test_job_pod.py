"""The pod a job becomes under the kubernetes target, built without a cluster."""

from __future__ import annotations

import json

import pytest

from evergreen.edge import job_request
from evergreen.operators.job import job_task
from evergreen.operators.job_pod import PodJobOperator
from include.core.job import ATTEMPT_VARIABLE, REQUEST_VARIABLE, JobRequest
from tests.plugins.conftest import context

