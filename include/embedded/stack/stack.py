"""`up`, `down` and `status`: the sequence in which the stack comes to life and ends.

`up`, in order: stop what a killed process manager left behind; see that every port is free; write the files; start the
process manager and what needs no database; prepare the database meanwhile; start Airflow; wait until each part is
healthy. Every step may already be done: then it is skipped, so `up` on a healthy stack changes nothing.
"""

import fcntl
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from include.embedded.configuration import environment
from include.embedded.configuration.credentials import ensure_keys, load_credentials, write_private
from include.embedded.configuration.settings import EmbeddedSettings, ProgramName
from include.embedded.stack import envoy, strays
from include.embedded.stack.errors import StackError
from include.embedded.stack.heartbeat import CommandFailed, read_tail, run
from include.embedded.stack.ports import require_free
from include.embedded.stack.programs import Program, build_supervisor_port, list_programs
from include.embedded.stack.screen import Progress, build_address_table
from include.embedded.stack.supervision import Status, Supervisor, render_config
from include.kernel.errors import KeyInvalid

STOP_TIMEOUT_S = 20.0  # seconds the process manager gets to stop everything by itself


@dataclass(frozen=True)
class Part:
    """One program as `status` shows it; `missing` is None when it is healthy."""

    name: ProgramName
    state: str
    pid: int
    uptime: float
    missing: str | None


