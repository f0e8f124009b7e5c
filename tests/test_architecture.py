"""The layout of the package: imports run one way, and each optional or slow package has its place."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "invariance"
MODULES = {
    ".".join(("invariance", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# From the bottom to the top; a module imports from its own layer and those below.
LAYERS = (
    ("typing", "wording", "errors", "output", "progress", "processes", "files", "ranges", "schema"),
    ("xla", "labels", "keras_settings"),
    ("warp", "random", "routing", "losses", "optimizers", "datasets", "generators", "generators_from_classes"),
    ("transforms", "layers"),
    ("models", "figures"),
    ("tasks",),
    ("experiment",),
    ("transfer",),
    ("variations", "runs", "sweeps"),
    ("report", "benchmark", "notebooks", "probing"),
    ("cli",),
)


def imports(path):
    """(module, name or None) of every import in a file, also of those within functions, not of those for types only."""
    found = []

    def visit(node):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, None) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.extend((node.module, alias.name) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def dependencies(module):
    """The modules of the package that a module imports."""
    found = {f"{name}.{member}" if f"{name}.{member}" in MODULES else name for name, member in imports(MODULES[module])}
    return {name for name in found if name in MODULES and name != module}


# The package itself only hands on what is loaded later.
INNER = [module for module in MODULES if module not in ("invariance", "invariance.__main__")]


def test_no_circle():
    try:
        tuple(TopologicalSorter({module: dependencies(module) for module in INNER}).static_order())
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_every_module_has_its_layer():
    parts = {module.split(".")[1] for module in INNER}
    assert parts == {part for layer in LAYERS for part in layer}


@pytest.mark.parametrize("module", INNER)
def test_imports_run_downwards(module):
    rank = {part: number for number, layer in enumerate(LAYERS) for part in layer}
    own = rank[module.split(".")[1]]
    above = [name for name in dependencies(module) - {"invariance"} if rank[name.split(".")[1]] > own]
    assert not above


def test_library_never_imports_experiments():
    assert not [path for path in MODULES.values() for name, _ in imports(path) if name.split(".")[0] == "experiments"]


def test_matplotlib_is_imported_by_figures_alone():
    users = {path.name for path in MODULES.values() for name, _ in imports(path) if name.split(".")[0] == "matplotlib"}
    assert users == {"figures.py"}


@pytest.mark.parametrize(
    "module",
    [
        "invariance",
        "invariance.cli",
        "invariance.transforms",
        "invariance.tasks",
        "invariance.tasks.metrics",
        "invariance.experiment",
        "invariance.variations",
        "invariance.runs.engine",
        "invariance.report.page",
        "invariance.models.cnn",
        "invariance.models.autoencoder",
        "invariance.models.matrix_capsnet",
        "experiments.recognition_rotation",
        "experiments.article.claims",
    ],
)
def test_declarations_and_reports_load_neither_tensorflow_nor_keras_nor_matplotlib(module):
    code = f"import sys, {module}; print(*sorted({{'tensorflow', 'keras', 'matplotlib'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
