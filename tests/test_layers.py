import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tsbench

ROOT = Path(tsbench.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

# A package imports from its own level and below, never from another package of its level.
LEVELS = (
    {"errors", "choices", "stages"},
    {"fsio", "config"},
    {"registry"},
    {"data", "metrics"},
    {"models"},
    {"backbones", "training"},
    {"methods"},
    {"bench"},
    {"report"},
    {"cli", "api"},
    {"__init__", "__main__"},
)
LEVEL = {package: level for level, packages in enumerate(LEVELS) for package in packages}
OPTIONAL = {"chronos", "transformers", "fracast", "neuralforecast", "timesfm", "ray"}


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Every module a tree imports, inside functions too; blocks for type checkers alone do not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            yield from ((f"{module}.{alias.name}", node) for alias in node.names)
        yield from imports(node)


def own_imports(path: Path) -> set[str]:
    """Imported names below `tsbench`, without that prefix."""
    found = {name for name, _ in imports(ast.parse(path.read_text(encoding="utf-8")))}
    return {name.removeprefix("tsbench.") for name in found if name.startswith("tsbench.")}


def test_every_module_has_a_level() -> None:
    assert {package_of(path) for path in MODULES} == set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    own = package_of(path)
    used = {name.partition(".")[0] for name in own_imports(path)} - {own}
    wrong = {package for package in used if LEVEL.get(package, len(LEVELS)) >= LEVEL[own]}
    assert not wrong, f"{own} must not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("models", {"data", "fsio"}),
        ("metrics", {"data", "fsio", "registry"}),
        ("training", {"data.dataset", "data.load", "data.catalog", "registry"}),
        ("backbones", {"data.dataset", "data.load", "data.catalog", "data.demo", "metrics"}),
        ("methods", {"registry", "data.load", "data.catalog"}),
        ("report", {"data", "methods", "backbones", "bench.runner", "bench.grid"}),
    ],
)
def test_what_a_package_must_not_know(package: str, forbidden: set[str]) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        known = own_imports(path)
        wrong = {name for name in known for part in forbidden if f"{name}.".startswith(f"{part}.")}
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_optional_packages_are_imported_only_inside_functions_of_the_module_named_after_them() -> None:
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        at_module_level = {name.partition(".")[0] for statement in tree.body for name, _ in top(statement)}
        assert not at_module_level & OPTIONAL, path
        anywhere = {name.partition(".")[0] for name, _ in imports(tree)} & OPTIONAL
        if anywhere:
            assert package_of(path) == ("bench" if anywhere == {"ray"} else "backbones")
            assert all(package in path.stem or package == "transformers" for package in anywhere), path


def top(statement: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    """Imports that run when the module does."""
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield from imports(ast.Module(body=[statement], type_ignores=[]))


def test_every_module_imports_without_the_optional_packages() -> None:
    names = [".".join(["tsbench", *path.relative_to(ROOT).with_suffix("").parts]) for path in MODULES]
    wanted = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    program = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({sorted(OPTIONAL)!r}))\n"
        f"for name in {wanted!r}: importlib.import_module(name)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
