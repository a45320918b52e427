"""A verifier with one of its refusals taken out."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType


def refusals(modules: list[ModuleType], names: tuple[str, ...]) -> list[tuple[FunctionType, int]]:
    """Every `raise` of an exception with one of these names, or made by `_malformed`: (function, number in it)."""
    found = list[tuple[FunctionType, int]]()
    for module in modules:
        for function in vars(module).values():
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                raised = [node for node in ast.walk(_tree(function)) if isinstance(node, ast.Raise)]
                wanted = [number for number, node in enumerate(raised) if _raises(node, names)]
                found += [(function, number) for number in wanted]
    return found


def name_of(function: FunctionType, number: int) -> str:
    return f"{function.__module__.rsplit('.', 1)[-1]}.{function.__name__}#{number}"


def source_line(function: FunctionType, number: int) -> str:
    """The text of a refusal."""
    return ast.unparse([node for node in ast.walk(_tree(function)) if isinstance(node, ast.Raise)][number])


@contextmanager
def without(function: FunctionType, number: int) -> Iterator[None]:
    """`function` passes on where it would raise for the `number`-th time in its text."""
    tree = _tree(function)
    raised = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    changed = ast.fix_missing_locations(_Dropped(raised[number]).visit(tree))
    names = dict(function.__globals__)
    exec(compile(changed, "<mutant>", "exec"), names)
    original = function.__code__
    function.__code__ = names[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = original


class _Dropped(ast.NodeTransformer):
    def __init__(self, target: ast.Raise) -> None:
        self.target = target

    def visit_Raise(self, node: ast.Raise) -> ast.stmt:
        return ast.copy_location(ast.Pass(), node) if node is self.target else node


def _tree(function: FunctionType) -> ast.Module:
    return ast.parse("from __future__ import annotations\n" + textwrap.dedent(inspect.getsource(function)))


def _raises(node: ast.Raise, names: tuple[str, ...]) -> bool:
    return isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name) and node.exc.func.id in names
