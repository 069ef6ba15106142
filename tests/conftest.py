"""What every test stands on: no variable of another installation, and an Airflow home of this run alone.

Set before anything imports Airflow, which reads its settings once, when it is imported, and would otherwise make a home
in the developer's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[1]
SERVERS = {"contract", "e2e", "embedded"}  # folders whose tests start servers and stacks
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="evergreen-tests-"))

for foreign in [name for name in os.environ if name.startswith(("AIRFLOW_", "EVERGREEN_", "MLFLOW_"))]:
    del os.environ[foreign]
os.environ |= {
    "AIRFLOW_HOME": str(AIRFLOW_HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
    # A server started by hand has no key. Stacks take nothing of this: theirs have keys, and ask for blessings.
    "EVERGREEN_UNBLESSED": "allow",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # As in the stack: on a busy machine, threads that wait for each other made one training take thirty seconds.
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}

from include import manifest as manifests  # noqa: E402  (the environment comes first)
from include.manifest import Manifest  # noqa: E402
from tests import ground  # noqa: E402
from tests.job_world import ask, place, registry  # noqa: E402, F401  (fixtures of whatever runs jobs)

if TYPE_CHECKING:
    from tests.served import Serving, Trained


settings.register_profile("evergreen", deadline=None)  # a busy machine is no finding
settings.load_profile("evergreen")


def pytest_configure(config: pytest.Config) -> None:
    """Two libraries look into every module that is loaded, which makes Airflow warn about names nobody uses."""
    for found in ("ignore:::skops.io._utils", "ignore:GitWildMatchPattern:DeprecationWarning"):
        config.addinivalue_line("filterwarnings", found)
    config.addinivalue_line("markers", "needs(*what): what a serving target must be able to do for this test")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts servers comes first, since it takes longest."""
    items.sort(key=lambda item: not starts_servers(item.nodeid))


def starts_servers(nodeid: str) -> bool:
    return nodeid.split("/")[1] in SERVERS


class OneForServers(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Whatever starts servers runs in one process, one after the other; of the rest, a file in any.

    Two stacks at once on two cores make every time limit a matter of luck.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "servers" if starts_servers(nodeid) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneForServers:
    return OneForServers(config, log)


def pytest_unconfigure() -> None:
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Manifest]:
    """Puts a small variant of the manifest in force, with changes by dotted name, and a store in tmp_path."""
    monkeypatch.setenv("EVERGREEN_STORE", str(tmp_path / "store"))

    def put(**changes: object) -> Manifest:
        path = ground.write_manifest(tmp_path / "pipeline.yaml", ground.SMALL | changes)
        monkeypatch.setenv("EVERGREEN_MANIFEST", str(path))
        return manifests.load(path)

    return put


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """The tables of this run's Airflow."""
    airflow = Path(sys.executable).with_name("airflow")
    done = subprocess.run([str(airflow), "db", "migrate"], env=os.environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real MLflow server for the whole session; tests keep apart by the names of their models."""
    with ground.stack(tmp_path_factory.mktemp("mlflow"), "mlflow") as stack:
        yield stack.settings.mlflow_url


@pytest.fixture(scope="session")
def running_slots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Envoy and two empty slots under the process manager, once a session."""
    from tests.served import Serving

    with ground.stack(tmp_path_factory.mktemp("serving"), "envoy", "slot-blue", "slot-green") as stack:
        yield Serving(stack)


@pytest.fixture
def serving(local_serving: Serving) -> Serving:
    return local_serving


@pytest.fixture
def local_serving(running_slots: Serving) -> Serving:
    """The serving stack as after a first `make up`: nothing wanted, nothing staged, no route."""
    running_slots.start_all()
    running_slots.forget()
    return running_slots


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    from tests.served import Trained

    return Trained(tmp_path_factory.mktemp("trained"))
