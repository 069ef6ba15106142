"""podman as far as a proof of the images needs it: a base without a registry, builds, containers.

The base is Debian by debootstrap, put in as a file. How pip reaches a package index is the builder's own affair: what
`pip config` says here goes into each build as a secret, certificates as another one, and directories of wheels are
mounted; none of it stays in an image, which `prove_images` looks for.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.embedded.stack.heartbeat import run as run_loudly

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = "bookworm"
PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
LEFTOVERS = ("./var/cache/apt/*", "./var/lib/apt/lists/*")
HANDED_ON = ("index-url", "extra-index-url", "find-links", "trusted-host", "proxy", "timeout")
# what every container of the server and the job gets: what Kubernetes' Pod Security `restricted` demands, and more
CONFINED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def missing() -> str | None:
    """One sentence about what this machine lacks, or None."""
    wanted = ["podman"] if os.environ.get("BASE_IMAGE") else ["podman", "debootstrap"]
    lacking = [name for name in wanted if shutil.which(name) is None]
    if lacking:
        return f"Install {' and '.join(lacking)} (apt-get install {' '.join(lacking)}) to build the images."
    if os.geteuid() and "debootstrap" in wanted:
        return "Be root, which debootstrap needs, or name a base image: make prove-images BASE_IMAGE=python:3.11-slim."
    return None


def podman(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["podman", *arguments], capture_output=True, text=True, timeout=timeout, cwd=ROOT)


def said(*arguments: str) -> str:
    """What podman prints; it must succeed."""
    done = podman(*arguments)
    assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@dataclass(frozen=True)
class Image:
    name: str
    seconds: float
    mb: int

    def run(self, *command: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return podman("run", "--rm", "--network", "none", *options, self.name, *command)

    def inspect(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(said("image", "inspect", self.name))[0]
        return found

    def healthcheck(self) -> list[str]:
        """Its test: CMD and the command. Empty without one; podman and Docker keep it in different places."""
        found = self.inspect()
        given = found.get("HealthCheck") or found.get("Healthcheck") or found["Config"].get("Healthcheck") or {}
        return [*given.get("Test", [""])]

    @contextmanager
    def running(self, *command: str, options: Sequence[str] = ()) -> Iterator[str]:
        """The id of a container in the background."""
        container = said("run", "--detach", *options, self.name, *command).splitlines()[-1]
        try:
            yield container
        finally:
            podman("rm", "--force", "--time", "20", container)


class Builder:
    """Builds stages of the Dockerfile on one base image; what it writes lies in `place`, logs among it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.log = place / "build.log"

    def base(self) -> Image:
        """BASE_IMAGE, or Debian as it comes from its mirror."""
        if given := os.environ.get("BASE_IMAGE"):
            return _image(given, 0.0)
        root, archive, name = self.place / "base", self.place / "base.tar", "localhost/evergreen-proof-base:latest"
        commands = [
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", DEBIAN, str(root)],
            [
                "tar",
                "-C",
                str(root),
                "--exclude=./var/cache/apt/*",
                "--exclude=./var/lib/apt/lists/*",
                "-cf",
                str(archive),
                ".",
            ],
            ["podman", "import", "--quiet", str(archive), name],
        ]
        seconds = sum(run_loudly("base", command, self.log, say) for command in commands)
        shutil.rmtree(root)
        archive.unlink()
        return _image(name, seconds)

    def build(self, stage: str, base: Image) -> Image:
        """One stage, in Docker's format: the other one has no HEALTHCHECK."""
        name = f"localhost/evergreen-proof-{stage}:latest"
        told = ["--format", "docker", "--network", "host", "--target", stage, "--tag", name]
        told += ["--build-arg", f"BASE_IMAGE={base.name}", *self._torch(), *self._pip(), str(ROOT)]
        return _image(name, run_loudly(stage, ["podman", "build", *told], self.log, say))

    def _torch(self) -> list[str]:
        index = os.environ.get("TORCH_INDEX")
        return [] if index is None else ["--build-arg", f"TORCH_INDEX={index}"]

    def _pip(self) -> list[str]:
        """This machine's settings of pip as a secret, its certificates as another, its wheels as directories."""
        settings, told = pip_settings(), []
        lines = [f"{name} = {value}" for name in HANDED_ON if (value := _for_a_container(settings.get(name, "")))]
        if certificates := settings.get("cert"):
            lines.append("cert = /run/secrets/ca")
            told += ["--secret", f"id=ca,src={certificates}"]
        (self.place / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))
        wheels = [word for word in settings.get("find-links", "").split() if Path(word).is_dir()]
        mounts = [word for place in wheels for word in ("--volume", f"{place}:{place}:ro")]
        return [*told, "--secret", f"id=pip,src={self.place / 'pip.conf'}", *mounts]


def pip_settings() -> Mapping[str, str]:
    """What `pip config` says here, by option; the environment counts more than files."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        found[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    return found


def _for_a_container(value: str) -> str:
    """Without indexes that are files of this machine."""
    return " ".join(word for word in value.split() if not word.startswith("file:"))


def _image(name: str, seconds: float) -> Image:
    size = int(said("image", "inspect", "--format", "{{.Size}}", name))
    made = Image(name, round(seconds, 1), round(size / 1e6))
    say(f"{name}: {made.mb} MB, {made.seconds:g} s")
    return made


def say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)
