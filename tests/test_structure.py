"""The rules about who may import whom, and what back ends may know."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nncc.ops import table

PACKAGE = Path(__file__).parents[1] / "nncc"

# What each part may import of nncc, besides itself and `diagnostics`. The modules directly in
# nncc/ (the API, the command line) may import everything.
MAY_IMPORT = {
    "diagnostics": set(),
    "ir": set(),
    "ops": {"ir"},
    "frontend": {"ir", "ops"},
    "machines": {"ir"},
    "passes": {"ir", "ops", "machines"},
    "backends": {"ir", "machines", "isa", "runtime"},
    "isa": {"ir", "machines"},
    "runtime": {"ir", "machines", "isa"},
}

# Beyond that: what translates programs of simulated machines to code of the host writes scalar
# functions with the emitter of the CPU's back end, so that there is one of them.
ALSO = {
    "runtime/tta/translate/": {"backends"},
    "runtime/tta/translated.py": {"backends"},
}

# Packages that are behind one door; the folders or files that may import them.
DOORS = {
    "islpy": ("passes/poly/",),
    "llvmlite": ("backends/cpu/",),
    "onnx": ("frontend/onnx/", "ops/reference.py", "ir/interpreter/", "onnx_backend.py"),
    "lark": ("ir/text/", "frontend/", "isa/"),
    "onnxruntime": (),
    "torch": (),
    "hypothesis": ("ops/samples.py",),
}

FILES = sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py"))


def imports(file: str) -> Iterator[tuple[str, bool]]:
    """Each imported module, and whether that happens only for the type checker."""
    tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            assert node.module is not None
            base = node.module
            for alias in node.names:
                inside = PACKAGE.parent / base.replace(".", "/") / alias.name
                is_module = inside.with_suffix(".py").exists() or inside.is_dir()
                yield (f"{base}.{alias.name}" if is_module else base), id(node) in for_types


def part(file: str) -> str:
    return file.split("/")[0] if "/" in file else file.removesuffix(".py")


@pytest.mark.parametrize("file", FILES)
def test_who_imports_whom(file: str) -> None:
    here = part(file)
    if here not in MAY_IMPORT:
        return
    may = MAY_IMPORT[here].union(*(more for start, more in ALSO.items() if file.startswith(start)))
    for module, _ in imports(file):
        pieces = module.split(".")
        if pieces[0] != "nncc":
            continue
        assert len(pieces) > 1, f"nncc/{file} imports the API"
        other = pieces[1]
        allowed = other in {here, "diagnostics"} | may
        assert allowed, f"nncc/{file} imports {module}; it may import {may}"


@pytest.mark.parametrize("file", FILES)
def test_doors(file: str) -> None:
    for module, for_types in imports(file):
        package = module.split(".")[0]
        if package in DOORS and not for_types:
            assert file.startswith(DOORS[package]), f"nncc/{file} imports {package}"


def test_every_part_has_a_rule() -> None:
    folders = {f.split("/")[0] for f in FILES if "/" in f}
    assert folders <= MAY_IMPORT.keys() | {"commands"}


def string_constants(file: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_op_names_in_back_ends() -> None:
    import nncc.ops  # noqa: F401  (fills the table)

    found = {
        (file, text)
        for file in FILES
        if file.startswith(("backends/", "runtime/"))
        for text in string_constants(file)
        if text in table.TABLE
    }
    assert not found


HEAVY = ("onnx", "numpy", "llvmlite", "islpy", "lark", "hypothesis", "nncc.ops", "nncc.ir")


def test_import_is_light() -> None:
    program = f"import sys, nncc, nncc.cli\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
