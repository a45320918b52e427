"""Imports point down the floors: the table of docs/architecture.md, held by reading every file's syntax tree."""

from __future__ import annotations

import ast
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import shoal

ROOT = Path(shoal.__file__).parent

MAY_IMPORT = {
    "core": set(),
    "kernels": {"core"},
    "crypto": {"core"},
    "meter": {"core"},
    "fabric": {"core"},
    "models": {"core", "kernels"},
    "mesh": {"core", "crypto"},
    "engine": {"core", "kernels", "models"},
    "proof": {"core", "crypto", "kernels"},
    "parallel": {"core", "fabric", "mesh", "models", "engine"},
    "trust": {"core", "crypto", "mesh", "models", "engine", "proof"},
    "fleet": {"core", "meter", "mesh", "engine", "parallel"},
    "think": {"core", "trust"},
    "memory": {"core", "engine"},
    "guard": {"core", "engine"},
    "plan": {"core", "models", "meter"},
    "server": {"core"},
}
"""Package -> the packages it may import besides itself. `node` may import all of them, nobody may import `node`."""

FILES = sorted(ROOT.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = ("shoal", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imported(nodes: Iterator[ast.AST], name: str) -> Iterator[str]:
    """Names of the modules of Shoal which these nodes import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "shoal")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            if node.module and node.module.split(".")[0] == "shoal":
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield whole if whole in MODULES else node.module


def at_import_time(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements that run when the module is imported: no function bodies, nothing under TYPE_CHECKING."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending += ast.iter_child_nodes(node)


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_down(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text())
    here = package(name)
    if here in ("", "node", "__main__"):
        return
    for target in imported(ast.walk(tree), name):
        there = package(target)
        assert there in {here, ""} | MAY_IMPORT[here], f"{name} imports {target}: {here} may not import {there}"


def test_every_package_is_in_the_table() -> None:
    packages = {package(name) for name in MODULES} - {"", "__main__"}
    assert packages <= {*MAY_IMPORT, "node"}
    assert "core" in packages


def test_the_table_has_no_cycle() -> None:
    assert next(iter(TopologicalSorter(MAY_IMPORT).static_order())) == "core"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {name: {*imported(at_import_time(ast.parse(path.read_text())), name)} for name, path in MODULES.items()}
    try:
        TopologicalSorter({name: targets - {name} for name, targets in graph.items()}).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that are loaded in a fresh interpreter after `statement`."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_only_the_torch_speaker_imports_torch() -> None:
    pure = [name for name in MODULES if not name.split(".")[-1].startswith("torch_") and name != "shoal.__main__"]
    assert "torch" not in loaded_after("\n".join(f"import {name}" for name in pure))


def test_the_server_imports_no_numpy_torch_or_tokenizer() -> None:
    names = [name for name in MODULES if package(name) == "server"]
    assert names
    assert not {"torch", "numpy", "tokenizers"} & loaded_after("\n".join(f"import {name}" for name in names))


HEAVY = {"numpy", "torch", "fastapi", "starlette", "uvicorn", "pydantic", "tokenizers", "huggingface_hub", "jinja2",
         "llguidance", "httpx", "rich"}  # fmt: skip


def test_import_shoal_is_light_and_quick() -> None:
    assert not HEAVY & loaded_after("import shoal")
    assert best_seconds("import shoal") - best_seconds("pass") < 0.150


def test_help_is_light_and_quick() -> None:
    statement = "from shoal.node.cli import main\nassert main(['--help']) == 0"
    assert not HEAVY & loaded_after(statement)
    assert best_seconds(statement) < 0.400


def best_seconds(statement: str) -> float:
    """Processor time of the cheapest of a few fresh interpreters, which does not count what else this machine does."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)
