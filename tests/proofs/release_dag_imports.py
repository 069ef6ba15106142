"""What the fork server of release_dag imports once, for all the tasks it forks."""

import mlflow  # noqa: F401

import tests.plugins.conftest
import tests.proofs.release_dag  # noqa: F401
from evergreen.operators import registry, rollout  # noqa: F401
