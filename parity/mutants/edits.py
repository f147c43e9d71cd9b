"""Small changes to the syntax tree of a function: a constant, an operator, a name.

They say what is changed and nothing of the code around it, so no line of the engine is repeated here.
A change that finds nothing, or more places than one where none is chosen, is refused: another version of
the engine never turns a mutant into the unchanged engine unseen.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from parity.errors import ParityError

_BINARY = {"+": ast.Add, "-": ast.Sub, "*": ast.Mult, "/": ast.Div, "//": ast.FloorDiv, "**": ast.Pow, "%": ast.Mod}
_COMPARE = {">": ast.Gt, ">=": ast.GtE, "<": ast.Lt, "<=": ast.LtE, "==": ast.Eq, "!=": ast.NotEq}
# What a called function may belong to without being a method of the value at hand.
_OWNERS = ("self", "torch", "F", "nn", "math", "np", "functional")


@dataclass(frozen=True)
class Edit:
    """One change.

    Attributes:
        what: what is looked for, in words.
        matches: whether a node is a place for it.
        change: node -> the node in its place.
        nth: which of several places, in the order of the text; ``None`` where there has to be just one.
    """

    what: str
    matches: Callable[[Any], bool]
    change: Callable[[Any], ast.AST]
    nth: int | None = None

    def apply(self, tree: ast.AST, where: str) -> ast.AST:
        """Return the tree with the change made.

        Raises:
            ParityError: there is no such place, or more than one and none is chosen.
        """
        idle = set(_annotations(tree))
        places: list[Any] = [node for node in ast.walk(tree) if self.matches(node) and node not in idle]
        places.sort(key=lambda node: (node.lineno, node.col_offset, -(node.end_col_offset or 0)))
        if self.nth is None and len(places) != 1:
            raise ParityError(f"{where}: {len(places)} places with {self.what}, expected one; nth=... chooses")
        if self.nth is not None and self.nth >= len(places):
            raise ParityError(f"{where}: only {len(places)} places with {self.what}, wanted number {self.nth}")
        changed_tree: ast.AST = _Replace(places[self.nth or 0], self.change).visit(tree)
        return changed_tree


def _annotations(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node of the types that are declared: what is changed there changes nothing that runs."""
    for node in ast.walk(tree):
        for declared in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(declared, ast.AST):
                yield from ast.walk(declared)


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, change: Callable[[Any], ast.AST]) -> None:
        self.target, self.change = target, change

    def visit(self, node: ast.AST) -> Any:
        if node is self.target:
            return ast.copy_location(self.change(node), node)
        return self.generic_visit(node)


def constant(old: Any, new: Any, nth: int | None = None) -> Edit:
    """Return the change of a literal.

    >>> changed("def f(x): return x + 1", constant(1, 2))
    'def f(x):\\n    return x + 2'
    """

    def matches(node: Any) -> bool:
        return isinstance(node, ast.Constant) and type(node.value) is type(old) and node.value == old

    return Edit(f"the constant {old!r}", matches, lambda _: ast.parse(repr(new), mode="eval").body, nth)


def operator(old: str, new: str, nth: int | None = None) -> Edit:
    """Return the change of an arithmetic operator, ``x += y`` included.

    >>> changed("def f(x, y): return x - y * x", operator("-", "+"))
    'def f(x, y):\\n    return x + y * x'
    """

    def matches(node: Any) -> bool:
        return isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, _BINARY[old])

    def change(node: Any) -> ast.AST:
        node.op = _BINARY[new]()
        return node  # type: ignore[no-any-return]

    return Edit(f"the operator {old}", matches, change, nth)


def first_operand(old: str, nth: int | None = None) -> Edit:
    """Return the change of ``x + y`` into ``x``.

    >>> changed("def f(x, y): return (x + y) * 2", first_operand("+"))
    'def f(x, y):\\n    return x * 2'
    """

    def matches(node: Any) -> bool:
        return isinstance(node, ast.BinOp) and isinstance(node.op, _BINARY[old])

    return Edit(f"the operator {old}", matches, lambda node: node.left, nth)


def comparison(old: str, new: str, nth: int | None = None) -> Edit:
    """Return the change of a comparison.

    >>> changed("def f(x): return x > 0", comparison(">", ">="))
    'def f(x):\\n    return x >= 0'
    """

    def matches(node: Any) -> bool:
        return isinstance(node, ast.Compare) and isinstance(node.ops[0], _COMPARE[old])

    def change(node: Any) -> ast.AST:
        node.ops[0] = _COMPARE[new]()
        return node  # type: ignore[no-any-return]

    return Edit(f"the comparison {old}", matches, change, nth)


def name(old: str, new: str, nth: int | None = None) -> Edit:
    """Return the change of a variable that is read.

    >>> changed("def f(x, y): return x", name("x", "y"))
    'def f(x, y):\\n    return y'
    """

    def matches(node: Any) -> bool:
        return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id == old

    return Edit(f"the name {old}", matches, lambda _: ast.Name(new, ast.Load()), nth)


def attribute(old: str, new: str, nth: int | None = None) -> Edit:
    """Return the change of an attribute or method name.

    >>> changed("def f(x): return x.sin()", attribute("sin", "cos"))
    'def f(x):\\n    return x.cos()'
    """

    def matches(node: Any) -> bool:
        return isinstance(node, ast.Attribute) and node.attr == old

    def change(node: Any) -> ast.AST:
        node.attr = new
        return node  # type: ignore[no-any-return]

    return Edit(f"the attribute {old}", matches, change, nth)


def _called(node: Any, function: str) -> bool:
    if not isinstance(node, ast.Call):
        return False
    return getattr(node.func, "attr", getattr(node.func, "id", "")) == function


