"""Sessions memory-map weights from a file instead of holding several copies."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from tests.networks import weight, write
from trt_ptq.onnx_io.externalized import externalized
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.ort_session import create_session, run_session
from trt_ptq.types import Array, Batch

ROOT = Path(__file__).parents[2]
PYTHON_BYTES = 300_000_000  # Python with NumPy, onnx, ONNX Runtime and numba

COLLECTING = """
import sys
from pathlib import Path
import numpy as np
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.data.open import open_data
from trt_ptq.onnx_io.load import load_model
from trt_ptq.calibration.tensors import select_calibration_tensors
model = load_model(Path(sys.argv[1]))
size = model.inputs[0].shape[1]
ones = open_data([{"x": np.ones((1, size, 1, 1), np.float32)}], model.inputs)
collect_statistics(model, ones, select_calibration_tensors(model, ["all"]))
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def convolutions(path: Path, channels: int, count: int = 2) -> Path:
    """x -> t0 -> t1 -> ..., all [n, channels, 1, 1]; the weights are in the file itself."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, 1, 1])
    names = ["x", *(f"t{index}" for index in range(count))]
    nodes = [
        helper.make_node("Conv", [names[index], f"w{index}"], [names[index + 1]], kernel_shape=[1, 1])
        for index in range(count)
    ]
    weights = [weight(f"w{index}", channels, channels, 1, 1) for index in range(count)]
    return write(path, nodes, weights, [given], names[-1:])


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_model(convolutions(tmp_path / "model.onnx", 256))


def batch() -> Batch:
    return Batch({"x": np.random.default_rng(0).standard_normal((2, 256, 1, 1), np.float32)}, "batch")


def whole(model: Model) -> Array:
    return run_session(create_session(model.proto, model.external.folder, "model"), batch())[0]


def test_a_session_outlives_the_file_of_its_weights(model: Model) -> None:
    with externalized(model, model.to_ir()) as (proto, folder):
        assert proto.ByteSize() < 10_000 < 2 * 256 * 256 * 4
        session = create_session(proto, folder, "model")
    assert not folder.exists()
    assert np.array_equal(run_session(session, batch())[0], whole(model))


def test_without_a_temporary_folder_the_weights_stay_in_the_proto(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with externalized(model, model.to_ir()) as (proto, folder):
        assert proto == ir.to_proto(model.to_ir())
        session = create_session(proto, folder, "model")
    assert np.array_equal(run_session(session, batch())[0], whole(model))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_calibration_needs_at_most_three_times_the_size_of_the_weights(tmp_path: Path) -> None:
    """As they were read, as ONNX Runtime has rearranged them, and what it rearranges or runs from, mapped."""
    path = convolutions(tmp_path / "model.onnx", 4096, count=4)
    command = [sys.executable, "-c", COLLECTING, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 3 * path.stat().st_size + PYTHON_BYTES
