"""Functions whose names do not begin with a verb, since a call that reads as a noun hides that work is done.

The verbs are the committed list beside the benchmark. Leading underscores do not count, and nested functions are
measured like all others. Exempt: properties and their setters, dunders, and in a class with a base the names of HOOKS,
which a library looks up and nobody could choose. Validators of pydantic have names of our own and count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.structure.source import Module

Definition = ast.FunctionDef | ast.AsyncFunctionDef
PROPERTIES = {"property", "cached_property", "computed_field", "setter", "deleter"}
PROTOCOL = "asyncio calls it on a protocol"
PARSER = "httptools calls it while it parses"
HOOKS = {  # name: who looks it up
    "buffer_updated": PROTOCOL,
    "connection_lost": PROTOCOL,
    "connection_made": PROTOCOL,
    "data_received": PROTOCOL,
    "eof_received": PROTOCOL,
    "on_body": PARSER,
    "on_headers_complete": PARSER,
    "on_message_begin": PARSER,
    "on_message_complete": PARSER,
    "on_kill": "Airflow calls it on an operator or a trigger that is cleared",
    "release": "Optuna calls it on the lock of a journal",
    "on_tick": "uvicorn calls it on a server every tenth of a second",
    "lookup_path": "Starlette calls it on StaticFiles",
}


@dataclass(frozen=True)
class Named:
    """A function that is measured, and where it stands."""

    name: str
    place: str
    line: int


def read_verbs(path: Path) -> frozenset[str]:
    """Verbs, and with a leading `!` whole names that open with one and mean a thing; after `#` comes a remark."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines for word in line.partition("#")[0].split())


def list_functions(modules: Iterable[Module]) -> list[Named]:
    """Every function that has to begin with a verb, in the order of files and lines."""
    found = [Named(node.name, str(module.path), node.lineno) for module in modules for node in _walk(module.tree)]
    return sorted(found, key=lambda function: (function.place, function.line))


def has_verb(name: str, verbs: frozenset[str]) -> bool:
    bare = name.strip("_")
    return bare.partition("_")[0].lower() in verbs and f"!{bare}" not in verbs


def _walk(tree: ast.Module) -> Iterator[Definition]:
    derived = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.bases)
    hooks = {id(node) for cls in derived for node in cls.body if getattr(node, "name", "") in HOOKS}
    for node in ast.walk(tree):
        if isinstance(node, Definition) and not _is_exempt(node) and id(node) not in hooks:
            yield node


def _is_exempt(node: Definition) -> bool:
    if node.name.startswith("__") and node.name.endswith("__"):
        return True
    return any(read_decorator(decorator) in PROPERTIES for decorator in node.decorator_list)


def read_decorator(node: ast.expr) -> str:
    """The last word of a decorator: `cached_property` of `@functools.cached_property`."""
    called = node.func if isinstance(node, ast.Call) else node
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
