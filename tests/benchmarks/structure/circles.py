"""Modules that import each other in a circle, since a reader of one of them has to know them all.

Every import counts, wherever it stands: at the top, inside a function, under TYPE_CHECKING. `from a import b` is an
import of `a.b` where that is a module, otherwise of `a`. That a package's `__init__` runs first is not counted.
"""

from __future__ import annotations

from tests.benchmarks.structure.source import Module, list_imports


def map_imports(modules: dict[str, Module]) -> dict[str, set[str]]:
    """The project's own modules that each module imports."""
    graph: dict[str, set[str]] = {}
    for module in modules.values():
        aims = (_find_module(dotted, modules) for _, dotted in list_imports(module, modules))
        graph[module.name] = {aim for aim in aims if aim and aim != module.name}
    return graph


def find_circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module, the largest first."""
    reached = {start: _reach(graph, start) for start in graph}
    circles = {
        tuple(sorted({start, *(other for other in reached[start] if start in reached[other])}))
        for start in graph
        if start in reached[start]
    }
    return sorted(map(list, circles), key=lambda circle: (-len(circle), circle))


def _find_module(dotted: str, modules: dict[str, Module]) -> str | None:
    if dotted in modules:
        return dotted
    origin = dotted.rpartition(".")[0]
    return origin if origin in modules else None


def _reach(graph: dict[str, set[str]], start: str) -> set[str]:
    """All modules that `start` needs; itself only where a way leads back."""
    reached: set[str] = set()
    waiting = [*graph[start]]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting.extend(graph[module])
    return reached
