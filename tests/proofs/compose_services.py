"""Services of docker-compose.yaml as arguments of podman: what the file says is what runs, but for the network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:?[-?])([^}]*))?\})")


def services(values: Mapping[str, str]) -> dict[str, Any]:
    """The services with their variables filled in."""
    found: dict[str, Any] = _each(yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"], values)
    return found


def _each(part: Any, values: Mapping[str, str]) -> Any:
    """Texts are filled in after the file is read, so that a value of digits stays a text."""
    if isinstance(part, dict):
        return {name: _each(value, values) for name, value in part.items()}
    if isinstance(part, list):
        return [_each(value, values) for value in part]
    return filled(part, values) if isinstance(part, str) else part


def filled(text: str, values: Mapping[str, str]) -> str:
    """Interpolated as Compose does: https://docs.docker.com/reference/compose-file/interpolation/.

    Raises `KeyError` for a variable that is demanded and not among the values.
    """

    def value(found: re.Match[str]) -> str:
        dollar, name, kind, other = found.groups()
        if dollar:
            return "$"
        if values.get(name) or (name in values and kind == "-"):
            return values[name]
        if kind and kind.endswith("?"):
            raise KeyError(f"{name}: {other}")
        return other or ""

    return VARIABLE.sub(value, text)


def options(service: Mapping[str, Any], volumes: Mapping[str, Path]) -> list[str]:
    """Its environment and mounts; named volumes are directories given by name."""
    told = [word for name, value in service.get("environment", {}).items() for word in ("--env", f"{name}={value}")]
    for volume in service.get("volumes", ()):
        source, target, *mode = volume.split(":")
        place = ROOT / source if source.startswith(".") else volumes[source]
        told += ["--volume", ":".join([str(place.resolve()), target, *mode])]
    return told


def health(service: Mapping[str, Any]) -> list[str]:
    """The command of its healthcheck."""
    kind, *command = service["healthcheck"]["test"]
    return ["sh", "-c", *command] if kind == "CMD-SHELL" else command
