"""The house keeps its shape: no cycles, a light start, short files and functions."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The packages in one line, from right to left: an import goes right only.
LINE = (
    "errors",
    "types",
    "images store",
    "tools",
    "data models",
    "scoring",
    "rollout analysis",
    "evaluation",
    "probes interop",
    "viewer training",
    "cli",
)

# Imported only where used, or only in modules that are themselves imported only where used.
HEAVY = {
    "accelerate", "aiohttp", "datasets", "httpx2", "huggingface_hub", "jsonlines", "matplotlib",
    "numpy", "openai", "pandas", "PIL", "pyarrow", "pydantic", "rapidfuzz", "safetensors", "scipy",
    "statsmodels", "tokenizers", "torch", "transformers", "vllm",
}  # fmt: skip
NEVER_AT_MODULE_LEVEL = {"datasets", "httpx2", "huggingface_hub", "matplotlib", "openai", "vllm"}
WITH_TORCH = {"torch", "transformers", "safetensors", "accelerate", "tokenizers"}

# Where every invocation of the command line passes.
LIGHT_STARTS = ("medeval.cli", "medeval.cli.show", "medeval.evaluation.loader")

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {name_of(path): path for path in sorted((ROOT / "medeval").rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}
DEFINITIONS = [
    path
    for folder in ("benchmarks", "protocols", "judges")
    for path in (ROOT / folder).glob("*.py")
]


def nodes(tree: ast.Module, *, at_import: bool) -> Iterator[ast.AST]:
    """All nodes of a file; with `at_import` only those that run when it is imported."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))


def imported(tree: ast.Module, *, at_import: bool = False) -> set[str]:
    """The modules a file imports; `from package import module` counts as the module."""
    found: set[str] = set()
    for node in nodes(tree, at_import=at_import):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import of {node.module}"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & PATHS.keys() or {str(node.module)}
    return found


def ours(modules: set[str]) -> set[str]:
    return {module for module in modules if module.partition(".")[0] == "medeval"}


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_an_import_goes_right_along_the_line_of_packages() -> None:
    rank = {name: place for place, names in enumerate(LINE) for name in names.split()}
    wrong = [
        f"{module} imports {used}"
        for module, tree in TREES.items()
        if module not in {"medeval", "medeval.__main__"}
        for used in ours(imported(tree)) - {"medeval"}
        for importer, package in [(module.split(".")[1], used.split(".")[1])]
        if importer != package and rank[importer] <= rank[package]
    ]
    assert wrong == []


def test_no_module_imports_itself_round_a_corner() -> None:
    below = {module: ours(imported(TREES[module], at_import=True)) for module in PATHS}
    while below:
        free = {module for module, used in below.items() if not used & below.keys()}
        assert free, f"a cycle among {sorted(below)}"
        below = {module: used for module, used in below.items() if module not in free}


def test_the_package_itself_imports_nothing_of_its_own_until_asked() -> None:
    assert ours(imported(TREES["medeval"], at_import=True)) == set()


@pytest.mark.parametrize(
    "module",
    [name for name in PATHS if name.startswith(("medeval.analysis", "medeval.analysis.figures"))],
)
def test_analysis_and_figures_read_records_and_no_models(module: str) -> None:
    used = imported(TREES[module])
    assert packages(used) & {"torch", "transformers", "vllm"} == set()
    runs = (
        "medeval.models",
        "medeval.evaluation.run",
        "medeval.evaluation.sample_loop",
        "medeval.rollout.conversation",
    )
    assert [name for name in used if name.startswith(runs)] == []


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.name)
def test_a_definition_file_imports_medeval_and_the_standard_library_alone(path: Path) -> None:
    used = packages(imported(ast.parse(path.read_text(encoding="utf-8"))))
    assert used - {"medeval"} - sys.stdlib_module_names == set()


@pytest.mark.parametrize("module", PATHS)
def test_a_package_that_is_slow_or_optional_is_imported_only_where_it_is_used(module: str) -> None:
    used = packages(imported(TREES[module], at_import=True))
    assert used & NEVER_AT_MODULE_LEVEL == set()


def reached_at_import(starts: tuple[str, ...]) -> set[str]:
    """The modules that are imported with the given ones, packages on the way included."""
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        module = waiting.pop()
        if module in PATHS and module not in found:
            found.add(module)
            waiting.append(module.rpartition(".")[0])
            waiting.extend(ours(imported(TREES[module], at_import=True)))
    return found


def test_the_command_line_starts_without_a_heavy_package() -> None:
    definitions = [ast.parse(path.read_text(encoding="utf-8")) for path in DEFINITIONS]
    by_definitions = {name for tree in definitions for name in imported(tree, at_import=True)}
    public = ("medeval.tools.crop",)
    light = reached_at_import((*LIGHT_STARTS, *public, *sorted(ours(by_definitions))))
    heavy = {module: packages(imported(TREES[module], at_import=True)) & HEAVY for module in light}
    assert {module: used for module, used in heavy.items() if used} == {}


def test_torch_is_reached_only_through_the_engines() -> None:
    with_torch = {
        module for module in PATHS if packages(imported(TREES[module], at_import=True)) & WITH_TORCH
    }
    assert {module.split(".")[1] for module in with_torch} <= {"models"}
    above = {
        module
        for module in PATHS.keys() - with_torch
        if ours(imported(TREES[module], at_import=True)) & with_torch
    }
    assert {
        module for module in above if not module.startswith(("medeval.models", "medeval.cli.demo"))
    } == (set())


@pytest.mark.parametrize("path", [*PATHS.values(), *DEFINITIONS], ids=lambda path: path.name)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    too_long = {
        node.name: lines
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := lines_of_code(node)) > MAX_FUNCTION_LINES
    }
    assert too_long == {}


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The length of a function without its docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring
