"""The plan that is kept beside an engine of TensorRT-RTX (built for real, but not executed)."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from trt_ptq._internal.hardware.cuda import gpu_name
from trt_ptq.analysis.macs import count_macs
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.building.builder import EngineBuilder
from trt_ptq.engines.library import tensorrt_rtx
from trt_ptq.engines.manifest import manifest_path, read_manifest, write_engine
from trt_ptq.engines.plans.plan_file import plan_path, write_plan
from trt_ptq.engines.running.stored_plan import read_engine_plan
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import EngineError
from trt_ptq.fp16.convert import convert_to_float16
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.types import ShapeProfile

pytest.importorskip("tensorrt_rtx", reason='needs tensorrt-rtx: pip install "trt-ptq[rtx]"')
FIXED = {"x": ShapeProfile.parse("4x16x8x8")}
DYNAMIC = {"x": ShapeProfile.parse("1x16x8x8:4x16x8x8:8x16x8x8")}


@pytest.fixture
def spec(cnn: Model, tmp_path: Path) -> EngineSpec:
    """An INT8 engine of a small convolutional network."""
    quantized = insert_qdq(cnn, CalibrationTable({"x": 1.0, "r1": 3.0, "f": 4.0})).model
    save_model(convert_to_float16(quantized).model, tmp_path / "model.int8.onnx")
    return EngineSpec(tmp_path / "model.int8.onnx", tmp_path / "model.engine", "int8", cnn.identity, FIXED)


def test_the_plan_stands_beside_the_engine_and_is_named_in_its_manifest(spec: EngineSpec) -> None:
    manifest = build_engine(spec, "rtx")
    assert plan_path(spec.engine).name == "model.engine.plan.json"
    assert manifest.plan_sha256 == hashlib.sha256(plan_path(spec.engine).read_bytes()).hexdigest()
    plan = read_engine_plan(spec.engine)
    assert plan == read_engine_plan(plan_path(spec.engine))
    assert (plan.source, plan.version, plan.shapes) == (
        "tensorrt-rtx",
        manifest.backend_version,
        {"x": (4, 16, 8, 8)},
    )
    assert plan.warnings == ()
    assert "int8" in plan.precisions()


def test_its_macs_are_those_of_the_model(cnn: Model, spec: EngineSpec) -> None:
    build_engine(spec, "rtx")
    assert read_engine_plan(spec.engine).macs == sum(count_macs(cnn, {"x": (4, 16, 8, 8)}).values())


def test_with_dynamic_shapes_the_plan_is_that_of_the_optimum_and_says_so(spec: EngineSpec) -> None:
    fixed = replace(spec, engine=spec.engine.with_name("fixed.engine"))
    build_engine(fixed, "rtx")
    build_engine(replace(spec, profiles=DYNAMIC), "rtx")
    plan = read_engine_plan(spec.engine)
    assert plan.warnings == ("the engine has dynamic shapes: these are the kernels of a build for x=4x16x8x8 alone",)
    assert plan.bytes_moved == read_engine_plan(fixed.engine).bytes_moved > 0


def test_detailed_verbosity_adds_nothing_to_the_engine(spec: EngineSpec) -> None:
    library = tensorrt_rtx()
    detailed, silent = (EngineBuilder(library, spec, strongly_typed=True) for _ in range(2))
    silent.config.profiling_verbosity = library.module.ProfilingVerbosity.NONE
    assert memoryview(detailed.plan()).nbytes == memoryview(silent.plan()).nbytes
    assert detailed.engine_plan() is not None
    assert silent.engine_plan() is None


def test_a_new_engine_never_stays_beside_the_plan_of_an_old_one(spec: EngineSpec) -> None:
    manifest = build_engine(spec, "rtx")
    write_engine(spec.engine, memoryview(b"another engine"), manifest.model_copy(update={"plan_sha256": None}))
    assert not plan_path(spec.engine).exists()


def test_a_log_in_an_unknown_format_costs_the_plan_but_not_the_engine(
    spec: EngineSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_builder: EngineBuilder) -> None:
        raise EngineError("its format has changed")

    monkeypatch.setattr(EngineBuilder, "engine_plan", fail)
    assert build_engine(spec, "rtx").plan_sha256 is None
    assert spec.engine.exists()
    assert "model.engine is written without its plan: its format has changed" in caplog.text


def test_a_replaced_engine_is_refused(spec: EngineSpec) -> None:
    build_engine(spec, "rtx")
    spec.engine.write_bytes(b"another engine")
    with pytest.raises(EngineError, match=r"differs from the engine in model\.engine\.json"):
        read_engine_plan(spec.engine)


@pytest.mark.skipif(gpu_name() is not None, reason="there is a GPU here")
def test_a_folder_has_no_plan(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r": a folder: give an engine, such as .*model\.int8\.engine"):
        read_engine_plan(tmp_path)


def test_an_engine_without_a_plan_says_what_to_do(spec: EngineSpec) -> None:
    build_engine(spec, "rtx")
    manifest_path(spec.engine).unlink()
    with pytest.raises(EngineError, match=r"no plan is kept beside it, .* or give the model"):
        read_engine_plan(spec.engine)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.engine.plan.json", b"{}", "not the plan of an engine"),
        ("calibration.json", b"{}", r"calibration\.json: no plan: give an engine"),
        ("layers.json", b'{"Layers": 1}', "unexpected output of the engine inspector"),
        ("build.log", b"[V] nothing", r"build\.log: this log of TensorRT-RTX has no list of kernels"),
        ("build.log", b"\xff\xfe", "not a text file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    with pytest.raises(EngineError, match="cannot read"):
        read_engine_plan(path)
    path.write_bytes(content)
    with pytest.raises(EngineError, match=message):
        read_engine_plan(path)


def test_the_plan_of_a_manifest_that_is_gone_is_missed_by_name(spec: EngineSpec) -> None:
    build_engine(spec, "rtx")
    assert read_manifest(spec.engine).plan_sha256 is not None
    plan_path(spec.engine).unlink()
    with pytest.raises(EngineError, match=r"cannot read .*model\.engine\.plan\.json"):
        read_engine_plan(spec.engine)


def test_an_engine_may_be_renamed_with_its_files_but_not_stay_beside_another_plan(spec: EngineSpec) -> None:
    build_engine(spec, "rtx")
    plan, renamed = read_engine_plan(spec.engine), spec.engine.with_name("renamed.engine")
    for path in (Path, manifest_path, plan_path):
        path(spec.engine).rename(path(renamed))
    assert read_engine_plan(renamed) == plan
    write_plan(plan.model_copy(update={"kernels": plan.kernels[1:]}), plan_path(renamed))
    with pytest.raises(EngineError, match=r"renamed\.engine\.plan\.json: the plan of another engine"):
        read_engine_plan(renamed)
