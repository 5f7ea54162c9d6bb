"""What the calibrators need to be imported, and what they say where it is missing."""

from __future__ import annotations

import os
import re
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


def said(code: str, *folders: Path) -> str:
    lines = "\n".join(f"    {line}" for line in code.splitlines())
    return run(
        f"{BLOCK if not folders else ''}try:\n{lines}\nexcept Exception as e: print(type(e).__name__, e)", *folders
    )


@pytest.mark.parametrize(
    "module", sorted(path.stem for path in (ROOT / "calibrators" / "tensorrt").glob("*.py") if path.stem != "__init__")
)
def test_every_module_is_imported_without_tensorrt_or_cuda(module: str) -> None:
    run(f"{BLOCK}import trt_ptq.calibrators.tensorrt.{module}")


def test_package_is_imported_without_loading_anything_heavy() -> None:
    heavy = "numpy", "onnx", "pydantic", "numba"
    assert run(f"import sys, trt_ptq.calibrators; print([m for m in {heavy!r} if m in sys.modules])") == "[]\n"


@pytest.mark.parametrize("name", ["EntropyCalibrator", "MinMaxCalibrator", "PercentileCalibrator", "TableCalibrator"])
def test_classes_are_found_in_the_package_without_tensorrt(name: str) -> None:
    assert run(f"{BLOCK}from trt_ptq.calibrators import {name}; print({name}.__name__)") == f"{name}\n"


def test_calibrator_without_tensorrt_says_what_to_install() -> None:
    told = said("from trt_ptq.calibrators import EntropyCalibrator; EntropyCalibrator([])")
    assert told.startswith("MissingPackageError tensorrt is needed here")
    assert 'pip install "trt-ptq[trt10]"' in told


def test_calibrator_on_tensorrt_11_says_what_to_do_instead(tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text('__version__ = "11.2.0.14"\n')
    told = said("from trt_ptq.calibrators import EntropyCalibrator; EntropyCalibrator([])", tmp_path)
    assert told.startswith("EngineError TensorRT 11.2.0.14 has no calibrators")
    assert "trt-ptq qdq MODEL --table TABLE" in told


def test_machine_without_a_way_to_the_device_says_what_to_install() -> None:
    told = said("from trt_ptq.calibrators.tensorrt.buffers import open_buffers; open_buffers()")
    for package, extra in {"pycuda.driver": "pycuda", "cuda.bindings.driver": "trt10", "torch": "torch"}.items():
        reason = r"is needed here and could not be imported \([^)]*\)"
        command = rf'pip install "trt-ptq\[{extra}\]"'
        assert re.search(rf"{re.escape(package)} {reason}: {command}", told), told
    assert told.startswith("MissingPackageError calibration needs one of pycuda, cuda-bindings or torch")
