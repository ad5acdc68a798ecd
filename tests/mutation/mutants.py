"""Mutants of a source file: each is the text with one expression changed for the worse."""

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
METHODS = {
    "sum": "mean",
    "mean": "sum",
    "max": "min",
    "min": "max",
    "sqrt": "square",
    "square": "sqrt",
    "exp": "expm1",
    "all": "any",
    "any": "all",
}
REMOVED = ("detach", "clone", "abs", "float", "double", "contiguous")
"""Methods without arguments that a mutant leaves out: x.detach() → x."""
SYMMETRIC = (
    *("multiplied", "dot", "inners", "mul", "add", "maximum", "minimum", "min", "max", "equal"),
    *("_inner", "_share"),
)
"""Functions of which the first two arguments may be swapped."""
UNMIXED = ("isinstance", "zip", "getattr", "setattr", "hasattr", *SYMMETRIC)
WORDS = ("warn", "warning", "debug", "info")
"""Calls whose arguments are words for the user."""


@dataclass(frozen=True)
class Mutant:
    """One change.

    Args:
        line: where it is, from 1.
        kind: of the change.
        before, after: the expression.
        source: the whole text, changed.
        place: names of the definitions around it, and its number among equal changes there.
    """

    line: int
    kind: str
    before: str
    after: str
    source: str
    place: str

    @property
    def key(self) -> str:
        """The same as long as the definition around it has this expression."""
        said = "\n".join((self.place, self.kind, self.before, self.after))
        return hashlib.sha256(said.encode()).hexdigest()[:12]


def mutants(source: str) -> list[Mutant]:
    """All mutants of a text, in its order."""
    tree = ast.parse(source)
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found: list[Mutant] = []
    seen: dict[tuple[str, ...], int] = {}
    for node, names in _expressions(tree, ()):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        before = ast.unparse(node)
        for kind, after in _changes(node):
            same = (*names, kind, before, after)
            seen[same] = seen.get(same, 0) + 1
            text = source.encode()
            changed = text[:begin] + after.encode() + text[end:]
            place = f"{'.'.join(names)}#{seen[same]}"
            found.append(Mutant(node.lineno, kind, before, after, changed.decode(), place))
    return found


def _expressions(
    node: ast.AST, names: tuple[str, ...]
) -> Iterator[tuple[ast.AST, tuple[str, ...]]]:
    """What may be changed: no annotation, docstring, decorator, error message or import."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        names = (*names, node.name)
        parts: list[ast.AST] = list(node.body)
        if not isinstance(node, ast.ClassDef):
            parts += [d for d in (*node.args.defaults, *node.args.kw_defaults) if d is not None]
    elif isinstance(node, ast.AnnAssign):
        parts = [node.value] if node.value is not None else []
    elif isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.JoinedStr) or (
        isinstance(node, ast.Call) and _name(node.func) in WORDS
    ):
        parts = []
    else:
        parts = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.expr) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield node, names
    for part in parts:
        yield from _expressions(part, names)


def _changes(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(kind, text) of every change of an expression, or of a call that is a statement."""
    match node:
        case ast.Expr():
            if _name(node.value.func) not in WORDS:
                yield "call left out", "None"
        case ast.BinOp(left, operator, right):
            if type(operator) in OPERATORS:
                yield "operator", _text(ast.BinOp(left, OPERATORS[type(operator)](), right))
            if isinstance(operator, ast.Mult | ast.Div | ast.Add | ast.Sub):
                yield "operand dropped", _text(left)
            if isinstance(operator, ast.Mult):
                yield "operand dropped", _text(right)
        case ast.UnaryOp(ast.USub() | ast.Not(), operand):
            yield "sign", _text(operand)
        case ast.Compare(left, [operator], [right]) if type(operator) in COMPARISONS:
            yield "comparison", _text(ast.Compare(left, [COMPARISONS[type(operator)]()], [right]))
        case ast.BoolOp(operator, values):
            other = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield "condition", _text(ast.BoolOp(other, values))
        case ast.IfExp(test, body, otherwise):
            yield "condition", _text(ast.IfExp(test, otherwise, body))
        case ast.Constant(bool() as value):
            yield "constant", str(not value)
        case ast.Constant(int() | float() as value):
            yield "constant", f"({value + 1 if isinstance(value, int) else 2 * value or 1.0!r})"
        case ast.Call(func, args, keywords):
            yield from _calls(node, func, args, keywords)


def _calls(node: ast.Call, func, args, keywords) -> Iterator[tuple[str, str]]:
    if isinstance(func, ast.Attribute) and func.attr in REMOVED and not args and not keywords:
        yield "call left out", _text(func.value)
    if isinstance(func, ast.Attribute) and func.attr in METHODS:
        other = ast.Attribute(func.value, METHODS[func.attr])
        yield "function", _text(ast.Call(other, args, keywords))
    elif isinstance(func, ast.Name) and func.id in METHODS and func.id != "sum":
        yield "function", _text(ast.Call(ast.Name(METHODS[func.id]), args, keywords))
    plain = [not isinstance(a, ast.Starred | ast.GeneratorExp | ast.Constant) for a in args[:2]]
    named = _name(func) not in UNMIXED
    if len(args) > 1 and all(plain) and named:
        yield "arguments swapped", _text(ast.Call(func, [args[1], args[0], *args[2:]], keywords))
    for i, keyword in enumerate(keywords):
        if keyword.arg not in (None, "strict", "stacklevel"):
            rest = keywords[:i] + keywords[i + 1 :]
            yield "argument dropped", _text(ast.Call(func, args, rest))


def _name(func: ast.expr) -> str:
    return func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")


def _text(node: ast.expr) -> str:
    return f"({ast.unparse(ast.fix_missing_locations(node))})"
