"""`make reconcile` where nothing runs: it says so, changes nothing, and ends with the code for what is away."""

from __future__ import annotations

import os
import subprocess
import sys

from include.embedded.commands.reconcile import EXIT_AWAY
from tests.ground import PORTS, free_ports


def test_without_a_stack_nothing_disagrees_and_nothing_is_written(tmp_path):
    ports = {f"EVERGREEN_{name.upper()}": str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)}
    place = {**os.environ, **ports, "EVERGREEN_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "include.embedded.commands.reconcile"]
    told = subprocess.run(command, env=place, capture_output=True, text=True)
    assert told.returncode == EXIT_AWAY, told.stderr
    assert told.stdout == "empty: nothing disagrees; the registry is away and was not compared\n"
    assert not (tmp_path / "serving").exists() and not (tmp_path / "store").exists()
