"""The identity of code: one sha256 over every module of ours that can have a part in what a job makes.

Those are found by following the imports from the job's own module, lazy and type-only ones counted, so a file that is
moved, renamed or newly imported enters by itself and nobody keeps a list of folders. Each file enters under its path
and with its bytes: a change of a line, of a name or of a place is another identity.

The trade-off: a changed comment is another identity too. What that costs is one training more; what the other error
costs is a model that claims to be of code it is not of.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from include.kernel.errors import Permanent

ROOT = Path(__file__).resolve().parents[2]

INGESTING = ("include.data.jobs.ingest", "include.data.jobs.validate")
TRAINING = ("include.training.jobs.train",)
JUDGING = ("include.gate.jobs.evaluate", "include.training.jobs.train")
BACKTESTING = ("include.training.jobs.backtest",)
PROFILING = ("include.monitoring.jobs.profile",)


@cache
def compute_code_digest(*entries: str, root: Path = ROOT) -> str:
    """sha256, hex, over the modules that the `entries` (dotted names) import below `root`, and over themselves."""
    total = hashlib.sha256()
    for path in sorted(find_imported_files(entries, root)):
        total.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def digest_training_code(features: str | None) -> str:
    """Of the code that trains; the project's own feature function (`module:function`) is part of it.

    Raises `Permanent` when that module is not there.
    """
    try:
        return compute_code_digest(*TRAINING, *([features.partition(":")[0]] if features else []))
    except ModuleNotFoundError as error:
        raise Permanent(f"The feature function {features!r} cannot be imported: {error}") from error


def find_imported_files(entries: tuple[str, ...], root: Path = ROOT) -> set[Path]:
    """The files of the project that are loaded with `entries`, at once or later. Raises `ModuleNotFoundError`."""
    found: set[Path] = set()
    waiting = list(entries)
    for entry in entries:
        if not _find_files(entry, root):
            raise ModuleNotFoundError(f"There is no module {entry} below {root}.", name=entry)
    while waiting:
        for path in _find_files(waiting.pop(), root) - found:
            found.add(path)
            waiting.extend(_list_imports(path.read_bytes(), path.relative_to(root).parent.parts))
    return found


def list_foreign_imports(paths: Iterable[Path], root: Path = ROOT) -> set[str]:
    """The top-level names, other than the project's own, that these files import."""
    named = {name for path in paths for name in _list_imports(path.read_bytes(), path.relative_to(root).parent.parts)}
    return {name.partition(".")[0] for name in named if not _find_files(name.partition(".")[0], root)}


def _find_files(module: str, root: Path) -> set[Path]:
    """The module's own file and those of the packages it stands in; none where it is not the project's."""
    parts = module.split(".")
    own = root.joinpath(*parts)
    files = {own.with_suffix(".py"), own / "__init__.py"}
    if not any(path.is_file() for path in files):
        return set()
    packages = {root.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts))}
    return {path for path in files | packages if path.is_file()}


@cache
def _list_imports(code: bytes, package: tuple[str, ...]) -> frozenset[str]:
    """`from a import b` may mean the module a.b, so both are named; dots in front count from the `package`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            found.update((module, *(f"{module}.{alias.name}" for alias in node.names)))
    return frozenset(found)
