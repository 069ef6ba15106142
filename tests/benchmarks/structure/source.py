"""The code of a checkout, read and never imported, so that any version of it can be measured by any other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

FOLDERS = ("include", "plugins")  # what is measured, below the checkout


@dataclass(frozen=True)
class Module:
    """One file: its dotted name as the project imports it, and its place relative to the checkout."""

    name: str
    path: PurePosixPath
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """As `wc -l` counts them."""
        return self.text.count("\n")

    @property
    def package(self) -> str:
        """What a relative import of one dot means here."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


def read_modules(root: Path) -> dict[str, Module]:
    """Every module of the measured folders by its name."""
    found = (_read_module(root, path) for folder in FOLDERS for path in sorted((root / folder).rglob("*.py")))
    return {module.name: module for module in found}


def list_imports(module: Module, known: dict[str, Module]) -> Iterator[tuple[str, str]]:
    """Each name an import binds and the dotted name it stands for; lazy and type-only imports as well."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname or alias.name in known:  # `import a.b` binds `a`; its dotted use is looked up whole
                    yield alias.asname or alias.name, alias.name
        elif isinstance(node, ast.ImportFrom):
            origin = _find_origin(module, node)
            for alias in node.names:
                yield alias.asname or alias.name, f"{origin}.{alias.name}"


def _read_module(root: Path, path: Path) -> Module:
    place = path.relative_to(root)
    dotted = place.relative_to("plugins") if place.parts[0] == "plugins" else place
    parts = dotted.parent.parts if place.name == "__init__.py" else dotted.with_suffix("").parts
    text = path.read_text(encoding="utf-8")
    return Module(".".join(parts), PurePosixPath(place), text, ast.parse(text, str(place)))


def _find_origin(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    steps = module.package.split(".")
    base = steps[: len(steps) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])
