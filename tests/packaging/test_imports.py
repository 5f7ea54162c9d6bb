"""What importing brings along, and what the public names are."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import trt_ptq

PACKAGE = Path(trt_ptq.__file__).parent
SOURCES = sorted(
    path for folder in (PACKAGE, PACKAGE / "calibrators", PACKAGE / "engines") for path in folder.rglob("*.py")
)
OPTIONAL = (
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "cuda",
    "torch",
    "transformers",
    "ray",
    "PIL",
    "datasketch",
    "pyarrow",
)
HEAVY = ("numba", "onnx", "onnxruntime", "onnx_ir", "polygraphy", "pydantic", "safetensors", "typer", "torch")

IMPORTS_ALL_WITHOUT = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
for name in {modules}:
    importlib.import_module(name)
"""


def run(code: str) -> str:
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


def modules() -> list[str]:
    return [one.name for one in pkgutil.walk_packages([str(PACKAGE)], "trt_ptq.")]


def test_every_folder_of_the_package_is_walked() -> None:
    assert {"trt_ptq.calibrators.statistics.kernels", "trt_ptq.engines.backends", "trt_ptq.cli.main"} <= set(modules())


def test_every_module_imports_without_any_optional_package() -> None:
    run(IMPORTS_ALL_WITHOUT.format(blocked=set(OPTIONAL), modules=modules()))


def test_the_blocker_blocks() -> None:
    with pytest.raises(AssertionError, match="No module named 'ray'"):
        run(IMPORTS_ALL_WITHOUT.format(blocked=set(OPTIONAL), modules=["ray"]))


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = run("import sys, trt_ptq; print(*sys.modules)").split()
    assert [name for name in HEAVY if name in loaded] == []


def typed_names() -> dict[str, tuple[str, str]]:
    """Public names that a type checker sees, with the module they come from and their name there."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    return {alias.asname or "": (str(node.module), alias.name) for node in imports for alias in node.names}


def test_public_names_are_those_that_a_type_checker_sees() -> None:
    assert set(trt_ptq.__all__) == {"__version__", *typed_names()}
    assert len(trt_ptq.__all__) == len(set(trt_ptq.__all__))


@pytest.mark.parametrize(("name", "home"), typed_names().items(), ids=typed_names())
def test_a_public_name_is_what_its_module_has(name: str, home: tuple[str, str]) -> None:
    module, name_there = home
    assert getattr(trt_ptq, name) is getattr(import_module(module), name_there)


def test_no_public_name_is_hidden_by_a_module_of_the_same_name() -> None:
    assert not {one.name for one in pkgutil.iter_modules([str(PACKAGE)])} & set(trt_ptq.__all__)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'trt_ptq' has no attribute 'nothing'"):
        _ = trt_ptq.nothing


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_runs_code_from_data(path: Path) -> None:
    """No pickle, no eval or exec, no shell."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
        elif isinstance(node, ast.ImportFrom):
            assert node.module not in {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
        elif isinstance(node, ast.Call):
            assert not (isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"})
            assert not any(
                keyword.arg in {"shell", "allow_pickle"}
                and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
                for keyword in node.keywords
            )
