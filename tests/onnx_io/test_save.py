"""Saving models: in one file or with external weights, atomically, and never over an input."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.onnx_io.test_external_data import mlp, split
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import OutputError, UsageError
from trt_ptq.onnx_io import save
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import check_saveable, save_model
from trt_ptq.output import check_folder, remove_last_run
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.qdq.weights import round_to_int8

ROOT = Path(__file__).parents[2]
RANGES = CalibrationTable({"x": 4.0, "s": 4.0})


@pytest.fixture
def model(tmp_path: Path) -> Model:
    onnx.save(mlp(), tmp_path / "model.onnx")
    return load_model(tmp_path / "model.onnx")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "m.onnx"


@pytest.fixture
def as_if_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save every model with external weights."""
    monkeypatch.setattr(save, "_SINGLE_FILE_LIMIT_BYTES", 0)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_one_file_has_the_bytes_that_protobuf_writes(model: Model, out: Path) -> None:
    qdq = insert_qdq(model, RANGES).model
    save_model(qdq, out)
    assert onnx.load(out) == ir.to_proto(qdq)
    onnx.checker.check_model(str(out), full_check=True)


@pytest.mark.usefixtures("as_if_large")
def test_external_weights_are_the_same(model: Model, out: Path) -> None:
    save_model(model.to_ir(), out)
    assert names(out.parent) == ["m.onnx", "m.onnx.data"]
    assert load_model(out).identity == model.identity
    onnx.checker.check_model(str(out), full_check=True)


