"""What the style page promises of ``parity/``, where a machine can tell."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import parity

ROOT = Path(parity.__file__).resolve().parent
FILES = sorted(ROOT.rglob("*.py"))
LINES, BODY = 400, 40
WORKER_SIDE = sorted(
    [
        *(ROOT / "cases").glob("*.py"),
        *(ROOT / "taps").glob("*.py"),
        *(
            ROOT / "engines" / f"{name}.py"
            for name in (
                "base",
                "detector",
                "group",
                "mmdet2",
                "ddq_mmdet2",
                "ddq_mmdet3rc",
                "initialisation",
                "legacy",
                "limits",
                "loaders",
                "mmdet3",
                "mmdet3_compiled",
                "numerics",
                "published",
                "recipe",
                "schedules",
                "session",
                "train_data",
                "train_pipeline",
                "training",
                "training_setup",
                "wire",
                "worker",
                "__init__",
            )
        ),
        *(
            ROOT / "training" / f"{name}.py"
            for name in ("__init__", "driver", "frozen_batches", "frozen_images", "loss_log", "sources")
        ),
        ROOT / "weights" / "guarded.py",
        ROOT / "weights" / "names.py",
        ROOT / "weights" / "rules.py",
        ROOT / "weights" / "synthetic.py",
        ROOT / "weights" / "__init__.py",
        ROOT / "errors.py",
        ROOT / "__init__.py",
    ]
)


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def modules() -> list[str]:
    found = [info.name for info in pkgutil.walk_packages(parity.__path__, "parity.")]
    return [name for name in found if ".configs" not in name and not name.endswith("__main__")]


def functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def is_declaration(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function holds no logic: its whole body is one value that is returned."""
    return [type(node) for node in function.body if not isinstance(node, ast.Expr)] == [ast.Return]


def body_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function below its docstring."""
    first = function.body[0]
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    start = (first.end_lineno or 0) + 1 if is_text else first.lineno
    return (function.end_lineno or start) - start + 1


def forbidden_calls(text: str) -> list[str]:
    """Return the calls whose bare bool would decide: ``allclose`` and ``equal`` of torch, numpy or a tensor."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        bare = node.func.attr in ("allclose", "isclose", "array_equal") or (
            node.func.attr == "equal" and owner in ("torch", "np", "numpy")
        )
        if bare:
            found.append(f"line {node.lineno}: {ast.unparse(node.func)}")
    return found


@pytest.mark.parametrize("path", FILES, ids=short)
def test_a_file_has_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES


@pytest.mark.parametrize("path", FILES, ids=short)
def test_a_function_body_has_at_most_40_lines(path: Path) -> None:
    bodies = [function for function in functions(path.read_text()) if not is_declaration(function)]
    lengths = {function.name: body_length(function) for function in bodies}
    assert {name: length for name, length in lengths.items() if length > BODY} == {}


def test_the_length_of_a_body_leaves_out_its_docstring() -> None:
    (function,) = functions('def f():\n    """One\n\n    two.\n    """\n    a = 1\n\n    return a\n')
    assert body_length(function) == 3


@pytest.mark.parametrize("path", FILES, ids=short)
def test_no_bare_bool_of_a_comparison_decides(path: Path) -> None:
    assert forbidden_calls(path.read_text()) == []


@pytest.mark.parametrize(
    "text", ["torch.allclose(a, b)", "np.allclose(a, b)", "torch.equal(a, b)", "a.allclose(b)", "np.array_equal(a, b)"]
)
def test_a_bare_bool_would_be_found(text: str) -> None:
    assert forbidden_calls(f"x = 1\nif {text}: pass") == [f"line 2: {text.split('(')[0]}"]


@pytest.mark.parametrize("path", WORKER_SIDE, ids=short)
def test_what_runs_in_the_legacy_interpreter_parses_as_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(), filename=path.name, feature_version=(3, 8))


def test_newer_syntax_would_be_found() -> None:
    with pytest.raises(SyntaxError, match=r"Python 3\.10"):
        ast.parse("match x:\n    case 1: pass\n", feature_version=(3, 8))


@pytest.mark.parametrize("path", WORKER_SIDE, ids=short)
def test_what_runs_in_the_legacy_interpreter_delays_its_annotations(path: Path) -> None:
    """``Tensor | None`` parses as Python 3.8, and fails there when it is evaluated."""
    tree = ast.parse(path.read_text())
    annotations = [node.annotation for node in ast.walk(tree) if isinstance(node, (ast.AnnAssign, ast.arg))]
    composed = any(isinstance(node, (ast.BinOp, ast.Subscript)) for node in annotations)
    delayed = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    assert delayed or not composed


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {
        name.split(".")[0]
        for node in tree.body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }


@pytest.mark.parametrize("path", WORKER_SIDE, ids=short)
def test_what_runs_in_the_legacy_interpreter_needs_few_packages(path: Path) -> None:
    import sys

    foreign = imported(path) - set(sys.stdlib_module_names) - {"parity"}
    assert foreign <= {"torch", "numpy", "safetensors"}


@pytest.mark.parametrize("name", modules())
def test_examples_run(name: str) -> None:
    import torch

    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"torch": torch}, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_there_are_examples() -> None:
    found = [case for name in modules() for case in doctest.DocTestFinder().find(importlib.import_module(name))]
    assert sum(len(case.examples) for case in found) >= 10