class Stack:
    """One embedded stack; all state is on disk and in the process table, so any number of these may look at it."""

    def __init__(self, settings: EmbeddedSettings, console: Console) -> None:
        self.settings = settings
        self.console = console
        self.secret = load_credentials(settings.home)
        self.programs: list[Program] = list_programs(settings, self.secret)
        self.supervisor = Supervisor(settings, self.secret)

    # -- up --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        with self._lock_home():
            self._ensure_keys()
            files = self._render_files()
            if self.supervisor.is_alive and not _are_current(files):
                self._say("The settings have changed: restarting the stack.")
                self._stop_programs()
            if not self.supervisor.is_alive:
                self._launch(files)
            self._start_what_is_down()
            self._wait_until_healthy()
        self.console.print(build_address_table(self.settings))

    def _ensure_keys(self) -> None:
        """Before anything runs, and on every `up`: a key that was taken away is replaced without a restart."""
        try:
            ensure_keys(self.settings.signing_key, self.settings.trusted_keys)
        except (KeyInvalid, OSError) as error:
            raise StackError(f"The keys in {self.settings.signing_key.parent} cannot be used: {error}") from error

    def _launch(self, files: dict[Path, str]) -> None:
        self._clear_strays()
        require_free(
            [build_supervisor_port(self.settings), *(port for program in self.programs for port in program.ports)]
        )
        self._write(files)
        process = self.supervisor.launch()
        if not self.supervisor.wait_until_alive(process):
            raise StackError(
                f"The process manager did not start:\n{read_tail(self.settings.logs_dir / 'supervisord.log')}"
            )

    def _clear_strays(self) -> None:
        processes = strays.find(self.settings.home)
        if not processes:
            return
        self._say(f"Stopping {len(processes)} processes left over from an earlier run.")
        if left := strays.clear(self.settings.home):
            raise StackError(f"{left} processes of an earlier run will not stop; stop them and run `make up` again.")

    def _render_files(self) -> dict[Path, str]:
        return {
            self.settings.supervisor_config: render_config(self.settings, self.secret, self.programs),
            self.settings.envoy_config: envoy.render_bootstrap(self.settings),
            environment.locate_passwords_file(self.settings): json.dumps({self.settings.user: self.settings.password}),
        }

    def _write(self, files: dict[Path, str]) -> None:
        for directory in self.settings.directories:
            directory.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            write_private(path, text)
        envoy.ensure_route(self.settings.route_file)
        envoy.rotate_access_log(self.settings)

    def _start_what_is_down(self) -> None:
        """What needs the database comes last: the rest starts while it is being prepared."""
        statuses = self._wait_until_settled()
        down = [program for program in self.programs if statuses[program.name].is_down]
        for program in down:
            if not program.needs_database:
                self.supervisor.start(program.name)
        waiting = [program for program in down if program.needs_database]
        if waiting:
            self._migrate()
        for program in waiting:
            self.supervisor.start(program.name)

    def _wait_until_settled(self) -> dict[ProgramName, Status]:
        """Once nothing is being stopped any more: what is, counts as running, and would be left stopped."""
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while True:
            statuses = self.supervisor.read_statuses()
            if time.monotonic() > deadline or all(status.state != "STOPPING" for status in statuses.values()):
                return statuses
            time.sleep(0.1)

    def _migrate(self) -> None:
        """Once per Airflow version; asking Airflow itself whether there is anything to do costs 5 s a start."""
        stamp = self.settings.airflow_dir / ".migrated"
        exists = (self.settings.airflow_dir / "airflow.db").exists()
        if exists and stamp.exists() and stamp.read_text() == version("apache-airflow"):
            return
        env = environment.inherit_env() | environment.build_shared_env(self.settings)
        env |= environment.build_airflow_env(self.settings, self.secret)
        airflow = str(Path(sys.executable).with_name("airflow"))
        self._say("Preparing Airflow's database")
        try:
            run("Database", [airflow, "db", "migrate"], self._log("airflow-migrate"), self._say, env=env)
        except CommandFailed as error:
            raise StackError(str(error)) from error
        stamp.write_text(version("apache-airflow"))

    # -- waiting ---------------------------------------------------------------------------------------------------

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + self.settings.deadline
        with Progress(self.console) as progress:
            while True:
                parts = self.list_parts()
                progress.show({part.name: part.missing for part in parts})
                unhealthy = [part for part in parts if part.missing]
                if not unhealthy:
                    return
                self._give_up_on(unhealthy, late=time.monotonic() > deadline)
                time.sleep(0.5)

    def _give_up_on(self, unhealthy: list[Part], *, late: bool) -> None:
        """At once when the process manager has given one up, else only when the time is over."""
        failed = unhealthy if late else [part for part in unhealthy if part.state == "FATAL"]
        if not failed:
            return
        why = f"is not healthy after {self.settings.deadline:.0f} s" if late else "keeps dying"
        failures = [self._describe_failure(part, why) for part in failed]
        raise StackError("\n\n".join([*failures, "What did start keeps running; `make down` stops it."]))

    def _describe_failure(self, part: Part, why: str) -> str:
        log = self._log(part.name)
        return f"{part.name} {why} ({part.missing}). The end of {log}:\n{read_tail(log)}"

    def list_parts(self) -> list[Part]:
        """Each program's state and health, as of now."""
        if not self.supervisor.is_alive:
            return [Part(program.name, "STOPPED", 0, 0, "is stopped") for program in self.programs]
        statuses = self.supervisor.read_statuses()
        return [_build_part(program, statuses.get(program.name)) for program in self.programs]

    # -- down ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        with self._lock_home():
            left = self._stop_programs()
        self._say(f"{left} processes left")
        if left:
            raise StackError(f"They carry {environment.STACK_VARIABLE}={self.settings.home} and could not be stopped.")

    def _stop_programs(self) -> int:
        if self.supervisor.is_alive:
            self._say("Stopping the stack")
            self.supervisor.shut_down()
            self._wait_for_exit()
        return strays.clear(self.settings.home)

    def _wait_for_exit(self) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT_S
        last_line_at = time.monotonic()
        while (processes := strays.find(self.settings.home)) and time.monotonic() < deadline:
            if time.monotonic() - last_line_at > 5:
                self._say(f"{len(processes)} processes are still stopping")
                last_line_at = time.monotonic()
            time.sleep(0.2)

    def reset(self) -> None:
        """Down, and forget everything."""
        self.stop()
        shutil.rmtree(self.settings.home)

    # -- small parts -----------------------------------------------------------------------------------------------

    def build_env(self) -> dict[str, str]:
        """What a task of this stack sees, for a shell that wants to look through the same eyes."""
        return environment.build_task_env(self.settings, self.secret)

    @contextmanager
    def _lock_home(self) -> Iterator[None]:
        """One `up` or `down` at a time for a home: two would each find the other's processes."""
        self.settings.home.mkdir(parents=True, exist_ok=True)
        with (self.settings.home / ".lock").open("w") as lock:
            while not _try_lock(lock.fileno()):
                self._say("Another `up` or `down` of this home is running; waiting for it.")
                time.sleep(5)
            yield

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False)

    def _log(self, name: str) -> Path:
        return self.settings.logs_dir / f"{name}.log"


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _are_current(files: dict[Path, str]) -> bool:
    return all(path.exists() and path.read_text() == text for path, text in files.items())


def _build_part(program: Program, status: Status | None) -> Part:
    if status is None or status.pid == 0:
        state = status.state if status else "UNKNOWN"
        return Part(program.name, state, 0, 0, f"is {state.lower()}")
    return Part(program.name, status.state, status.pid, status.uptime, program.probe_health(status.started))
