"""What each program of the stack finds in its environment; jobs started by Airflow inherit Airflow's part.

The caller's own Airflow and MLflow settings are left out on purpose: a stack that half obeys another installation's
variables is worse than one that ignores them. Nor does it obey PYTHONDONTWRITEBYTECODE: uv installs sources alone, so
every task and every job would compile again what it imports (a task that does nothing: 0.13 s of CPU instead of 0.07).
Nothing reports usage to anybody.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from include.embedded.configuration.credentials import Credentials
from include.embedded.configuration.settings import REPO, EmbeddedSettings
from include.kernel.words.colours import Colour

STACK_VARIABLE = (
    "EVERGREEN_STACK"  # every process of a stack carries its home under this name; that is how strays are found
)
FOREIGN_PREFIXES = (
    "AIRFLOW_",
    "MLFLOW_",
    "EVERGREEN_",
    "SUPERVISOR_",
    "PYTHONPATH",
    "PYTHONHOME",
    "OTEL_",
    "PYTHONDONTWRITE",
)

NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "SCARF_ANALYTICS": "false",
    "SCARF_NO_ANALYTICS": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# Jobs and slots share few cores; libraries that each start a thread per core would fight over them.
THREAD_CAPS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

PYTHON_PATH = f"{REPO}{os.pathsep}{REPO / 'plugins'}"
LOCAL_SETTINGS = REPO / "include" / "embedded" / "local_settings"  # a folder of its own: Airflow takes what it finds
SQLITE_TIMEOUT_S = 30  # seconds


def inherit_env(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's environment without what belongs to other installations."""
    return {name: value for name, value in environ.items() if not name.startswith(FOREIGN_PREFIXES)}


def build_shared_env(settings: EmbeddedSettings) -> dict[str, str]:
    """What every program gets."""
    return {
        STACK_VARIABLE: str(settings.home),
        "EVERGREEN_HOME": str(settings.home),
        "EVERGREEN_MANIFEST": str(settings.manifest),
        "EVERGREEN_STORE": str(settings.store_dir),
        **({"EVERGREEN_SNAPSHOTS": settings.snapshots} if settings.snapshots else {}),
        "EVERGREEN_SERVING_DIR": str(settings.serving_dir),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": PYTHON_PATH,
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "SPT_NOENV": "1",  # setproctitle would otherwise write its titles over the environment we look for strays in
        **THREAD_CAPS,
        **NO_TELEMETRY,
    }


def build_mlflow_env() -> dict[str, str]:
    return {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # else it starts a dozen worker processes we never use


def build_slot_env(settings: EmbeddedSettings, secret: Credentials, colour: Colour) -> dict[str, str]:
    port = settings.blue_port if colour == "blue" else settings.green_port
    return {
        "EVERGREEN_SLOT": colour,
        "EVERGREEN_PORT": str(port),
        "EVERGREEN_SERVING_TOKEN": secret.serving_token,
        "EVERGREEN_TRUSTED_KEYS_FILE": str(settings.trusted_keys),
        "EVERGREEN_LOG_KEY": secret.log_key,
    }


def build_exporter_env(settings: EmbeddedSettings) -> dict[str, str]:
    return {"EVERGREEN_EXPORTER_PORT": str(settings.exporter_port)}


def build_airflow_env(settings: EmbeddedSettings, secret: Credentials) -> dict[str, str]:
    """What Airflow and therefore every task and local job gets."""
    return {**_build_addresses(settings, secret), **_build_airflow_options(settings, secret)}


def build_task_env(settings: EmbeddedSettings, secret: Credentials) -> dict[str, str]:
    """What a task sees, for a command or a shell beside the stack.

    Without the stack's mark: `down` would take all that the shell starts for a stray.
    """
    env = build_shared_env(settings) | build_airflow_env(settings, secret)
    return {name: value for name, value in env.items() if name != STACK_VARIABLE}


def _build_addresses(settings: EmbeddedSettings, secret: Credentials) -> dict[str, str]:
    login = f"{secret.supervisor_user}:{secret.supervisor_password}"
    return {
        "AIRFLOW_CONN_MLFLOW_DEFAULT": settings.mlflow_url,
        # paths and no keys: what stands in an environment is inherited by every child
        "AIRFLOW_CONN_BLESSING_SIGNER": _build_file_connection(settings.signing_key),
        "AIRFLOW_CONN_BLESSING_TRUST": _build_file_connection(settings.trusted_keys),
        "MLFLOW_TRACKING_URI": settings.mlflow_url,
        "EVERGREEN_AIRFLOW_URL": settings.airflow_url,
        "EVERGREEN_MLFLOW_URL": settings.mlflow_url,
        "EVERGREEN_SERVING_URL": settings.serving_url,
        "EVERGREEN_ENVOY_ADMIN_URL": settings.envoy_admin_url,
        "EVERGREEN_SERVING_TOKEN": secret.serving_token,
        "EVERGREEN_BLUE_PORT": str(settings.blue_port),
        "EVERGREEN_GREEN_PORT": str(settings.green_port),
        "EVERGREEN_SUPERVISOR_URL": f"http://{login}@{settings.host}:{settings.supervisor_port}/RPC2",
    }


def _build_file_connection(path: Path) -> str:
    return "generic://?" + urlencode({"path": str(path)})


def _build_airflow_options(settings: EmbeddedSettings, secret: Credentials) -> dict[str, str]:
    options = {
        "core.dags_folder": settings.dags,
        "core.plugins_folder": REPO / "plugins",
        "core.load_examples": False,
        "core.executor": "LocalExecutor",
        "core.parallelism": 4,  # one pre-forked worker each, 0.1 GB apiece; 32 by default
        "core.dags_are_paused_at_creation": True,
        "core.fernet_key": secret.fernet_key,
        "core.hostname_callable": "include.embedded.configuration.address.this_machine",
        "core.simple_auth_manager_users": f"{settings.user}:admin",
        "core.simple_auth_manager_passwords_file": locate_passwords_file(settings),
        # Both are needed: with a port of one's own and no URLs, every task calls port 8080.
        "core.execution_api_server_url": f"{settings.airflow_url}/execution/",
        "api.base_url": settings.airflow_url,
        "api.host": settings.host,
        "api.port": settings.airflow_port,
        "api.workers": 1,
        "api.secret_key": secret.api_secret,
        "api_auth.jwt_secret": secret.jwt_secret,
        # Writers wait for one another; with the default patience of 5 s a busy moment becomes an error 500.
        "database.sql_alchemy_conn": f"sqlite:///{settings.airflow_dir / 'airflow.db'}?timeout={SQLITE_TIMEOUT_S}",
        "database.load_default_connections": False,
        "logging.worker_log_server_port": settings.worker_log_port,
        "logging.trigger_log_server_port": settings.trigger_log_port,
        "scheduler.scheduler_idle_sleep_time": 0.1,  # a chain of 12 tasks: 2 s instead of 12
        "workers.min_heartbeat_interval": 1,  # a task's end that was missed is seen at the next beat; 5 s by default
        "dag_processor.refresh_interval": 5,  # a new or changed DAG file is seen within 10 s instead of 5 min
        "dag_processor.parsing_processes": 1,
    }
    env = {"AIRFLOW__" + name.replace(".", "__").upper(): str(value) for name, value in options.items()}
    path = os.pathsep.join((PYTHON_PATH, str(LOCAL_SETTINGS)))
    return {"AIRFLOW_HOME": str(settings.airflow_dir), "PYTHONPATH": path, **env}


def locate_passwords_file(settings: EmbeddedSettings) -> Path:
    return settings.airflow_dir / "passwords.json"
