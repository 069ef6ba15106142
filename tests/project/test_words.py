"""A word that one process writes and another reads is spelled in one module; who needs it imports it from there.

docs/adr/0023-words-between-processes.md says which, and where each goes from the real writer to the real reader.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evergreen.operators.rollout import _choose_outcome
from include.embedded.configuration.settings import EmbeddedSettings
from include.kernel.words import ledger_kinds, verdicts
from include.release.core.rollout import Step
from include.serving.settings import Settings
from include.serving.words import headers, recent, slot_metrics

ROOT = Path(__file__).resolve().parents[2]
OWNERS = sorted([*(ROOT / "include/kernel/words").glob("[!_]*.py"), *(ROOT / "include/serving/words").glob("[!_]*.py")])
SOURCES = sorted({*ROOT.glob("include/**/*.py"), *ROOT.glob("plugins/**/*.py"), *ROOT.glob("dags/**/*.py")} - {*OWNERS})
WORDS = {
    *ledger_kinds.KINDS,
    *(value for name, value in vars(headers).items() if name.isupper()),
    *(name for family in slot_metrics.FAMILIES for name in (family.name, *family.samples)),
    *(slot_metrics.STARTED, slot_metrics.RESIDENT, recent.PATH),
}
# an asset's name is the kind of entry that announces it; tests/project/test_docs.py reads the names off this file
SAID_TWICE = {("plugins/evergreen/assets.py", "drift.detected"), ("plugins/evergreen/assets.py", "model.blessed")}


def spelled(path: Path) -> Iterator[str]:
    """Literals of a module but for what documents it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            yield node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value


def test_no_word_is_spelled_outside_its_owner() -> None:
    found = {(str(path.relative_to(ROOT)), word) for path in SOURCES for word in spelled(path) if word in WORDS}
    tables = {(f"include/serving/{table}.py", recent.PATH) for table in ("transport/guard", "openapi/document")}
    assert found - tables == SAID_TWICE  # the server's own tables name each of its routes


@pytest.mark.parametrize("path", OWNERS, ids=lambda path: path.stem)
def test_an_owner_of_words_is_a_leaf(path: Path) -> None:
    """Whoever reads a server's words shall not pay for the server."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    told = f"import sys; known = {{*sys.modules}}; import {module}; print(*({{*sys.modules}} - known))"
    loaded = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    foreign = {name.split(".")[0] for name in loaded.split()} - {*sys.stdlib_module_names, "include"}
    ours = {name for name in loaded.split() if name.startswith("include.") and name.count(".") > 1}
    assert not foreign and all(name.split(".")[2] == "words" for name in ours)


def test_every_variable_that_is_handed_on_is_read_by_somebody() -> None:
    """Settings by their field, the slots' ports and the proxy's addresses by a name that is put together."""
    handing = [
        ROOT / "include/embedded/configuration/environment.py",
        ROOT / "docker-compose.yaml",
        ROOT / "Dockerfile",
    ]
    texts = [path.read_text() for path in (*handing, *ROOT.glob("k8s/**/*.yaml"))]
    handed = {name for text in texts for name in re.findall(r"EVERGREEN_[A-Z_]+[A-Z]", text)}
    sources = "\n".join(path.read_text() for path in SOURCES if path not in handing)
    fields = {f"EVERGREEN_{name.upper()}" for name in (*Settings.model_fields, *EmbeddedSettings.model_fields)}
    built = {f"EVERGREEN_{name}" for name in ("ENVOY_ADMIN_URL", "SERVING_URL")}
    supervisor = {"EVERGREEN_SUPERVISOR_PASSWORD"}  # docker/slots.conf
    assert len(handed) > 20
    assert {name for name in handed - fields - built - supervisor if not re.search(rf"\b{name}\b", sources)} == set()


def test_every_test_that_the_decision_names_exists() -> None:
    named = re.findall(r"`(\w+/test_\w+)`", (ROOT / "docs/adr/0023-words-between-processes.md").read_text())
    assert len(named) > 20 and [name for name in named if not (ROOT / "tests" / f"{name}.py").exists()] == []


def test_every_end_of_a_rollout_is_a_kind_that_readers_know() -> None:
    ends = [step for step in Step if step.is_terminal] + [Step.APPROVE]
    kinds = {ledger_kinds.name_outcome(_choose_outcome(step, {})) for step in ends}
    soaked = {verdicts.SOAKED: {"verdict": verdicts.Verdict.FAILED.value, "why": ""}}
    kinds.add(ledger_kinds.name_outcome(_choose_outcome(Step.REJECTED, soaked)))
    assert kinds == {f"release.{end}" for end in ("done", "rejected", "reverted", "superseded", "asked")}
