"""Loading and running engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.on_standins import LATEST, outcome_of
from tests.standins.libraries import Standins
from trt_ptq._internal.hardware.cuda import gpu_name
from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.manifest import manifest_path
from trt_ptq.engines.running.loader import load_engine
from trt_ptq.engines.spec import EngineSpec, parse_profiles
from trt_ptq.errors import EngineError
from trt_ptq.onnx_io.load import Model

SESSION = Path(__file__).with_name("standin_session.py")
NO_GPU = pytest.mark.skipif(gpu_name() is not None, reason="there is a GPU here")


@pytest.fixture
def engine(cnn: Model, tmp_path: Path) -> Path:
    """An engine that TensorRT-RTX really built."""
    pytest.importorskip("tensorrt_rtx", reason='needs tensorrt-rtx: pip install "trt-ptq[rtx]"')
    path = tmp_path / "model.engine"
    profiles = parse_profiles(["x=1x16x8x8:4x16x8x8:8x16x8x8"])
    build_engine(EngineSpec(cnn.path, path, "fp32", cnn.identity, profiles), "rtx")
    return path


# ---- run: a plan of TensorRT-RTX


@NO_GPU
def test_an_engine_cannot_be_loaded_without_a_gpu(engine: Path) -> None:
    with pytest.raises(EngineError, match=r"model\.engine: an engine runs only on an NVIDIA GPU, and there is none"):
        load_engine(engine)


def test_a_plan_that_differs_from_its_manifest_is_refused(engine: Path) -> None:
    engine.write_bytes(engine.read_bytes()[:-1])
    with pytest.raises(EngineError, match=r"differs from the engine in model\.engine\.json: damaged, or replaced"):
        load_engine(engine)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot read engine .*no\.engine: No such file"):
        load_engine(tmp_path / "no.engine")


# ---- stand-in: genuine bindings over our libnvinfer and libcuda

LOAD = """
import json, sys
from pathlib import Path
from trt_ptq.errors import EngineError
from trt_ptq.engines.running.loader import load_engine
try:
    load_engine(Path(sys.argv[1]))
except EngineError as error:
    print(json.dumps(str(error)))
"""


def test_a_corrupt_plan_gives_tensorrts_own_reason(standins: Standins, tmp_path: Path) -> None:
    path = tmp_path / "corrupt.engine"
    path.write_bytes(b"not a plan")
    message = outcome_of(standins, ["-c", LOAD, str(path)])
    assert message.startswith(f"{path}: TensorRT {LATEST} cannot load it: ")
    assert "these bytes are no plan; an engine runs only on the TensorRT version and the kind of GPU" in message


def test_a_plan_for_another_tensorrt_names_both(standins: Standins, cnn: Model, tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    options = {"onnx": str(cnn.path), "engine": str(path), "precision": "fp32", "shapes": ["x=4x16x8x8"]}
    assert (
        outcome_of(standins, [str(SESSION.parents[1] / "building" / "standin_build.py"), json.dumps(options)])["error"]
        is None
    )
    manifest = json.loads(manifest_path(path).read_text())
    manifest_path(path).write_text(json.dumps({**manifest, "backend_version": "10.9.0.34"}))
    message = outcome_of(standins, ["-c", LOAD, str(path)])
    assert message == (
        f"{path}: built by TensorRT 10.9.0.34, but {LATEST} is installed: build it again, or install that version"
    )


def test_a_plan_for_another_tensorrt_without_a_manifest_gives_tensorrts_own_reason(
    standins: Standins, tmp_path: Path
) -> None:
    path = tmp_path / "old.engine"
    path.write_bytes(b"TRT_PTQ STAND-IN PLAN, NOT A TENSORRT ENGINE\nversion: 100900\n")
    message = outcome_of(standins, ["-c", LOAD, str(path)])
    assert "the plan is of version 100900, this library of 101601" in message
    assert message.endswith("build it again on this machine")


@pytest.fixture(scope="module")
def session(standins: Standins, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("session") / "doubling.engine"
    path.write_bytes(b"12345")
    outcome: dict[str, Any] = outcome_of(standins, [str(SESSION), str(path)], defer=True)
    return outcome


def test_outputs_come_back_for_batches_of_any_size_in_turn(session: dict[str, Any]) -> None:
    assert session["answers"] == [True, True, True]


def test_int8_inputs_and_outputs_are_fed_and_read_as_floats(session: dict[str, Any]) -> None:
    assert session["int8"] == [[1, -2, 10]]  # 0.25 * (2 * round(x / 0.5))


def test_debug_tensors_are_copied_to_the_host(session: dict[str, Any]) -> None:
    assert session["debugged"] == {"y": True}


def test_the_shapes_that_an_engine_accepts_are_read(session: dict[str, Any]) -> None:
    assert session["profiles"] == {"x": "1x3:4x3:8x3"}


def test_latency_counts_the_runs_after_the_warm_up_in_the_optimal_shape(
    session: dict[str, Any],
) -> None:
    assert session["timed"] == [5, 4, [4, 3], 1234]


def test_an_open_session_inspects_at_the_optimal_shape(session: dict[str, Any]) -> None:
    assert session["planned"] == [[4, 3], [-1, 3]]


def test_kernels_are_timed_after_the_warm_up(session: dict[str, Any]) -> None:
    assert session["kernels"] == {"double": pytest.approx(1e-3)}


def test_feeds_that_do_not_fit_are_refused_with_what_the_engine_takes(session: dict[str, Any]) -> None:
    refused = session["refused"]
    assert refused["name"].endswith("doubling.engine: the engine has inputs x, the batch images")
    assert refused["type"].endswith("doubling.engine: input 'x' is float32, the batch has float16")
    assert refused["shape"].endswith("input 'x' takes shapes from [1, 3] to [8, 3], the batch has [9, 3]")


def test_closing_the_session_frees_everything(session: dict[str, Any]) -> None:
    assert session["while_open"]["device_allocations"] == 2
    kinds = ("device_allocations", "device_bytes", "streams", "events", "primary_context_users")
    assert [session["closed"][kind] for kind in kinds] == [0] * len(kinds)


def test_a_closed_session_holds_no_engine(session: dict[str, Any]) -> None:
    assert session["engine_after_close"] is False


def test_too_little_memory_names_the_tensor_and_what_is_free(standins: Standins, tmp_path: Path) -> None:
    outcome = outcome_of(standins, [str(SESSION), str(tmp_path / "none")], limit_bytes=100)
    assert outcome["error"] == (
        f"EngineError: {tmp_path / 'none'}: no device memory for 96 bytes of 'y' (4 of 100 bytes are free): "
        "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY (2); use a smaller batch, or free the GPU"
    )
    assert outcome["closed"]["device_allocations"] == outcome["closed"]["primary_context_users"] == 0


def test_no_device_is_no_gpu(standins: Standins) -> None:
    code = "import json; from trt_ptq._internal.hardware.cuda import gpu_name; print(json.dumps(gpu_name()))"
    assert outcome_of(standins, ["-c", code], no_device=True) is None
    assert outcome_of(standins, ["-c", code]) == "host-memory stand-in (no GPU)"
