"""Stand-in: builds with TensorRT's genuine bindings over a libnvinfer of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.engines.building.run_build import AMAX, build_on
from tests.engines.on_standins import LATEST
from tests.standins import packages
from tests.standins.libraries import Standins
from trt_ptq.engines.building.implicit import build_implicit
from trt_ptq.engines.library import tensorrt_rtx
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import EngineError
from trt_ptq.fp16.convert import to_float16
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model


@pytest.fixture(params=packages.TENSORRT_VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# ---- explicit


def test_auto_is_tensorrt_where_it_is_installed_and_finds_a_gpu(standins: Standins, cnn_path: Path, out: Path) -> None:
    manifest = build_on(standins, cnn_path, out, precision="fp32")["manifest"]
    assert manifest["backend"] == "tensorrt"
    assert manifest["backend_version"] == LATEST
    assert manifest["gpu"] == "host-memory stand-in (no GPU)"


def test_a_model_without_ranges_is_built_strongly_typed(
    standins: Standins, version: str, cnn_path: Path, out: Path
) -> None:
    built = build_on(standins, cnn_path, out, version, precision="fp32")
    assert built["manifest"]["flags"] == ["strongly_typed"]
    assert (built["plan"]["int8"], built["plan"]["fp16"], built["plan"]["source"]) == (False, False, "none")


def test_a_qdq_model_is_built_explicit(standins: Standins, tmp_path: Path, out: Path) -> None:
    scale, zero = (
        numpy_helper.from_array(np.array(0.1, np.float32), "s"),
        numpy_helper.from_array(np.array(0, np.int8), "z"),
    )
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 16]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "qdq", ends[:1], ends[1:], [scale, zero])
    path = tmp_path / "qdq.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    assert build_on(standins, path, out, shapes=[])["plan"]["source"] == "explicit"


# ---- implicit


def test_a_table_is_served_as_the_running_versions_cache(
    standins: Standins, version: str, cnn_path: Path, out: Path
) -> None:
    built = build_on(standins, cnn_path, out, version, implicit="table", amax=AMAX)
    header, first, *_ = built["plan"]["table"].splitlines()
    assert header == f"TRT-{built['plan']['version']}-EntropyCalibration2"
    assert first == "x: 3c010204"
    assert (built["plan"]["source"], built["plan"]["batches"]) == ("cache", 0)
    assert (built["plan"]["int8"], built["plan"]["fp16"]) == (True, True)
    assert built["manifest"]["flags"] == ["int8", "fp16", "calibrator=ENTROPY_CALIBRATION_2"]
    assert built["manifest"]["tensors_without_range"] == []


def test_dynamic_ranges_are_set_on_the_tensors(standins: Standins, version: str, cnn_path: Path, out: Path) -> None:
    built = build_on(standins, cnn_path, out, version, implicit="ranges", amax=AMAX)
    assert built["plan"]["dynamic_ranges"] == {name: [-amax, amax] for name, amax in AMAX.items()}
    assert built["plan"]["source"] == "none"
    assert built["manifest"]["flags"] == ["int8", "fp16", "dynamic_ranges"]


@pytest.mark.parametrize("implicit", ["table", "ranges"])
def test_tensors_without_a_range_are_named_in_the_manifest(
    standins: Standins, cnn_path: Path, out: Path, implicit: str
) -> None:
    few = {"x": 1.0, "r1": 3.0}
    manifest = build_on(standins, cnn_path, out, implicit=implicit, amax=few)["manifest"]
    assert manifest["tensors_without_range"] == [name for name in AMAX if name not in few]


def test_a_table_of_another_model_is_refused(standins: Standins, cnn_path: Path, out: Path) -> None:
    built = build_on(standins, cnn_path, out, implicit="table", amax={"images": 1.0})
    assert built["error"] == (
        "EngineError: the table has no range for any tensor of the model: "
        "the table names images, the model x, c1, r1, ..."
    )
    assert built["files"] == []


def test_a_calibrator_is_created_for_the_network_and_its_profile(standins: Standins, cnn_path: Path, out: Path) -> None:
    built = build_on(standins, cnn_path, out, implicit="IInt8MinMaxCalibrator")
    assert built["seen"] == {"calls": ["enter", "pass", "exit"], "profile": [4, 16, 8, 8], "inputs": ["x"]}
    assert built["manifest"]["flags"][-1] == "calibrator=MINMAX_CALIBRATION"


def test_a_calibrator_that_needs_two_passes_gets_them(standins: Standins, cnn_path: Path, out: Path) -> None:
    built = build_on(standins, cnn_path, out, implicit="IInt8MinMaxCalibrator", passes=2)
    assert built["seen"]["calls"] == ["enter", "pass", "pass", "exit"]


@pytest.mark.parametrize(
    ("failure", "message"), [("OSError", "OSError: disk on fire"), ("KeyboardInterrupt", "KeyboardInterrupt: ")]
)
def test_an_exception_in_a_callback_ends_the_build_and_nothing_is_written(
    standins: Standins, version: str, cnn_path: Path, out: Path, failure: str, message: str
) -> None:
    built = build_on(standins, cnn_path, out, version, implicit="IInt8EntropyCalibrator2", failure=failure)
    assert built["error"] == message
    assert built["files"] == []
    assert built["seen"]["calls"][-1] == "exit"


def test_a_library_without_calibrators_says_what_to_do_instead(cnn: Model, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason='needs tensorrt-rtx: pip install "trt-ptq[rtx]"')
    spec = EngineSpec(cnn.path, tmp_path / "m.engine", "int8", cnn.identity)
    with pytest.raises(EngineError, match=r"has no calibrators .*trt-ptq qdq MODEL --table TABLE.*trt10"):
        build_implicit(tensorrt_rtx(), spec, lambda _network, _profile: pytest.fail("it must not get that far"))


# ---- builder configuration


def test_builder_config_reaches_the_builder_and_the_manifest(
    standins: Standins, version: str, cnn_path: Path, out: Path
) -> None:
    builder_config = {"workspace_bytes": 2**30, "hardware_compatibility": "ampere+", "version_compatible": True}
    built = build_on(standins, cnn_path, out, version, precision="fp32", builder_config=builder_config)
    assert built["configured"] == {
        "workspace_bytes": 2**30,
        "hardware_compatibility": "AMPERE_PLUS",
        "version_compatible": True,
    }
    assert built["manifest"]["flags"] == [
        "strongly_typed",
        "workspace_bytes=1073741824",
        "hardware_compatibility=ampere+",
        "version_compatible",
    ]


def test_a_level_that_this_version_does_not_know_is_refused(standins: Standins, cnn_path: Path, out: Path) -> None:
    builder_config = {"hardware_compatibility": "same-compute-capability"}
    built = build_on(standins, cnn_path, out, "10.0.1", precision="fp32", builder_config=builder_config)
    assert built["error"].startswith("EngineError: TensorRT 10.0.1 has no hardware compatibility level same-compute")


def test_a_dla_core_that_the_machine_does_not_have_is_refused(standins: Standins, cnn_path: Path, out: Path) -> None:
    built = build_on(standins, cnn_path, out, implicit="table", amax=AMAX, builder_config={"dla_core": 0})
    assert built["error"].startswith("EngineError: there is no DLA core 0 (`dla_core`): this machine has no DLA")


def test_dla_requires_entropy_calibration_2(standins: Standins, cnn_path: Path, out: Path) -> None:
    builder_config = {"dla_core": 0}
    built = build_on(
        standins,
        cnn_path,
        out,
        implicit="IInt8MinMaxCalibrator",
        builder_config=builder_config,
        as_if_there_were_a_dla=True,
    )
    assert built["error"] == (
        "EngineError: DLA needs the algorithm EntropyCalibration2 (EntropyCalibrator), not MINMAX_CALIBRATION"
    )
    entropy = build_on(
        standins,
        cnn_path,
        out,
        implicit="IInt8EntropyCalibrator2",
        builder_config=builder_config,
        as_if_there_were_a_dla=True,
    )
    assert entropy["error"] is None
    assert entropy["manifest"]["flags"][-1] == "dla_core=0"


def test_a_dla_on_which_no_layer_of_an_explicit_build_can_run_is_refused(
    standins: Standins, version: str, cnn_path: Path, out: Path
) -> None:
    dla: dict[str, Any] = {"builder_config": {"dla_core": 0}, "as_if_there_were_a_dla": True}
    refused = build_on(standins, cnn_path, out, version, precision="fp32", **dla)
    assert refused["error"].startswith("EngineError: no layer of this model can run on DLA core 0")
    assert refused["files"] == []
    half = cnn_path.with_name("half.onnx")
    save_model(to_float16(load_model(cnn_path)), half)
    built = build_on(standins, half, out, version, precision="fp16", **dla)
    assert built["error"] is None
    assert built["manifest"]["flags"] == ["strongly_typed", "dla_core=0"]


def test_an_engine_whose_manifest_cannot_be_written_is_removed_with_the_old_manifest(
    standins: Standins, cnn_path: Path, out: Path
) -> None:
    assert build_on(standins, cnn_path, out, precision="fp32")["files"] == ["model.engine", "model.engine.json"]
    built = build_on(standins, cnn_path, out, precision="fp32", manifest_cannot_be_written=True)
    assert built["error"].startswith(f"OutputError: cannot write {out}.json")
    assert built["files"] == []


def test_an_old_engine_stays_with_its_manifest_when_the_new_one_cannot_be_built(
    standins: Standins, cnn_path: Path, out: Path
) -> None:
    old = build_on(standins, cnn_path, out, precision="fp32")["manifest"]
    built = build_on(standins, cnn_path, out, implicit="IInt8EntropyCalibrator2", failure="OSError")
    assert built["error"] == "OSError: disk on fire"
    assert built["files"] == ["model.engine", "model.engine.json"]
    assert json.loads(out.with_name("model.engine.json").read_text()) == old


def test_timings_are_written_after_a_build_and_read_before_the_next(
    standins: Standins, version: str, cnn_path: Path, out: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "timing.cache"
    for _ in range(2):
        built = build_on(
            standins, cnn_path, out, version, precision="fp32", builder_config={"timing_cache": str(cache)}
        )
        assert built["error"] is None
        assert cache.read_bytes() == b"stand-in timing cache"


def test_a_timing_cache_that_cannot_be_written_is_refused_before_the_build(
    standins: Standins, cnn_path: Path, out: Path
) -> None:
    builder_config = {"timing_cache": str(cnn_path / "timing.cache")}  # below a file
    built = build_on(standins, cnn_path, out, precision="fp32", builder_config=builder_config)
    assert built["error"].startswith(f"OutputError: cannot write {cnn_path / 'timing.cache'}")
    assert built["files"] == []


def test_a_calibration_profile_that_tensorrt_refuses_ends_the_build(
    standins: Standins, cnn_path: Path, out: Path
) -> None:
    built = build_on(standins, cnn_path, out, implicit="table", amax=AMAX, calibration_profile_refused=True)
    assert "refuses the calibration profile" in built["error"]
    assert built["files"] == []
