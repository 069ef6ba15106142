"""Resolve pyproject.toml into the lock files: one environment for everything, and two slim ones for the images.

The job and server images must not carry Airflow, so their locks are resolved from those groups alone, not from the
project; both are held to the versions of the full lock, since what a job trains in one image a server loads in another.
The locks name no local build and no package for NVIDIA cards: which torch a machine gets is the machine's affair.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from include.embedded.settings import REPO

HEADER = "# Written by `make lock` from pyproject.toml; do not edit.\n"
ACCELERATOR = re.compile(r"^(nvidia-|cuda-|triton\b)")
QUIET = ("--no-annotate", "--no-header", "--no-emit-find-links", "--no-emit-index-url")
SLIM = ("job", "server")


def main() -> int:
    full = REPO / "requirements.txt"
    full.write_text(lock(["pyproject.toml", "--all-extras"]))
    extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in SLIM:
        text = lock(["-", "--constraints", str(full)], "\n".join(extras[name]))
        (REPO / f"requirements.{name}.txt").write_text(text)
    return 0


def lock(sources: list[str], given: str = "") -> str:
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "compile", *sources, "--python-version", "3.11", *QUIET]
    resolved = subprocess.run(command, cwd=REPO, input=given, stdout=subprocess.PIPE, text=True, check=True)
    return HEADER + portable(resolved.stdout)


def portable(requirements: str) -> str:
    """Without local builds (`2.13.0+cpu` is on no index) and without a graphics card's libraries."""
    lines = [line for line in requirements.splitlines() if not ACCELERATOR.match(line)]
    return "\n".join(re.sub(r"(==[^\s+;]+)\+[A-Za-z0-9.]+", r"\1", line) for line in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
