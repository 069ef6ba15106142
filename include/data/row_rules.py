"""Rules across columns, such as `Amount <= Price`: a tiny language, parsed once and never executed as code.

Python's own parser reads the text, and everything but comparisons, `and`, `or`, `not`, plus, minus, times, numbers,
texts and column names is refused, so a manifest cannot call anything. There is no division: `a / b <= 2` is
`a <= 2 * b` without the question what a zero does. An engine evaluates the tree by its own operators; what a missing
cell means is decided here for all of them: a row that misses one of the named cells is not judged.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ARITHMETIC: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
COMPARISONS: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
CONNECTIVES: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {ast.And: operator.and_, ast.Or: operator.or_}
EQUALITY = (operator.eq, operator.ne)


@dataclass(frozen=True)
class Column:
    name: str


@dataclass(frozen=True)
class Literal:
    value: float | str


@dataclass(frozen=True)
class Binary:
    operate: Callable[[Any, Any], Any]
    left: Node
    right: Node


@dataclass(frozen=True)
class Not:
    inner: Node


Node = Column | Literal | Binary | Not


def parse(text: str) -> Node:
    """The tree of one rule. Raises `ValueError` that quotes what is not understood."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{text!r} is no rule ({error.msg}); write one like 'Amount <= Price'") from error
    return _parse_condition(tree, text)


def list_columns(node: Node) -> tuple[str, ...]:
    """The columns a rule names, each once, in the order of their first appearance."""
    return tuple(dict.fromkeys(_iterate_names(node)))


def check_kinds(node: Node, kinds: Mapping[str, str]) -> None:
    """Raises `ValueError` when a rule names an undeclared column, or compares a number with a text."""
    unknown = [name for name in list_columns(node) if name not in kinds]
    if unknown:
        raise ValueError(f"there is no column {unknown[0]!r} in the contract")
    _infer_kind(node, kinds)


def evaluate(node: Node, cell: Callable[[str], Any]) -> Any:
    """The rule in an engine's own terms; `cell` gives its expression (or series) for a column."""
    match node:
        case Column(name):
            return cell(name)
        case Literal(value):
            return value
        case Not(inner):
            return ~evaluate(inner, cell)
        case Binary(operate, left, right):
            return operate(evaluate(left, cell), evaluate(right, cell))


def _parse_condition(tree: ast.expr, text: str) -> Node:
    match tree:
        case ast.BoolOp(op, values):
            return _join_nodes(CONNECTIVES[type(op)], [_parse_condition(value, text) for value in values])
        case ast.UnaryOp(ast.Not(), operand):
            return Not(_parse_condition(operand, text))
        case ast.Compare(left, ops, comparators):
            return _parse_comparison([left, *comparators], ops, text)
    raise ValueError(f"{ast.unparse(tree)!r} in {text!r} compares nothing; write a rule like 'Amount <= Price'")


def _parse_comparison(values: list[ast.expr], ops: list[ast.cmpop], text: str) -> Node:
    """`0 < a < b` means `0 < a and a < b`."""
    unknown = [op for op in ops if type(op) not in COMPARISONS]
    if unknown:
        raise ValueError(f"a rule knows < <= > >= == !=, and not {type(unknown[0]).__name__!r}, as in {text!r}")
    nodes = [_parse_value(value, text) for value in values]
    pairs = zip(ops, nodes, nodes[1:], strict=False)
    return _join_nodes(operator.and_, [Binary(COMPARISONS[type(op)], left, right) for op, left, right in pairs])


def _join_nodes(operate: Callable[[Any, Any], Any], nodes: list[Node]) -> Node:
    first, *rest = nodes
    for node in rest:
        first = Binary(operate, first, node)
    return first


def _parse_value(tree: ast.expr, text: str) -> Node:
    match tree:
        case ast.Name(name):
            return Column(name)
        case ast.Call(ast.Name("col"), [ast.Constant(str(name))], []):
            return Column(name)
        case ast.Constant(bool()):
            pass
        case ast.Constant(int(value) | float(value)):
            return Literal(float(value))
        case ast.Constant(str(value)):
            return Literal(value)
        case ast.UnaryOp(ast.USub(), operand):
            return Binary(operator.mul, Literal(-1.0), _parse_value(operand, text))
        case ast.BinOp(left, op, right) if type(op) in ARITHMETIC:
            return Binary(ARITHMETIC[type(op)], _parse_value(left, text), _parse_value(right, text))
    raise ValueError(
        f"{ast.unparse(tree)!r} in {text!r} is not allowed: a rule knows columns, numbers, texts, + - * and "
        "comparisons; write col('a name') for a column whose name is no plain word"
    )


def _iterate_names(node: Node) -> Iterator[str]:
    match node:
        case Column(name):
            yield name
        case Not(inner):
            yield from _iterate_names(inner)
        case Binary(_, left, right):
            yield from _iterate_names(left)
            yield from _iterate_names(right)


def _infer_kind(node: Node, kinds: Mapping[str, str]) -> str:
    match node:
        case Column(name):
            return kinds[name]
        case Literal(value):
            return "category" if isinstance(value, str) else "number"
        case Not(inner):
            return _infer_kind(inner, kinds)
        case Binary(operate, left, right):
            return _infer_pair_kind(operate, _infer_kind(left, kinds), _infer_kind(right, kinds))


def _infer_pair_kind(operate: Callable[[Any, Any], Any], left: str, right: str) -> str:
    if operate in CONNECTIVES.values():
        return "condition"
    if left != right:
        raise ValueError(f"a {left} cannot be compared with a {right}")
    if left == "category" and operate not in EQUALITY:
        raise ValueError("texts can be compared with == and != only")
    if left == "timestamp" and operate in ARITHMETIC.values():
        raise ValueError("timestamps can be compared, not added, subtracted or multiplied")
    return left if operate in ARITHMETIC.values() else "condition"
