"""Calibrators are importable without TensorRT or CUDA, and name what is missing when they are created."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BLOCKED = ("tensorrt", "pycuda", "cuda", "torch", "ray")
BLOCK = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED!r}))\n"


def run(code: str, *folders: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*folders, ROOT)))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def error_of(code: str, *folders: Path) -> str:
    lines = "\n".join(f"    {line}" for line in code.splitlines())
    return run(
        f"{BLOCK if not folders else ''}try:\n{lines}\nexcept Exception as e: print(type(e).__name__, e)", *folders
    )


@pytest.mark.parametrize(
    "module",
    sorted(
        ".".join(path.relative_to(ROOT / "calibrators" / "tensorrt").with_suffix("").parts)
        for path in (ROOT / "calibrators" / "tensorrt").rglob("*.py")
        if path.stem != "__init__"
    ),
)
def test_every_module_is_imported_without_tensorrt_or_cuda(module: str) -> None:
    run(f"{BLOCK}import trt_ptq.calibrators.tensorrt.{module}")


def test_package_is_imported_without_loading_anything_heavy() -> None:
    heavy = "numpy", "onnx", "pydantic", "numba"
    assert run(f"import sys, trt_ptq.calibrators; print([m for m in {heavy!r} if m in sys.modules])") == "[]\n"


@pytest.mark.parametrize("name", ["EntropyCalibrator", "MinMaxCalibrator", "PercentileCalibrator", "TableCalibrator"])
def test_classes_are_importable_without_tensorrt(name: str) -> None:
    assert run(f"{BLOCK}from trt_ptq.calibrators import {name}; print({name}.__name__)") == f"{name}\n"


def test_calibrator_without_tensorrt_says_what_to_install() -> None:
    printed = error_of("from trt_ptq.calibrators import EntropyCalibrator; EntropyCalibrator([])")
    assert printed.startswith("MissingPackageError tensorrt is required")
    assert 'pip install "trt-ptq[trt10]"' in printed


def test_calibrator_on_tensorrt_11_says_what_to_do_instead(tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text('__version__ = "11.2.0.14"\n')
    printed = error_of("from trt_ptq.calibrators import EntropyCalibrator; EntropyCalibrator([])", tmp_path)
    assert printed.startswith("EngineError TensorRT 11.2.0.14 has no calibrators")
    assert "trt-ptq qdq MODEL --table TABLE" in printed


def test_machine_without_a_driver_says_what_to_do() -> None:
    printed = error_of(
        "import ctypes\n"
        "def missing(name): raise OSError(f'{name}: cannot open shared object file')\n"
        "ctypes.CDLL = missing\n"
        "from trt_ptq.calibrators.tensorrt.device_memory.buffers import open_buffers; open_buffers()"
    )
    assert printed.startswith(
        "EngineError no CUDA device to calibrate on (there is no NVIDIA driver here (libcuda.so.1"
    )
    assert "use trt-ptq calibrate, which needs none" in printed
