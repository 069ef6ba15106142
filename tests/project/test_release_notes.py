"""A tag becomes a release only when version and changelog agree with it; else one sentence says what to do."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").exists())
SCRIPT = ROOT / ".github/release_notes.py"
PYPROJECT = '[project]\nname = "evergreen"\nversion = "0.2.0"\n'
CHANGELOG = """# Changelog

## [Unreleased]

- not yet

## [0.2.0] - 2026-12-24

### Added

- a house with rooms

## [0.1.0] - 2026-08-01

- a house
"""


@pytest.fixture(scope="module")
def release_notes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release_notes", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notes_are_the_section_of_the_tag_and_no_other(release_notes: ModuleType) -> None:
    assert release_notes.read_notes("v0.2.0", PYPROJECT, CHANGELOG) == "### Added\n\n- a house with rooms"


def test_the_last_section_of_the_file_is_whole(release_notes: ModuleType) -> None:
    older = PYPROJECT.replace("0.2.0", "0.1.0")
    assert release_notes.read_notes("v0.1.0", older, CHANGELOG.rstrip("\n")) == "- a house"


@pytest.mark.parametrize(
    ("tag", "changelog", "sentence"),
    [
        ("v0.3.0", CHANGELOG, r"The tag is v0\.3\.0, and pyproject\.toml says 0\.2\.0"),
        ("0.2.0", CHANGELOG, r"tag v0\.2\.0, or change the version"),
        ("v0.2.0", CHANGELOG.replace("[0.2.0]", "[0.2.1]"), r"no section `## \[0\.2\.0\]"),
        ("v0.2.0", CHANGELOG.replace("2026-12-24", "unreleased"), r"dates 0\.2\.0 as 'unreleased'"),
        ("v0.2.0", CHANGELOG.replace("### Added\n\n- a house with rooms\n", ""), r"0\.2\.0 in CHANGELOG\.md is empty"),
    ],
)
def test_a_tag_that_is_not_ready_is_refused(release_notes: ModuleType, tag: str, changelog: str, sentence: str) -> None:
    with pytest.raises(release_notes.NotReady, match=sentence):
        release_notes.read_notes(tag, PYPROJECT, changelog)


def test_the_command_says_why_and_fails() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "v99.0.0"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert "The tag is v99.0.0" in done.stderr
