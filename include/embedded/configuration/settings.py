"""Where the embedded stack lives and which ports it takes: the one place that knows both.

Every number can be changed by an environment variable (`EVERGREEN_<FIELD>`), since two clones on one machine need two
sets of ports. The host cannot: nothing here has TLS or real passwords, so nothing listens beyond this machine. The one
exception is Airflow's: its two log servers take no host; they answer only to requests signed with the stack's secret.
"""

import os
from pathlib import Path
from typing import ClassVar, Literal, get_args

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from include.serving.words.slot_files import ARTIFACTS, BLESSINGS, ROUTE, SLOTS, locate_routes_file

REPO = Path(__file__).resolve().parents[3]

ProgramName = Literal[
    "airflow-api-server",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
    "mlflow",
    "envoy",
    "slot-blue",
    "slot-green",
    "exporter",
]
PROGRAMS: tuple[ProgramName, ...] = get_args(ProgramName)


class EmbeddedSettings(BaseSettings):
    """The settings of one embedded stack; two stacks with different homes and ports do not see each other."""

    model_config = SettingsConfigDict(env_prefix="EVERGREEN_", frozen=True, extra="ignore")
    host: ClassVar[str] = "127.0.0.1"

    home: Path = REPO / ".evergreen"
    dags: Path = REPO / "dags"
    manifest: Path = REPO / "include" / "pipeline.yaml"
    snapshots: str = Field("", description="another place for snapshots: a directory or s3://bucket/prefix")
    airflow_port: int = Field(8080, ge=1, le=65535)
    worker_log_port: int = Field(8793, ge=1, le=65535)
    trigger_log_port: int = Field(8794, ge=1, le=65535)
    mlflow_port: int = Field(5000, ge=1, le=65535)
    serving_port: int = Field(8088, ge=1, le=65535, description="Envoy's listener: where predictions are asked for")
    envoy_admin_port: int = Field(9901, ge=1, le=65535)
    blue_port: int = Field(8101, ge=1, le=65535)
    green_port: int = Field(8102, ge=1, le=65535)
    legacy_http: bool = Field(False, description="Envoy takes HTTP/1.0 too, as nginx and ab speak unasked")
    exporter_port: int = Field(9108, ge=1, le=65535, description="what monitoring found, for Prometheus")
    supervisor_port: int = Field(9001, ge=1, le=65535)
    user: str = "admin"
    password: str = "admin"
    programs: tuple[ProgramName, ...] = PROGRAMS
    deadline: float = Field(120, gt=0, description="seconds `up` waits for everything to be healthy")

    @field_validator("home", "dags", "manifest")
    @classmethod
    def _check_path(cls, path: Path) -> Path:
        """supervisor's file has no escape for these characters, so a clear refusal beats a broken start."""
        path = path.expanduser().absolute()
        if set("\"'#;\n") & set(str(path)):
            raise ValueError(f"{path} holds a quote, '#' or ';', which the process manager cannot read; use another")
        return path

    @field_validator("home")
    @classmethod
    def _check_home(cls, home: Path) -> Path:
        """`reset` deletes it with all it holds."""
        if any(place.is_relative_to(home) for place in (REPO, Path.home())):
            raise ValueError(f"{home} holds more than this stack; name a directory of its own")
        return home

    @property
    def airflow_dir(self) -> Path:
        return self.home / "airflow"

    @property
    def mlflow_dir(self) -> Path:
        return self.home / "mlflow"

    @property
    def store_dir(self) -> Path:
        return self.home / "store"

    @property
    def serving_dir(self) -> Path:
        return self.home / "serving"

    @property
    def signing_key(self) -> Path:
        return self.home / "keys" / "signing.pem"

    @property
    def trusted_keys(self) -> Path:
        return self.home / "keys" / "trusted.pem"

    @property
    def route_file(self) -> Path:
        return locate_routes_file(self.serving_dir)

    @property
    def logs_dir(self) -> Path:
        return self.home / "logs"

    @property
    def supervisor_config(self) -> Path:
        return self.home / "supervisord.conf"

    @property
    def supervisor_pid(self) -> Path:
        return self.home / "supervisord.pid"

    @property
    def envoy_config(self) -> Path:
        return self.home / "envoy.yaml"

    @property
    def directories(self) -> tuple[Path, ...]:
        serving = [self.serving_dir / name for name in (SLOTS, ARTIFACTS, BLESSINGS, ROUTE, "verdicts")]
        return (self.airflow_dir, self.mlflow_dir / "artifacts", self.store_dir, self.logs_dir, *serving)

    def build_url(self, port: int) -> str:
        return f"http://{self.host}:{port}"

    @property
    def airflow_url(self) -> str:
        return self.build_url(self.airflow_port)

    @property
    def mlflow_url(self) -> str:
        return self.build_url(self.mlflow_port)

    @property
    def serving_url(self) -> str:
        return self.build_url(self.serving_port)

    @property
    def envoy_admin_url(self) -> str:
        return self.build_url(self.envoy_admin_port)

    @property
    def blue_url(self) -> str:
        return self.build_url(self.blue_port)

    @property
    def green_url(self) -> str:
        return self.build_url(self.green_port)

    @property
    def exporter_url(self) -> str:
        return self.build_url(self.exporter_port)

    @property
    def supervisor_url(self) -> str:
        return self.build_url(self.supervisor_port)


def apply_stack_defaults() -> None:
    """For commands beside the stack: what the caller has set counts; the rest is as in the embedded stack."""
    settings = EmbeddedSettings()
    os.environ.setdefault("EVERGREEN_STORE", str(settings.store_dir))
    os.environ.setdefault("EVERGREEN_MANIFEST", str(settings.manifest))
    os.environ.setdefault("MLFLOW_TRACKING_URI", settings.mlflow_url)
