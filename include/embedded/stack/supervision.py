"""The process manager: its file, its start, and talking to it.

supervisor comes as a wheel, restarts what dies and can be asked over HTTP on this machine; a socket file would break in
a deep clone (its path may have 108 characters). It starts nothing by itself: `up` starts each program when what it
needs is there, and can so do half of the work while the database is still being prepared.
"""

import http.client
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from dataclasses import dataclass
from typing import Any

from include.embedded.configuration.credentials import Credentials
from include.embedded.configuration.environment import build_shared_env, inherit_env
from include.embedded.configuration.settings import REPO, EmbeddedSettings, ProgramName
from include.embedded.stack.programs import Program

DOWN_STATES = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")
RETRIES = 3
RPC_TIMEOUT = 10.0


@dataclass(frozen=True)
class Status:
    """One program as the process manager sees it."""

    name: ProgramName
    state: str
    pid: int
    started: float
    uptime: float

    @property
    def is_down(self) -> bool:
        return self.state in DOWN_STATES


class _Transport(xmlrpc.client.Transport):
    """The library's own waits for ever."""

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = super().make_connection(host)
        connection.timeout = RPC_TIMEOUT
        return connection


class Supervisor:
    """The process manager of one home, running or not."""

    def __init__(self, settings: EmbeddedSettings, secret: Credentials) -> None:
        self.settings = settings
        login = f"{secret.supervisor_user}:{secret.supervisor_password}"
        url = f"http://{login}@{settings.host}:{settings.supervisor_port}/RPC2"
        self.rpc: Any = xmlrpc.client.ServerProxy(url, transport=_Transport()).supervisor

    @property
    def is_alive(self) -> bool:
        """Another home's would turn our password down, and so doesn't count."""
        try:
            return bool(self.rpc.getState()["statename"] == "RUNNING")
        except (OSError, xmlrpc.client.Error, http.client.HTTPException):
            return False

    def launch(self) -> subprocess.Popen[bytes]:
        """In a session of its own, so that Ctrl-C at `make up` does not reach it."""
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.settings.supervisor_config)]
        env = inherit_env() | build_shared_env(self.settings)
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, cwd=REPO, env=env, start_new_session=True, **quiet)  # type: ignore[call-overload,no-any-return]

    def wait_until_alive(self, process: subprocess.Popen[bytes], seconds: float = 20.0) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and process.poll() is None:
            if self.is_alive:
                return True
            time.sleep(0.05)
        return False

    def read_statuses(self) -> dict[ProgramName, Status]:
        return {info["name"]: _parse_status(info) for info in self.rpc.getAllProcessInfo()}

    def start(self, name: ProgramName) -> None:
        """Without waiting; asking for one that already runs is no mistake."""
        try:
            self.rpc.startProcess(name, False)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString and "SPAWN_ERROR" not in fault.faultString:
                raise

    def shut_down(self) -> None:
        self.rpc.shutdown()


def _parse_status(info: dict[str, Any]) -> Status:
    runs = info["pid"] != 0
    uptime = float(info["now"] - info["start"]) if runs else 0.0
    return Status(info["name"], info["statename"], info["pid"], float(info["start"]), uptime)


def render_config(settings: EmbeddedSettings, secret: Credentials, programs: list[Program]) -> str:
    """The whole file, and so a full record of how the stack was started: when it differs, the stack must restart."""
    head = f"""[supervisord]
nodaemon=true
silent=true
directory={_escape_percent(REPO)}
logfile={_escape_percent(settings.logs_dir / "supervisord.log")}
logfile_maxbytes=10MB
logfile_backups=1
pidfile={_escape_percent(settings.supervisor_pid)}
childlogdir={_escape_percent(settings.logs_dir)}
minfds=1024

[inet_http_server]
port={settings.host}:{settings.supervisor_port}
username={secret.supervisor_user}
password={secret.supervisor_password}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl={settings.supervisor_url}
username={secret.supervisor_user}
password={secret.supervisor_password}
"""
    return head + "".join(_render_section(program, settings) for program in programs)


def _render_section(program: Program, settings: EmbeddedSettings) -> str:
    return f"""
[program:{program.name}]
command={_escape_percent(shlex.join(program.command))}
environment={_render_environment(build_shared_env(settings) | program.env)}
autostart=false
autorestart=true
startsecs={program.steady_after}
startretries={RETRIES}
stopasgroup=true
killasgroup=true
stopwaitsecs={program.stop_timeout_s}
redirect_stderr=true
stdout_logfile={_escape_percent(settings.logs_dir / program.name)}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"""


def _render_environment(env: dict[str, str]) -> str:
    return ",".join(f'{name}="{_escape_percent(value)}"' for name, value in env.items())


def _escape_percent(value: object) -> str:
    """A percent sign starts an expansion in this file."""
    return str(value).replace("%", "%%")
