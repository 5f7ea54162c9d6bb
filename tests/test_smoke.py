"""What must work on every supported Python version, with the required packages only (make test-pythons)."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import onnx
import pytest

import trt_ptq

pytestmark = pytest.mark.smoke


def trt_ptq_command(folder: Path, *arguments: str | Path) -> str:
    """Run trt-ptq in `folder` and return what it prints."""
    command = [sys.executable, "-m", "trt_ptq", *map(str, arguments)]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_every_module_imports() -> None:
    modules = [module.name for module in pkgutil.walk_packages(trt_ptq.__path__, "trt_ptq.")]
    assert {"trt_ptq.calibrators.tensorrt.batch", "trt_ptq.cli.main"} <= {*modules}
    for module in modules:
        import_module(module)


def test_every_public_name_is_there() -> None:
    assert [name for name in trt_ptq.__all__ if getattr(trt_ptq, name, None) is None] == []


def test_version_and_doctor(tmp_path: Path) -> None:
    assert trt_ptq_command(tmp_path, "--version").split() == ["trt-ptq", trt_ptq.__version__]
    assert json.loads(trt_ptq_command(tmp_path, "doctor", "--json"))["broken"] == {}


def test_from_a_float_model_to_a_cache_and_an_int8_model(cnn_path: Path, npz_folder: Path, tmp_path: Path) -> None:
    trt_ptq_command(tmp_path, "calibrate", cnn_path, "--data", npz_folder, "-o", "stats.safetensors")
    for method in ("minmax", "percentile", "entropy", "mse"):
        trt_ptq_command(tmp_path, "table", "stats.safetensors", "--method", method, "-o", f"{method}.cache")
    trt_ptq_command(tmp_path, "cache", "show", "entropy.cache")
    trt_ptq_command(tmp_path, "qdq", cnn_path, "--table", "entropy.cache", "-o", "int8.onnx")
    trt_ptq_command(tmp_path, "lint", "int8.onnx")
    operators = [node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node]
    assert operators.count("QuantizeLinear") > 0
    comparison = trt_ptq_command(
        tmp_path, "compare", "int8.onnx", cnn_path, "--data", npz_folder, "--max-drop", "20%", "--json"
    )
    json.loads(comparison)
