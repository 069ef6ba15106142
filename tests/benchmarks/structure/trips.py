"""How far a reader travels who follows one job's request through the code, and how often back up a layer.

The reader starts in `run` of a job and follows one value, its parameter `request`, through the calls in the order in
which they run: what stands inside a call's brackets before the call itself. The definition, exactly:

* Followed is `request` and what is made of it: an attribute or item of a followed value, what it is packed into or
  calculated to (tuples, f-strings, operators, comprehensions), an object of the project built from it, what a library
  function makes of it, and what a function of the project returns where that is followed by the same rules. A name or
  attribute that is assigned a followed value is followed from there on.
* A call is entered when an argument or its receiver is followed, and a property with code when the object is. Each
  function is entered once. Nested functions and lambdas are read where they are written.
* The reader goes one file away from the job's own: what a function there calls in its own file is read, what it calls
  in a third file is taken at its word.
* Calls are resolved by imports, annotations and constructors (see resolve); a class means its `__init__` or
  `__post_init__`. Not entered: what cannot be resolved, abstract methods, methods of a Protocol, exceptions.

A stay is an unbroken stretch in one file; coming back to the caller is a stay of its own, because a reader goes back.
A move goes to another first-level folder below include/, a climb is a move to one that stands above the folder left in
ORDERS. Measured another way, the last code in layers had 30 stays in 15 files with 9 climbs for `ingest`, and 39
stays in 15 files with 10 climbs for `train`; this definition gives 35, 13 and 13, and 47, 14 and 10.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from tests.benchmarks.structure.names import Definition
from tests.benchmarks.structure.resolve import (
    Class,
    Function,
    Kind,
    Resolver,
    is_abstract,
    is_property,
    is_static,
)
from tests.benchmarks.structure.source import Module

VALUE = "request"
# The one-way order, top to bottom; what stands in one line is level. What is not named stands above all.
LAYERS = (("jobs", "serving", "embedded"), ("adapters",), ("model",), ("core",))
SLICES = tuple(
    (name,)
    for name in (
        *("retraining", "release", "training", "monitoring", "gate", "scoring", "serving", "feedback", "alerting"),
        *("data", "registry", "cluster", "model", "kernel"),
    )
)
PACKED = (ast.Tuple, ast.List, ast.Set, ast.Dict, ast.JoinedStr, ast.BoolOp, ast.BinOp)
HELD = (ast.Attribute, ast.Subscript, ast.Starred, ast.Await, ast.NamedExpr, ast.FormattedValue)


@dataclass(frozen=True)
class Trip:
    """`stays` are places relative to the checkout, in the order they are come to."""

    stays: tuple[str, ...]
    order: tuple[tuple[str, ...], ...]

    @property
    def files(self) -> int:
        return len(set(self.stays))

    @property
    def leaf_folders(self) -> int:
        return len({stay.rpartition("/")[0] for stay in self.stays})

    @property
    def folders(self) -> int:
        return len({read_folder(stay) for stay in self.stays})

    @property
    def folders_entered(self) -> int:
        return len(self._list_moves())

    @property
    def climbs(self) -> int:
        return sum(self._find_level(after) < self._find_level(before) for before, after in self._list_moves())

    def _list_moves(self) -> list[tuple[str, str]]:
        folders = [read_folder(stay) for stay in self.stays]
        return [(before, after) for before, after in pairwise(folders) if before != after]

    def _find_level(self, folder: str) -> int:
        return next((level for level, row in enumerate(self.order) if folder in row), -1)


def read_folder(place: str) -> str:
    """The first-level folder below include/; empty for a file that stands in include/ itself."""
    parts = place.split("/")[1:-1]
    return parts[0] if parts else ""


def take_trip(modules: dict[str, Module], job: str) -> Trip:
    """Raises `LookupError` where there is no such job."""
    names = [name for name in modules if re.fullmatch(rf"include(\.\w+)?\.jobs\.{job}", name)]
    resolver = Resolver(modules)
    start = resolver.find_symbol(modules[names[0]], "run") if len(names) == 1 else None
    if not isinstance(start, Function):
        raise LookupError(f"{len(names)} modules are the job {job!r}; one with a function `run` is needed.")
    walk = _Walk(resolver, start.module)
    walk.enter(start, frozenset({VALUE}))
    order = SLICES if any(name.startswith("include.kernel") for name in modules) else LAYERS
    return Trip(tuple(walk.stays), order)


class _Walk:
    """What has been entered so far, in order; and which calls return a followed value."""

    def __init__(self, resolver: Resolver, home: Module) -> None:
        self.resolver = resolver
        self.stays: list[str] = []
        self._home = home
        self._entered: set[Function] = set()
        self._returns: dict[tuple[Function, frozenset[str]], bool] = {}

    def enter(self, function: Function, followed: frozenset[str], caller: Function | None = None) -> None:
        if function in self._entered or not self._is_near(function, caller):
            return
        self._entered.add(function)
        self._stay(function)
        _Reader(self, function, followed, self.enter).read()
        if caller:
            self._stay(caller)

    def returns_followed(self, function: Function, followed: frozenset[str]) -> bool:
        """Read aside, without entering anything. A circle of calls returns nothing by itself."""
        key = (function, followed)
        if key not in self._returns:
            self._returns[key] = False
            reader = _Reader(self, function, followed, lambda *_: None)
            reader.read()
            self._returns[key] = reader.returns
        return self._returns[key]

    def _is_near(self, function: Function, caller: Function | None) -> bool:
        if is_abstract(function) or function.module.name.rpartition(".")[2] == "errors":
            return False
        return caller is None or caller.module is self._home or caller.module is function.module

    def _stay(self, function: Function) -> None:
        place = str(function.module.path)
        if self.stays[-1:] != [place]:
            self.stays.append(place)


class _Reader(ast.NodeVisitor):
    """Reads one function from top to bottom and knows at each line which of its names are followed."""

    def __init__(
        self,
        walk: _Walk,
        function: Function,
        followed: frozenset[str],
        enter: Callable[[Function, frozenset[str], Function], None],
    ) -> None:
        self.returns = False
        self._walk, self._resolver, self._function, self._enter = walk, walk.resolver, function, enter
        self._followed = {*followed}
        self._names = walk.resolver.read_parameters(function)

    def read(self) -> None:
        self._visit_all(self._function.node.body)

    # calls

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = self._find_call(node)
        if isinstance(called, Class):
            methods = (self._resolver.find_method(called, name) for name in ("__init__", "__post_init__"))
            called = next(filter(None, methods), None)
        if called and self._is_touched(node):
            self._enter(called, self._hand_over(called, node), self._function)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        kind = self._find_kind(node.value) if self._is_followed(node.value) else None
        found = self._resolver.find_method(kind.of, node.attr) if kind and kind.of else None
        if found and is_property(found.node):
            self._enter(found, frozenset({"self"}), self._function)

    def _is_touched(self, node: ast.Call) -> bool:
        receiver = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        return self._has_followed([*receiver, *node.args, *(word.value for word in node.keywords)])

    def _hand_over(self, function: Function, node: ast.Call) -> frozenset[str]:
        """The parameters that are followed inside."""
        arguments = function.node.args
        named = {each.arg for each in (*arguments.args, *arguments.kwonlyargs)}
        places = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
        handed = set()
        if function.owner and not is_static(function.node):
            places = places[1:]
            if isinstance(node.func, ast.Attribute) and self._is_followed(node.func.value):
                handed.add("self")
        for place, value in enumerate(node.args):
            if self._is_followed(value):
                rest = places[place:] if isinstance(value, ast.Starred) else places[place : place + 1]
                handed |= set(rest) or ({arguments.vararg.arg} if arguments.vararg else set())
        for word in node.keywords:
            if self._is_followed(word.value):
                other = {arguments.kwarg.arg} if arguments.kwarg else set()
                handed |= set(places) if word.arg is None else {word.arg} if word.arg in named else other
        return frozenset(handed)

    # what is followed

    def _is_followed(self, node: ast.expr | None) -> bool:
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in self._followed:
            return True
        if isinstance(node, HELD):
            return self._is_followed(node.value)
        if isinstance(node, PACKED):
            return self._has_followed(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))
        if isinstance(node, ast.IfExp):
            return self._has_followed([node.body, node.orelse])
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp):
            return self._is_followed(node.elt)
        if isinstance(node, ast.DictComp):
            return self._has_followed([node.key, node.value])
        return isinstance(node, ast.Call) and self._makes_followed(node)

    def _makes_followed(self, node: ast.Call) -> bool:
        called = self._find_call(node)
        if isinstance(called, Function):
            handed = self._hand_over(called, node)
            return bool(handed) and self._walk.returns_followed(called, handed)
        return self._is_touched(node)

    def _has_followed(self, nodes: Iterable[ast.expr]) -> bool:
        return any(self._is_followed(node) for node in nodes)

    def _find_call(self, node: ast.Call) -> Function | Class | None:
        return self._resolver.find_call(node, self._function.module, self._names)

    def _find_kind(self, node: ast.expr) -> Kind | None:
        return self._resolver.find_kind(node, self._function.module, self._names)

    # what binds names

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self._bind(target, node.value, self._find_kind(node.value))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)
        function = self._function
        kind = self._resolver.read_annotation(function.module, node.annotation, function.owner)
        self._bind(node.target, node.value, kind)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        self._bind(node.target, node.value, None)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self._bind(node.target, node.value, self._find_kind(node.value))

    def visit_withitem(self, node: ast.withitem) -> None:
        self.visit(node.context_expr)
        if node.optional_vars:
            kind = self._find_kind(node.context_expr)  # a context manager made of a generator yields its item
            self._bind(node.optional_vars, node.context_expr, (kind and kind.item) or kind)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self._bind_item(node)
        self._visit_all([*node.body, *node.orelse])

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self.visit_For(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._bind_item(node)
        self._visit_all(node.ifs)

    def _visit_comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        """The loops before what they yield, although that is written first."""
        self._visit_all(node.generators)
        self._visit_all([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _visit_comprehension

    def visit_FunctionDef(self, node: Definition) -> None:
        returns = self.returns
        self._names |= self._resolver.read_parameters(Function(self._function.module, node, node.name))
        self._visit_all(node.body)
        self.returns = returns

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Return(self, node: ast.Return | ast.Yield | ast.YieldFrom) -> None:
        self.generic_visit(node)
        self.returns = self.returns or self._is_followed(node.value)

    visit_Yield = visit_YieldFrom = visit_Return

    def _visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def _bind_item(self, node: ast.For | ast.AsyncFor | ast.comprehension) -> None:
        self.visit(node.iter)
        kind = self._find_kind(node.iter)
        self._bind(node.target, node.iter, kind.item if kind else None)

    def _bind(self, target: ast.expr, value: ast.expr | None, kind: Kind | None) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
                for part, each in zip(target.elts, value.elts, strict=True):
                    self._bind(part, each, self._find_kind(each))
            else:
                for part in target.elts:
                    self._bind(part, value, kind.item if kind else None)
        if isinstance(target, ast.Name) and kind:
            self._names[target.id] = kind
        if isinstance(target, ast.Name | ast.Attribute) and self._is_followed(value):
            self._followed.add(ast.unparse(target))
