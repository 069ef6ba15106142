"""Processes of this stack, found by what they carry and not by what somebody noted down.

A pid file is silent about the children of a process manager that was killed. So every program carries the stack's home
in its environment, which its children inherit and nobody forgets to write. A second scheduler beside an orphaned one is
the accident this prevents.
"""

import os
import time
from pathlib import Path

import psutil

from include.embedded.configuration.environment import STACK_VARIABLE

ROUNDS = 5


def find(home: Path) -> list[psutil.Process]:
    """Every live process that carries this home, but for the caller and those it runs under."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in own and _is_stray(process, home)]


def _is_stray(process: psutil.Process, home: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(STACK_VARIABLE) == str(home)
    except (psutil.Error, OSError):
        return False  # gone meanwhile, or another user's


def clear(home: Path, grace: float = 4.0) -> int:
    """Stop them all, politely first; the number that is left, 0 unless the system refuses.

    In rounds, since one that is about to be stopped may just be starting another.
    """
    for round_ in range(ROUNDS):
        processes = find(home)
        if not processes:
            return 0
        _stop(processes, grace if round_ == 0 else 0.5)
    return len(find(home))


def _stop(processes: list[psutil.Process], grace: float) -> None:
    for process in processes:
        _send_signal(process, "terminate")
    for process in _wait_for_exit(processes, grace):
        _send_signal(process, "kill")
    _wait_for_exit(processes, 2.0)


def _send_signal(process: psutil.Process, verb: str) -> None:
    try:
        getattr(process, verb)()
    except psutil.NoSuchProcess:
        return


def _wait_for_exit(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Not psutil.wait_procs: that waits for zombies too, and theirs is another parent's to reap."""
    deadline = time.monotonic() + seconds
    alive = [process for process in processes if _is_running(process)]
    while alive and time.monotonic() < deadline:
        time.sleep(0.05)
        alive = [process for process in alive if _is_running(process)]
    return alive


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
