"""How much there is to read: lines, modules a folder, lines a module, and which of them the ADR excuses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.structure.source import Module

EXCUSES = Path("docs/adr/0030-limits-of-modules.md")
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXCUSE = re.compile(r"^(?P<path>[\w./-]+): +(?P<reason>\S.*)$")


def count_lines(modules: Iterable[Module]) -> int:
    return sum(module.lines for module in modules)


def count_modules(modules: Iterable[Module]) -> Counter[str]:
    """Modules by folder. An `__init__.py` is the folder itself and does not count."""
    return Counter(str(module.path.parent) for module in modules if module.path.name != "__init__.py")


def read_excuses(root: Path) -> dict[str, str]:
    """Folders and modules that may be larger, each with its reason: lines `path: reason` in a fence of the ADR."""
    page = root / EXCUSES
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    lines = (line for fence in FENCE.findall(text) for line in fence.splitlines())
    return {match["path"].rstrip("/"): match["reason"] for match in map(EXCUSE.match, lines) if match}
