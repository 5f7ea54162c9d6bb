"""Every trt-ptq line of docs/migrating-to-tensorrt-11.md runs: a small model, a CPU, a TensorRT-RTX builder."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization import write_calibration_table
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.table_file import load_table, save_table
from trt_ptq.calibrators.table.tensorrt_cache import TensorRTVersion
from trt_ptq.cli import main

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "migrating-to-tensorrt-11.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^ *```sh\n(.*?)^ *```", GUIDE, re.DOTALL | re.MULTILINE)
COMMANDS = [line.strip() for block in BLOCKS for line in block.splitlines() if line.strip().startswith("trt-ptq ")]
LOADER = re.search(r"```python\n(# loader\.py\n.*?)```", GUIDE, re.DOTALL)

OLD = {"x": 4.1, "c1": 2.2, "r1": 2.1, "c2": 3.4, "a": 3.6, "r2": 3.4, "y": 3.9}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the guide talks of: two models, their caches, data, and ONNX Runtime's table."""
    monkeypatch.chdir(tmp_path)
    for model, cache in (("model.onnx", "old.cache"), ("best.onnx", "best.cache")):
        shutil.copy(ROOT / "tests" / "files" / "qdq" / "tiny.onnx", model)
        save_table(CalibrationTable(OLD), Path(cache), TensorRTVersion(8, 6, 1))
    Path("data").mkdir()
    for index in range(6):
        batch = np.random.default_rng(index).standard_normal((4, 3, 32, 32)).astype(np.float32)
        np.savez(f"data/{index}.npz", x=batch)
        np.save(f"batch{index}.npy", batch)
    assert LOADER is not None
    Path("loader.py").write_text(LOADER[1])
    ends = {name: (np.float32(-amax), np.float32(amax / 2)) for name, amax in OLD.items()}
    write_calibration_table(TensorsData(CalibrationMethod.MinMax, ends), ".")
    return tmp_path


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", shlex.split(command))
    with pytest.raises(SystemExit) as end:
        main.main()
    assert not end.value.code, f"{command}: exit status {end.value.code}"


@pytest.mark.slow
def test_every_command_of_the_guide_runs(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """run: in the order of the page; the RTX lines only where TensorRT for RTX is installed."""
    assert len(COMMANDS) > 20
    has_rtx = importlib.util.find_spec("tensorrt_rtx") is not None
    for command in COMMANDS:
        if has_rtx or "rtx" not in command:
            run(command, monkeypatch)
    assert load_table(Path("fleet.cache")).amax.keys() == {"r1", "p1", "r2"}


def test_every_trt_ptq_command_of_the_first_table_is_also_run_below() -> None:
    named = re.findall(r"\| `trt-ptq ((?:cache )?\w+)", GUIDE)
    assert named
    assert all(any(line.startswith(f"trt-ptq {name} ") for line in COMMANDS) for name in named)
