"""The places at which `make prove-release` kills: which effects a process has, and what they are called."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from include.release.core.rollout import Route
from include.release.targets.local import envoy_routes
from tests.proofs.release_points import IS_SWITCH, noted

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import json, os, sys, http.client, xmlrpc.client
from pathlib import Path
from include.kernel.files import hold_lock, write_atomic
from tests.proofs.release_points import Effects, Point
place, fatal = Path(sys.argv[1]), json.loads(sys.argv[2])
sys.addaudithook(Effects(place / "tally", Point(*fatal) if fatal else None))
serving = place / "serving"
with hold_lock(serving / ".lock"):
    write_atomic(serving / "slots" / "blue.json", "{}")
write_atomic(serving / "route" / "routes.yaml", "version_info: 7.7-blue_first\\n")
write_atomic(place / "elsewhere.json", "{}")
"""
EFFECTS = [
    "lock",
    "open <slot>.json",
    "rename <slot>.json",
    "open routes.yaml",
    "rename routes.yaml, the switch",
]


def child(place: Path, fatal: list[object] | None = None) -> int:
    environment = {"EVERGREEN_SERVING_DIR": str(place / "serving"), "EVERGREEN_STORE": str(place / "store")}
    for name in ("serving/slots", "serving/route", "store"):
        (place / name).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", CHILD, str(place), json.dumps(fatal)]
    return subprocess.run(command, cwd=ROOT, env={**environment, "PATH": ""}, timeout=150).returncode


def test_every_effect_below_the_two_directories_is_noted_in_its_order_and_none_elsewhere(tmp_path):
    assert child(tmp_path) == 0
    found = noted(tmp_path / "tally")
    assert [effect.name for effect in found if not effect.name.startswith("mkdir")] == EFFECTS
    assert found[-1].route == "7.7-blue_first"


@pytest.mark.parametrize("effect", EFFECTS[1:])
def test_a_process_is_killed_before_its_effect(tmp_path, effect):
    assert child(tmp_path, [effect, 1]) == -9
    assert (tmp_path / "serving/slots/blue.json").exists() == (EFFECTS.index(effect) > 2)
    assert not (tmp_path / "serving/route/routes.yaml").exists()


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        (Route("blue", "green", 12, trial=12), True),
        (Route("green", None, 1, trial=1), True),
        (Route("blue", None, 12, trial=11), False),
        (Route("blue", None, 12), False),
        (Route("blue", None, 12, share=20, trial=11), False),
        (Route("blue", None, 112, trial=12), False),
    ],
)
def test_the_route_of_a_deployments_switch_is_told_from_all_others(route, expected):
    assert bool(IS_SWITCH.match(envoy_routes.build_label(route))) is expected
