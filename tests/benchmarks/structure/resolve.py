"""What a name, an attribute or a call means, as far as annotations, imports and constructors say it.

Enough to follow a reader's way and no type checker: a value has a `Kind`, the project's class it is of, or the class of
its items. What cannot be told is None, and is not followed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.benchmarks.structure.names import PROPERTIES, Definition, read_decorator
from tests.benchmarks.structure.source import Module, list_imports

MAPPINGS = {"dict", "Mapping", "MutableMapping", "defaultdict", "OrderedDict"}
COLLECTIONS = {"list", "tuple", "set", "frozenset", "Sequence", "Iterable", "Iterator", "Collection", "Generator"}
SAME = {"closing", "iter", "list", "reversed", "sorted", "tuple"}  # what they return is of the kind of what they take
ONE = {"max", "min", "next"}  # an item of what they take
WRAPPERS = {"Annotated", "ClassVar", "Final", "Optional", "Required", "NotRequired", "Awaitable"}


@dataclass(frozen=True)
class Class:
    module: Module
    node: ast.ClassDef = field(compare=False)
    name: str


@dataclass(frozen=True)
class Function:
    """`owner` is the class whose method it is."""

    module: Module
    node: Definition = field(compare=False)
    name: str
    owner: Class | None = None


@dataclass(frozen=True)
class Kind:
    """A value of a class, the class itself (`is_type`), or a collection of values of one kind (`item`)."""

    of: Class | None = None
    item: Kind | None = None
    is_type: bool = False


Symbol = Class | Function | Module
Locals = dict[str, Kind]


class Resolver:
    def __init__(self, modules: dict[str, Module]) -> None:
        self.modules = modules
        self._symbols: dict[str, dict[str, Symbol | str]] = {}
        self._busy: set[tuple[str, str, str]] = set()

    def find_symbol(self, module: Module, name: str, depth: int = 0) -> Symbol | None:
        """What a name means at the top of a module, through imports and re-exports."""
        found = self._list_symbols(module).get(name)
        return self.find_dotted(found, depth + 1) if isinstance(found, str) else found

    def find_dotted(self, dotted: str, depth: int = 0) -> Symbol | None:
        if dotted in self.modules:
            return self.modules[dotted]
        origin, _, name = dotted.rpartition(".")
        return self.find_symbol(self.modules[origin], name, depth) if origin in self.modules and depth < 9 else None

    def find_method(self, owner: Class, name: str) -> Function | None:
        """Of the class itself, or the nearest of its bases that are the project's own."""
        for cls in self.list_bases(owner):
            for node in cls.node.body:
                if isinstance(node, Definition) and node.name == name:
                    return Function(cls.module, node, f"{cls.name}.{name}", cls)
        return None

    def list_bases(self, owner: Class) -> Iterator[Class]:
        """The class, then the project's classes it is built on."""
        yield owner
        for base in owner.node.bases:
            found = self._find_expression(owner.module, base.value if isinstance(base, ast.Subscript) else base)
            if isinstance(found, Class) and found != owner:
                yield from self.list_bases(found)

    def read_annotation(self, module: Module, node: ast.expr | None, owner: Class | None = None) -> Kind | None:
        match node:
            case ast.Constant(value=str() as text):
                return self.read_annotation(module, ast.parse(text, mode="eval").body, owner)
            case ast.Name(id="Self") if owner:
                return Kind(owner)
            case ast.Name() | ast.Attribute():
                found = self._find_expression(module, node)
                return Kind(found) if isinstance(found, Class) else None
            case ast.BinOp(left=left, right=right):
                return self.read_annotation(module, left, owner) or self.read_annotation(module, right, owner)
            case ast.Subscript(value=base, slice=inner):
                return self._read_generic(module, ast.unparse(base).rpartition(".")[2], inner, owner)
        return None

    def find_attribute(self, owner: Class, name: str) -> Kind | None:
        """The kind of a field, a property, or what a method stores in `self`."""
        for cls in self.list_bases(owner):
            busy = (cls.module.name, cls.name, name)
            if busy in self._busy:
                return None
            self._busy.add(busy)
            try:
                if kind := self._find_own_attribute(cls, name):
                    return kind
            finally:
                self._busy.discard(busy)
        return None

    def find_kind(self, node: ast.expr, module: Module, names: Locals) -> Kind | None:
        """Of the value of an expression, where the names of a function mean what `names` says."""
        match node:
            case ast.Name(id=name):
                found = names.get(name) or self.find_symbol(module, name)
                return Kind(found, is_type=True) if isinstance(found, Class) else self._take_kind(found)
            case ast.Attribute(value=value, attr=attr):
                kind = self.find_kind(value, module, names)
                if kind and kind.of:
                    return self.find_attribute(kind.of, attr)
                found = self._find_expression(module, node)
                return Kind(found, is_type=True) if isinstance(found, Class) else None
            case ast.Call():
                return self._find_result(node, module, names)
            case ast.Await(value=value) | ast.NamedExpr(value=value) | ast.Starred(value=value):
                return self.find_kind(value, module, names)
            case ast.Subscript(value=value, slice=place):
                kind = self.find_kind(value, module, names)
                return kind if not kind or isinstance(place, ast.Slice) else kind.item
            case ast.IfExp(body=first, orelse=second):
                return self.find_kind(first, module, names) or self.find_kind(second, module, names)
            case ast.BoolOp(values=values):
                return next(filter(None, (self.find_kind(value, module, names) for value in values)), None)
            case ast.List(elts=values) | ast.Tuple(elts=values) | ast.Set(elts=values):
                item = next(filter(None, (self.find_kind(value, module, names) for value in values)), None)
                return Kind(item=item) if item else None
        return None

    def find_call(self, node: ast.Call, module: Module, names: Locals) -> Function | Class | None:
        """What a call calls: a function or method of the project, or a class of it."""
        match node.func:
            case ast.Name(id=name):
                found: object = names.get(name) or self.find_symbol(module, name)
                if isinstance(found, Kind):
                    return found.of if found.is_type else None
                return found if isinstance(found, Function | Class) else None
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=attr) if "self" in names:
                return self._find_super(names["self"].of, attr)
            case ast.Attribute(value=value, attr=attr):
                kind = self.find_kind(value, module, names)
                if kind and kind.of:
                    return self.find_method(kind.of, attr)
                found = self._find_expression(module, node.func)
                return found if isinstance(found, Function | Class) else None
        return None

    def _list_symbols(self, module: Module) -> dict[str, Symbol | str]:
        if module.name not in self._symbols:
            table: dict[str, Symbol | str] = dict(list_imports(module, self.modules))
            for node in module.tree.body:
                if isinstance(node, Definition):
                    table[node.name] = Function(module, node, node.name)
                elif isinstance(node, ast.ClassDef):
                    table[node.name] = Class(module, node, node.name)
            self._symbols[module.name] = table
        return self._symbols[module.name]

    def _find_expression(self, module: Module, node: ast.expr) -> Symbol | None:
        """A dotted name that stands for a module, a function or a class."""
        if isinstance(node, ast.Name):
            return self.find_symbol(module, node.id)
        if not isinstance(node, ast.Attribute):
            return None
        base = self._find_expression(module, node.value)
        if isinstance(base, Module):
            return self.find_symbol(base, node.attr) or self.modules.get(f"{base.name}.{node.attr}")
        return self.find_method(base, node.attr) if isinstance(base, Class) else None

    def _read_generic(self, module: Module, name: str, inner: ast.expr, owner: Class | None) -> Kind | None:
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if name in WRAPPERS:
            return self.read_annotation(module, parts[0], owner)
        if name not in MAPPINGS | COLLECTIONS:
            return None
        item = self.read_annotation(module, parts[-1] if name in MAPPINGS else parts[0], owner)
        return Kind(item=item) if item else None

    def _find_own_attribute(self, cls: Class, name: str) -> Kind | None:
        for node in cls.node.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
                return self.read_annotation(cls.module, node.annotation, cls)
            if isinstance(node, Definition) and node.name == name and is_property(node):
                return self.read_annotation(cls.module, node.returns, cls)
        for method in (node for node in cls.node.body if isinstance(node, Definition)):
            names = self.read_parameters(Function(cls.module, method, method.name, cls))
            for stored in ast.walk(method):
                if isinstance(stored, ast.AnnAssign) and _is_own(stored.target, name):
                    return self.read_annotation(cls.module, stored.annotation, cls)
                if isinstance(stored, ast.Assign) and any(_is_own(target, name) for target in stored.targets):
                    return self.find_kind(stored.value, cls.module, names)
        return None

    def read_parameters(self, function: Function) -> Locals:
        """The kinds of a function's parameters, `self` and `cls` among them."""
        found: Locals = {}
        arguments = function.node.args
        for parameter in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if kind := self.read_annotation(function.module, parameter.annotation, function.owner):
                found[parameter.arg] = kind
        if function.owner:
            found |= {"self": Kind(function.owner), "cls": Kind(function.owner, is_type=True)}
        return found

    def _find_result(self, node: ast.Call, module: Module, names: Locals) -> Kind | None:
        called = self.find_call(node, module, names)
        if isinstance(called, Class):
            return Kind(called)
        if called:
            return self.read_annotation(called.module, called.node.returns, called.owner)
        name = node.func.id if isinstance(node.func, ast.Name) and node.args else ""
        kind = self.find_kind(node.args[0], module, names) if name in SAME | ONE else None
        return kind.item if kind and name in ONE else kind

    def _find_super(self, owner: Class | None, name: str) -> Function | None:
        bases = list(self.list_bases(owner))[1:] if owner else []
        return next(filter(None, (self.find_method(base, name) for base in bases)), None)

    @staticmethod
    def _take_kind(found: object) -> Kind | None:
        return found if isinstance(found, Kind) else None


def is_property(node: Definition) -> bool:
    return any(read_decorator(decorator) in PROPERTIES for decorator in node.decorator_list)


def is_static(node: Definition) -> bool:
    return any(read_decorator(decorator) == "staticmethod" for decorator in node.decorator_list)


def is_abstract(function: Function) -> bool:
    """Whether nothing is written there: an abstract method, or one of a Protocol."""
    if any(read_decorator(decorator) == "abstractmethod" for decorator in function.node.decorator_list):
        return True
    bases = function.owner.node.bases if function.owner else []
    return any("Protocol" in ast.unparse(base) for base in bases)


def _is_own(target: ast.expr, name: str) -> bool:
    return isinstance(target, ast.Attribute) and target.attr == name and ast.unparse(target.value) == "self"
