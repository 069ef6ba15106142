"""Run a command that may take minutes, and never be silent: a line every few seconds, its output kept for later.

Standard library only, since the installer uses it before anything is installed.
"""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Say = Callable[[str], None]
REPORT_INTERVAL_S = 5.0


class CommandFailed(Exception):
    """A command ended with an error; the message holds the end of its output."""


def run(
    label: str,
    command: Sequence[str],
    log: Path,
    say: Say,
    *,
    env: Mapping[str, str] | None = None,
    every: float = REPORT_INTERVAL_S,
) -> float:
    """Run it to its end and return the seconds it took; its output goes to `log`, and is shown only on failure."""
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        output.write(f"$ {' '.join(command)}\n")
        output.flush()
        offset = output.tell()
        code = _wait(label, subprocess.Popen(command, stdout=output, stderr=output, env=env), say, started, every)
    if code != 0:
        raise CommandFailed(f"{label} failed with exit code {code}; the end of {log}:\n{read_tail(log, offset=offset)}")
    return time.monotonic() - started


def read_tail(path: Path, lines: int = 20, offset: int = 0) -> str:
    """The last lines of a log, of what was written after `offset`."""
    if not path.exists():
        return "(no output)"
    with path.open("rb") as file:
        file.seek(max(offset, path.stat().st_size - 32_768))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:]) or "(no output)"


def _wait(label: str, process: subprocess.Popen[bytes], say: Say, started: float, every: float) -> int:
    """Wait for it; a caller that is interrupted takes the command down with it."""
    try:
        while True:
            try:
                return process.wait(timeout=every)
            except subprocess.TimeoutExpired:
                say(f"{label}: {time.monotonic() - started:.0f} s")
    except BaseException:
        process.kill()
        process.wait()
        raise
