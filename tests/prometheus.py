"""Prometheus' own tools, where the machine has them: Debian's packages bring promtool, prometheus and amtool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

INSTALL = "is not installed: apt-get install prometheus prometheus-alertmanager brings it"


def tool(name: str) -> str:
    """Its path; the test is skipped where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} {INSTALL}")
    return found


def said(name: str, *arguments: str | Path) -> str:
    """What the tool prints; it must succeed."""
    ended = subprocess.run([tool(name), *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout + ended.stderr