def keyword(function: str, argument: str, value: Any, nth: int | None = None) -> Edit:
    """Return the change of a keyword argument of a call; it is added where there is none.

    >>> changed("def f(x): return g(x, eps=1)", keyword("g", "eps", 2))
    'def f(x):\\n    return g(x, eps=2)'
    """

    def change(node: Any) -> ast.AST:
        node.keywords = [word for word in node.keywords if word.arg != argument]
        node.keywords.append(ast.keyword(argument, ast.parse(repr(value), mode="eval").body))
        return node  # type: ignore[no-any-return]

    return Edit(f"a call of {function}", lambda node: _called(node, function), change, nth)


def without_call(function: str, nth: int | None = None) -> Edit:
    """Return the change of ``x.function()``, ``function(x)`` or ``self.function(x)`` into ``x``.

    >>> changed("def f(x): return torch.exp(x.sigmoid())", without_call("sigmoid"), without_call("exp"))
    'def f(x):\\n    return x'
    """

    def change(node: Any) -> ast.AST:
        method = isinstance(node.func, ast.Attribute)
        of_other = method and isinstance(node.func.value, ast.Name) and node.func.value.id in _OWNERS
        kept: ast.AST = node.func.value if method and not of_other else node.args[0]
        return kept

    return Edit(f"a call of {function}", lambda node: _called(node, function), change, nth)


def without_invert(nth: int | None = None) -> Edit:
    """Return the change of ``~x`` into ``x``.

    >>> changed("def f(x): return ~x", without_invert())
    'def f(x):\\n    return x'
    """

    def matches(node: Any) -> bool:
        return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert)

    return Edit("the operator ~", matches, lambda node: node.operand, nth)


def swapped_elements(first: int, second: int, nth: int | None = None, *, size: int | None = None) -> Edit:
    """Return the exchange of two elements of a list or tuple that is read, among those of ``size`` elements.

    >>> changed("def f(x, y): return [x, y]", swapped_elements(0, 1))
    'def f(x, y):\\n    return [y, x]'
    """

    def matches(node: Any) -> bool:
        return (
            isinstance(node, (ast.List, ast.Tuple))
            and isinstance(node.ctx, ast.Load)
            and len(node.elts) > max(first, second)
            and size in (None, len(node.elts))
        )

    def change(node: Any) -> ast.AST:
        node.elts[first], node.elts[second] = node.elts[second], node.elts[first]
        return node  # type: ignore[no-any-return]

    return Edit("a list or tuple" + (f" of {size}" if size else ""), matches, change, nth)


def last_for_first(count: str, nth: int | None = None) -> Edit:
    """Return the change of ``x[:count]`` into ``x[-count:]``: the worst so many for the best.

    >>> changed("def f(x, self): return x[: self.most]", last_for_first("self.most"))
    'def f(x, self):\\n    return x[-self.most:]'
    """

    def matches(node: Any) -> bool:
        bounds = node.slice if isinstance(node, ast.Subscript) else None
        upper = bounds.upper if isinstance(bounds, ast.Slice) and not bounds.lower and not bounds.step else None
        return upper is not None and ast.unparse(upper) == count

    def change(node: Any) -> ast.AST:
        node.slice = ast.Slice(lower=ast.UnaryOp(ast.USub(), node.slice.upper))
        return node  # type: ignore[no-any-return]

    return Edit(f"a slice up to {count}", matches, change, nth)


def settings_read(key: str, nth: int | None = None, **settings: Any) -> Edit:
    """Return the change of ``x[key]``, a dictionary, into the same with other settings.

    >>> changed("def f(x): return g(x['nms'])", settings_read("nms", max_num=9))
    "def f(x):\\n    return g({**x['nms'], **{'max_num': 9}})"
    """

    def matches(node: Any) -> bool:
        return isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value == key

    def change(node: Any) -> ast.AST:
        return ast.parse(f"{{**{ast.unparse(node)}, **{settings!r}}}", mode="eval").body

    return Edit(f"a read of {key!r}", matches, change, nth)


def changed(source: str, *edits: Edit, where: str = "source") -> str:
    """Return Python source after the given changes, one after the other."""
    tree: ast.AST = ast.parse(source)
    for edit in edits:
        tree = ast.fix_missing_locations(edit.apply(tree, where))
    return ast.unparse(tree)


def recompiled(function: FunctionType, edits: tuple[Edit, ...], where: str) -> Any:
    """Return a function like ``function`` with its source changed; it sees the same globals and class.

    Decorators are left away. Its code keeps name and file, so that a float32 island in it is still the same one.

    Raises:
        ParityError: a change does not fit, or the function has no source or closes over other variables.
    """
    function = inspect.unwrap(function)
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError) as error:
        raise ParityError(f"{where} has no source to change: {error}") from None
    if set(function.__code__.co_freevars) - {"__class__"}:
        raise ParityError(f"{where} closes over {', '.join(function.__code__.co_freevars)}: change what it calls")
    module = ast.parse(textwrap.dedent("".join(lines)))
    before = ast.dump(module)
    for edit in edits:
        edit.apply(module, where)
    if ast.dump(module) == before:
        raise ParityError(f"{where}: the changes cancel each other out")
    definition = module.body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    ast.increment_lineno(module, first - 1)
    # Inside a function with a variable __class__, so that super() without arguments finds it.
    outer = ast.parse(f"def outer(__class__):\n    pass\n    return {definition.name}").body[0]
    assert isinstance(outer, ast.FunctionDef)
    outer.body[0] = definition
    module.body = [outer]
    code = compile(ast.fix_missing_locations(module), function.__code__.co_filename, "exec")
    namespace: dict[str, Any] = {}
    exec(code, function.__globals__, namespace)
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    return namespace["outer"](cells["__class__"].cell_contents if "__class__" in cells else None)
