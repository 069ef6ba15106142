"""The programs of the stack: how each is started, on which ports it listens and how its health is seen.

A plain list, read by everything else: the process manager's file, the port check, the progress display, `status`.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from include.embedded.configuration import environment
from include.embedded.configuration.credentials import Credentials
from include.embedded.configuration.settings import EmbeddedSettings, ProgramName
from include.embedded.stack import envoy
from include.embedded.stack.health import Probe, build_heartbeat_probe, build_http_probe
from include.kernel.words.colours import Colour


@dataclass(frozen=True)
class Port:
    """A port, what a person knows it as, and the setting that moves it."""

    number: int
    label: str
    setting: str


@dataclass(frozen=True)
class Program:
    name: ProgramName
    command: list[str]
    probe_health: Probe
    ports: tuple[Port, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    stop_timeout_s: int = 10  # seconds between TERM and KILL
    steady_after: int = 1  # seconds a start must survive to count; dying earlier `retries` times is FATAL
    needs_database: bool = False


def list_programs(settings: EmbeddedSettings, secret: Credentials) -> list[Program]:
    """Those the settings ask for, in the order they are best started."""
    slots = [_build_slot_program(settings, secret, "blue"), _build_slot_program(settings, secret, "green")]
    every = [
        _build_mlflow_program(settings),
        _build_envoy_program(settings),
        *slots,
        _build_exporter_program(settings),
        *_build_airflow_programs(settings, secret),
    ]
    return [program for program in every if program.name in settings.programs]


def build_supervisor_port(settings: EmbeddedSettings) -> Port:
    return Port(settings.supervisor_port, "process manager", "EVERGREEN_SUPERVISOR_PORT")


def _locate_script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _build_airflow_programs(settings: EmbeddedSettings, secret: Credentials) -> list[Program]:
    env = environment.build_airflow_env(settings, secret)
    ui = Port(settings.airflow_port, "Airflow UI", "EVERGREEN_AIRFLOW_PORT")
    logs = Port(settings.worker_log_port, "Airflow task logs", "EVERGREEN_WORKER_LOG_PORT")
    trigger_logs = Port(settings.trigger_log_port, "Airflow trigger logs", "EVERGREEN_TRIGGER_LOG_PORT")
    parts: list[tuple[ProgramName, str, str, tuple[Port, ...]]] = [
        ("airflow-api-server", "api-server", "metadatabase", (ui,)),
        ("airflow-scheduler", "scheduler", "scheduler", (logs,)),
        ("airflow-dag-processor", "dag-processor", "dag_processor", ()),
        ("airflow-triggerer", "triggerer", "triggerer", (trigger_logs,)),
    ]
    return [
        Program(
            name,
            [_locate_script("airflow"), verb],
            build_heartbeat_probe(settings.airflow_url, component),
            ports,
            env,
            steady_after=5,
            needs_database=True,
        )
        for name, verb, component, ports in parts
    ]


def _build_mlflow_program(settings: EmbeddedSettings) -> Program:
    where = ["--host", settings.host, "--port", str(settings.mlflow_port), "--workers", "1"]
    records = ["--backend-store-uri", f"sqlite:///{settings.mlflow_dir / 'mlflow.db'}"]
    files = ["--serve-artifacts", "--artifacts-destination", str(settings.mlflow_dir / "artifacts")]
    return Program(
        "mlflow",
        [_locate_script("mlflow"), "server", *where, *records, *files],
        build_http_probe(f"{settings.mlflow_url}/health"),
        (Port(settings.mlflow_port, "MLflow", "EVERGREEN_MLFLOW_PORT"),),
        environment.build_mlflow_env(),
        steady_after=5,
    )


def _build_envoy_program(settings: EmbeddedSettings) -> Program:
    listener = Port(settings.serving_port, "predictions", "EVERGREEN_SERVING_PORT")
    admin = Port(settings.envoy_admin_port, "Envoy admin", "EVERGREEN_ENVOY_ADMIN_PORT")
    probe = build_http_probe(f"{settings.envoy_admin_url}/ready")
    return Program("envoy", envoy.build_command(settings), probe, (listener, admin), stop_timeout_s=3)


def _build_slot_program(settings: EmbeddedSettings, secret: Credentials, colour: Colour) -> Program:
    name: ProgramName = "slot-blue" if colour == "blue" else "slot-green"
    number = settings.blue_port if colour == "blue" else settings.green_port
    port = Port(number, f"{colour} slot", f"EVERGREEN_{colour.upper()}_PORT")
    return Program(
        name,
        [sys.executable, "-m", "include.serving"],
        build_http_probe(f"{settings.build_url(number)}/health"),
        (port,),
        environment.build_slot_env(settings, secret, colour),
        steady_after=5,
    )


def _build_exporter_program(settings: EmbeddedSettings) -> Program:
    return Program(
        "exporter",
        [sys.executable, "-m", "include.metrics_exporter"],
        build_http_probe(f"{settings.exporter_url}/metrics"),
        (Port(settings.exporter_port, "metrics of monitoring", "EVERGREEN_EXPORTER_PORT"),),
        environment.build_exporter_env(settings),
    )