@pytest.mark.usefixtures("as_if_large")
def test_external_weights_can_be_memory_mapped(model: Model, out: Path) -> None:
    save_model(model.to_ir(), out)
    offsets = [
        int(entry.value)
        for tensor in onnx.load(out, load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "offset"
    ]
    assert len(offsets) == 2
    assert all(offset % 4096 == 0 for offset in offsets)


@pytest.mark.usefixtures("as_if_large")
def test_saving_again_leaves_one_pair(model: Model, out: Path) -> None:
    for _ in range(3):
        save_model(model.to_ir(), out)
        assert len(names(out.parent)) == 2
        assert load_model(out).identity == model.identity


def test_a_model_that_became_small_leaves_no_weights_file(
    model: Model, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(save, "_SINGLE_FILE_LIMIT_BYTES", 0)
        save_model(model.to_ir(), out)
    save_model(model.to_ir(), out)
    assert names(out.parent) == ["m.onnx"]


@pytest.mark.usefixtures("as_if_large")
def test_an_unrelated_file_is_not_overwritten_by_weights(model: Model, out: Path) -> None:
    out.parent.mkdir()
    (out.parent / "m.onnx.data").write_text("notes")
    save_model(model.to_ir(), out)
    assert (out.parent / "m.onnx.data").read_text() == "notes"
    assert load_model(out).identity == model.identity


class UnluckyError(Exception):
    """What goes wrong in the middle."""


def failing(model: Model) -> ir.Model:
    """The model, whose last weight cannot be computed."""

    def fail() -> ir.TensorProtocol:
        raise UnluckyError

    changed = model.to_ir()
    value = changed.graph.initializers["b"]
    assert value.const_value is not None
    value.const_value = ir.LazyTensor(
        fail, dtype=ir.DataType.FLOAT, shape=ir.Shape(value.const_value.shape.numpy()), name="b"
    )
    return changed


@pytest.mark.parametrize("limit", [0, 2**30])
def test_a_failure_leaves_the_old_model_unchanged_and_nothing_else(
    model: Model, out: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(save, "_SINGLE_FILE_LIMIT_BYTES", limit)
    save_model(model.to_ir(), out)
    before = names(out.parent)
    with pytest.raises(UnluckyError):
        save_model(failing(model), out)
    assert names(out.parent) == before
    assert load_model(out).identity == model.identity


WAITS_IN_THE_MIDDLE = """
import sys, time
from pathlib import Path
import onnx_ir as ir
from trt_ptq.onnx_io import save
from trt_ptq.onnx_io.load import load_model

def wait():
    print("middle", flush=True)
    time.sleep(60)

save._SINGLE_FILE_LIMIT_BYTES = 0
model = load_model(Path(sys.argv[1])).to_ir()
value = model.graph.initializers["b"]
shape = ir.Shape(value.const_value.shape.numpy())
value.const_value = ir.LazyTensor(wait, dtype=ir.DataType.FLOAT, shape=shape, name="b")
save.save_model(model, Path(sys.argv[2]))
"""


@pytest.mark.usefixtures("as_if_large")
def test_kill_9_leaves_the_old_pair_unchanged(model: Model, out: Path) -> None:
    save_model(model.to_ir(), out)
    command = [sys.executable, "-c", WAITS_IN_THE_MIDDLE, str(model.path), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "middle\n"
        process.send_signal(signal.SIGKILL)
    assert load_model(out).identity == model.identity
    save_model(model.to_ir(), out)
    assert load_model(out).identity == model.identity


FILLS_THE_DISK = """
import resource, sys
from pathlib import Path
from trt_ptq.errors import OutputError
from trt_ptq.onnx_io import save
from trt_ptq.onnx_io.load import load_model

model = load_model(Path(sys.argv[1]))
save._SINGLE_FILE_LIMIT_BYTES = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    save.save_model(model.to_ir(), Path(sys.argv[2]))
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 2**30], ids=["two files", "one file"])
@pytest.mark.parametrize("outside", [False, True])
def test_a_full_disk_is_reported_in_one_line_and_leaves_nothing(
    tmp_path: Path, model: Model, out: Path, limit: int, outside: bool
) -> None:
    path = split(tmp_path / "split") if outside else model.path
    assert resource.RLIMIT_FSIZE  # stands for a full disk, which needs no root
    command = [sys.executable, "-c", FILLS_THE_DISK, str(path), str(out), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == f"cannot write {out}: File too large\n"
    assert names(out.parent) == []


def test_results_never_overwrite_the_models_weights(tmp_path: Path, out: Path) -> None:
    model = load_model(split(tmp_path / "m", "model.int8.onnx.data"))
    with pytest.raises(OutputError, match="it is an input of this command"):
        check_saveable(tmp_path / "m" / "model.int8.onnx.data", model)
    with pytest.raises(UsageError, match="would replace the model"):
        check_folder(tmp_path / "m", model.path, model.external.files)
    check_folder(out.parent, model.path, model.external.files)
    check_saveable(tmp_path / "m" / "model.int8.onnx", model)  # gets weights of another name


def test_weights_that_the_model_shares_with_an_old_result_are_not_removed(tmp_path: Path) -> None:
    path = split(tmp_path, "old.onnx.data")
    (tmp_path / "old.onnx").write_bytes(path.read_bytes())
    with pytest.raises(
        OutputError, match=r"model\.onnx uses its weights file old\.onnx\.data; choose another output path"
    ):
        check_saveable(tmp_path / "old.onnx", load_model(path))


@pytest.mark.usefixtures("as_if_large")
def test_the_last_runs_weights_are_removed_with_its_model(model: Model, tmp_path: Path) -> None:
    for _ in range(2):
        save_model(model.to_ir(), tmp_path / "int8" / "model.int8.onnx")
    remove_last_run(tmp_path / "int8")
    assert names(tmp_path / "int8") == []


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(2500, 7, 70), (3, 1100, 1000)])
def test_rounding_in_blocks_equals_rounding_at_once(axis: int, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=shape).astype(np.float32)
    scales = random.uniform(0.005, 0.02, shape[axis]).astype(np.float32)
    broadcast_scales = scales.reshape([-1 if dimension == axis else 1 for dimension in range(3)])
    at_once = np.clip(np.rint(weight / broadcast_scales), -127, 127).astype(np.int8)
    np.testing.assert_array_equal(round_to_int8(weight, scales, axis), at_once)
