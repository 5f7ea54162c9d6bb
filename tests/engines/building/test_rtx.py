"""Engines that TensorRT-RTX builds without a GPU (built for real, but not executed)."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnx
import onnx_ir as ir
import pytest

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.building.builder import EngineBuilder
from trt_ptq.engines.manifest import read_manifest
from trt_ptq.engines.spec import EngineSpec, parse_profiles
from trt_ptq.errors import EngineError, UsageError
from trt_ptq.fp16.convert import convert_to_float16, to_float16
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.types import ShapeProfile

pytest.importorskip("tensorrt_rtx", reason='needs tensorrt-rtx: pip install "trt-ptq[rtx]"')
PROFILE = {"x": ShapeProfile((1, 16, 8, 8), (4, 16, 8, 8), (8, 16, 8, 8))}


def spec_of(model: Model, onnx: Path, **profiles: ShapeProfile) -> EngineSpec:
    return EngineSpec(onnx, onnx.with_suffix(".engine"), "int8", model.identity, profiles or PROFILE)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8 in fp16"])
def test_every_precision_builds_with_a_manifest(cnn: Model, tmp_path: Path, precision: str) -> None:
    path = tmp_path / "converted.onnx"
    models: dict[str, Callable[[], ir.Model]] = {
        "fp32": cnn.to_ir,
        "fp16": lambda: to_float16(cnn),
        "int8": lambda: insert_qdq(cnn, CalibrationTable({"x": 1.0, "r1": 3.0, "f": 4.0})).model,
    }
    models["int8 in fp16"] = lambda: convert_to_float16(models["int8"]()).model
    save_model(models[precision](), path)
    built = build_engine(spec_of(cnn, path))
    engine = path.with_suffix(".engine")
    assert read_manifest(engine) == built
    assert built.sha256 == hashlib.sha256(engine.read_bytes()).hexdigest()
    assert built.size_bytes == engine.stat().st_size > 0
    assert built.gpu is None
    assert built.profiles == {"x": "1x16x8x8:4x16x8x8:8x16x8x8"}


@pytest.mark.parametrize("during", ["__init__", "plan"])
def test_ctrl_c_while_the_builder_logs_is_not_lost(
    cnn: Model, tmp_path: Path, during: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorrt_rtx as trt

    step = getattr(EngineBuilder, during)
    sent: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc]
        def log(self, _severity: object, _message: str) -> None:
            if sent == ["armed"]:
                sent.append("Ctrl-C")
                signal.raise_signal(signal.SIGINT)

    def armed(*arguments: object, **options: object) -> object:
        sent.append("armed")
        return step(*arguments, **options)

    logger = Logger()
    monkeypatch.setattr(EngineBuilder, during, armed)
    monkeypatch.setattr("trt_ptq.engines.building.builder.BuilderLog", lambda _library: SimpleNamespace(logger=logger))
    save_model(cnn.to_ir(), tmp_path / "m.onnx")
    with pytest.raises(KeyboardInterrupt):
        build_engine(spec_of(cnn, tmp_path / "m.onnx"))
    assert sent == ["armed", "Ctrl-C"]
    assert not (tmp_path / "m.engine").exists()


def test_dynamic_dimensions_without_a_profile_are_named_with_an_example(cnn: Model) -> None:
    spec = EngineSpec(cnn.path, cnn.path.with_suffix(".engine"), "fp32", cnn.identity)
    with pytest.raises(
        EngineError, match=r"'x' has dynamic dimensions axis 0 \(n\).* x=1x16x8x8:8x16x8x8:16x16x8x8, or one shape"
    ):
        build_engine(spec)
    assert not spec.engine.exists()


def test_a_profile_that_does_not_fit_the_model_is_refused(cnn: Model) -> None:
    wrong = ShapeProfile((1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8))
    with pytest.raises(EngineError, match=r"does not fit the shape \?x16x8x8 in the model"):
        build_engine(spec_of(cnn, cnn.path, x=wrong))


def test_an_unknown_input_is_refused(cnn: Model) -> None:
    with pytest.raises(EngineError, match="unknown inputs images; the model has x"):
        build_engine(spec_of(cnn, cnn.path, images=PROFILE["x"]))


def test_an_input_that_is_an_output_is_refused_by_its_name(cnn: Model, tmp_path: Path) -> None:
    proto = onnx.load(cnn.path)
    proto.graph.output.append(proto.graph.input[0])
    path = tmp_path / "passed_on.onnx"
    onnx.save(proto, path)
    with pytest.raises(EngineError, match="input 'x' is also an output"):
        build_engine(spec_of(cnn, path, **PROFILE))


def test_a_file_that_cannot_be_parsed_gives_the_builders_reason(cnn: Model, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(EngineError, match=r"broken\.onnx: TensorRT-RTX cannot parse it: .+"):
        build_engine(spec_of(cnn, broken))


def test_an_unknown_backend_is_refused(cnn: Model) -> None:
    with pytest.raises(UsageError, match="`backend` must be one of auto, trt, rtx, not 'openvino'"):
        build_engine(spec_of(cnn, cnn.path), "openvino")


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.engine.json").write_text('{"backend": 3')
    with pytest.raises(EngineError, match="not an engine manifest"):
        read_manifest(tmp_path / "m.engine")


@pytest.mark.parametrize("text", ["x", "x=", "x=1x2:3x4", "x=0x3", "x=1x-3", "=1x3", "x=1x3:2x3:3x3:4x3", "x=axb"])
def test_a_malformed_shape_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="MIN:OPT:MAX"):
        parse_profiles([text])


@pytest.mark.parametrize("text", ["x=2x3:1x3:4x3", "x=1x3:2x4:3x3", "x=1x3:2x3x1:3x3"])
def test_a_profile_must_be_ordered_and_of_one_rank(text: str) -> None:
    with pytest.raises(UsageError, match="MIN <= OPT <= MAX"):
        parse_profiles([text])


def test_a_single_shape_is_fixed_and_names_may_hold_equal_signs() -> None:
    parsed = parse_profiles(["a=b=8x3"])
    assert parsed["a=b"].fixed == (8, 3)


def test_a_qdq_model_builds_with_debug_tensors(cnn: Model, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    save_model(insert_qdq(cnn, CalibrationTable({"x": 1.0, "r1": 3.0, "f": 4.0})).model, path)
    build_engine(replace(spec_of(cnn, path), debug_tensors=("r1", "f")))
    assert path.with_suffix(".engine").stat().st_size > 0
    with pytest.raises(EngineError, match="no tensor 'z' to mark as a debug tensor"):
        build_engine(replace(spec_of(cnn, path), debug_tensors=("r1", "z")))
