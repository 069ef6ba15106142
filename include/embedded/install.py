"""Make .venv hold what requirements.txt says, which is uv.lock in pip's words; skipped when it already does.

Runs on the system's Python before anything is installed, hence the standard library alone. torch comes first and by
pip: pip honours a machine's own wheels and indexes, where uv would fetch the build for NVIDIA cards, ten times as
large. All else comes by uv, which takes seconds. TORCH_INDEX names another index for torch, such as PyTorch's CPU one.
"""

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from include.embedded.stack.heartbeat import CommandFailed, run

REPO = Path(__file__).resolve().parents[2]


class Installation:
    """One virtual environment and the lock it follows."""

    def __init__(self, repo: Path = REPO) -> None:
        self.venv = repo / ".venv"
        self.requirements = repo / "requirements.txt"
        self.project = repo / "pyproject.toml"
        self.log = self.venv / "install.log"
        self.stamp = self.venv / ".installed"
        self.python = str(self.venv / "bin" / "python")

    @property
    def torch(self) -> str:
        return find_pin("torch", self.project)

    @property
    def requirements_digest(self) -> str:
        return hashlib.sha256(self.requirements.read_bytes() + self.torch.encode()).hexdigest()

    @property
    def is_current(self) -> bool:
        return self.stamp.exists() and self.stamp.read_text() == self.requirements_digest

    def list_steps(self, environ: Mapping[str, str] = os.environ) -> list[tuple[str, list[str]]]:
        """What has to be run, in order, each with a name a person can read."""
        pip = [self.python, "-m", "pip", "install", "--disable-pip-version-check"]
        index = ["--index-url", environ["TORCH_INDEX"]] if environ.get("TORCH_INDEX") else []
        uv = [str(self.venv / "bin" / "uv"), "pip", "install", "--python", self.python]
        return [
            ("Virtual environment", [sys.executable, "-m", "venv", str(self.venv)]),
            ("uv", [*pip, find_pin("uv", self.requirements)]),
            ("torch", [*pip, *index, self.torch]),
            ("Everything else", [*uv, "-r", str(self.requirements)]),
        ]

    def install(self) -> None:
        self.log.unlink(missing_ok=True)
        self.stamp.unlink(missing_ok=True)
        expected = self.requirements_digest  # as of now: the file may change while minutes pass
        for label, command in self.list_steps():
            seconds = run(label, command, self.log, say)
            say(f"{label}: done in {seconds:.0f} s")
        self.stamp.write_text(expected)
        self.log.unlink(missing_ok=True)


def find_pin(name: str, path: Path) -> str:
    """The one version of a package that a file names."""
    match = re.search(rf'^\W*({name}==[^\s;"]+)', path.read_text(), re.MULTILINE)
    if not match:
        raise SystemExit(f"{path.name} names no version of {name}; see `make lock`.")
    return match.group(1)


def say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    installation = Installation()
    if installation.is_current:
        return 0
    say("Installing the locked requirements into .venv (a few minutes the first time)")
    try:
        installation.install()
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
