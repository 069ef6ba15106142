"""Resolve pyproject.toml into the lock files: one environment for everything, and one for each image.

The job and server images must not carry Airflow, and none needs the tools of development, so their locks are resolved
from their groups alone, not from the project; all are held to the versions of the full lock, since what a job trains in
one image a server loads in another. A version that still fits stays; `make lock UPGRADE=1` looks for newer ones.

Every package stands there with the digests of all its files. The locks name no local build and no package for NVIDIA
cards: which torch a machine gets is the machine's affair. Images take the build without them, so it has a lock of its
own: it comes from another index, and only the two digests that pyproject.toml names count.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from include.embedded.configuration.settings import REPO

HEADER = "# Written by `make lock` from pyproject.toml; do not edit.\n"
ACCELERATOR = re.compile(r"^(nvidia-|cuda-|triton\b)")
REQUIREMENT = re.compile(r"^\w(?:.*\\\n)*.*$", re.MULTILINE)  # with the lines it is continued on
LOCAL = re.compile(r"(==[^\s+;]+)\+[A-Za-z0-9.]+")
DIGEST = re.compile(r"--hash=sha256:([0-9a-f]{64})")
QUIET = ("--quiet", "--no-annotate", "--no-header", "--no-emit-find-links", "--no-emit-index-url")


def main() -> int:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    builds = project["tool"]["evergreen"]["torch-cpu"]
    full = REPO / "requirements.txt"
    write(full, lock(full, ["pyproject.toml", "--all-extras"]), builds)
    for name, wanted in images(project).items():
        path = REPO / f"requirements.{name}.txt"
        write(path, lock(path, ["-", "--constraints", str(full)], "\n".join(wanted)), builds)
    (REPO / "requirements.torch.txt").write_text(HEADER + torch_alone(builds))
    return 0


def images(project: dict[str, Any]) -> dict[str, list[str]]:
    """What each image is asked to hold."""
    extras, groups = project["project"]["optional-dependencies"], project["dependency-groups"]
    every = [*project["project"]["dependencies"], *extras["job"], *extras["server"], *extras["embedded"]]
    return {"airflow": [*every, *groups["airflow-image"]], "job": extras["job"], "server": extras["server"]}


def lock(path: Path, sources: list[str], given: str = "") -> str:
    """The resolved requirements; versions of the lock at `path` are kept where they fit."""
    uv = Path(sys.executable).with_name("uv")
    upgrade = ["--upgrade"] if os.environ.get("UPGRADE") else []
    with tempfile.TemporaryDirectory() as place:
        made = Path(place, path.name)
        if path.exists():
            shutil.copy(path, made)
        told = ["--python-version", "3.11", "--generate-hashes", "--output-file", str(made), *QUIET, *upgrade]
        subprocess.run([str(uv), "pip", "compile", *sources, *told], cwd=REPO, input=given, text=True, check=True)
        return made.read_text()


def write(path: Path, resolved: str, builds: dict[str, Any]) -> None:
    path.write_text(HEADER + with_builds(portable(resolved), builds))


def portable(requirements: str) -> str:
    """Without local builds (`2.13.0+cpu` is on no index) and without a graphics card's libraries."""
    kept = [each for each in REQUIREMENT.findall(requirements) if not ACCELERATOR.match(each)]
    return "".join(LOCAL.sub(r"\1", each) + "\n" for each in kept)


def with_builds(requirements: str, builds: dict[str, Any]) -> str:
    """The same, with the digests of torch's builds without CUDA beside those of the index."""
    for each in REQUIREMENT.findall(requirements):
        if each.startswith("torch=="):
            return requirements.replace(
                each, _torch(each.split()[0], {*DIGEST.findall(each), *builds["sha256"]}, builds)
            )
    return requirements


def torch_alone(builds: dict[str, Any]) -> str:
    return _torch(f"torch=={builds['version']}", set(builds["sha256"]), builds) + "\n"


def _torch(requirement: str, digests: set[str], builds: dict[str, Any]) -> str:
    if requirement != f"torch=={builds['version']}":
        raise SystemExit(
            f"The lock has {requirement}, and pyproject.toml the digests of {builds['version']}: bring "
            "tool.evergreen.torch-cpu up to it, from https://download.pytorch.org/whl/cpu/torch/."
        )
    return " \\\n".join([requirement, *(f"    --hash=sha256:{digest}" for digest in sorted(digests))])


if __name__ == "__main__":
    sys.exit(main())
