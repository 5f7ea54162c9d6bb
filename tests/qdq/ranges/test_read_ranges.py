"""Reading ranges from Q/DQ models of trt_ptq, ONNX Runtime and modelopt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import ModelError
from trt_ptq.fp16.convert import convert_to_float16
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.qdq.ranges.read_ranges import read_qdq_ranges
from trt_ptq.types import Feeds

DATA = Path(__file__).parents[2] / "files" / "qdq"
TINY = DATA / "tiny.onnx"


class ErrorEnergy(CalibrationDataReader):  # type: ignore[misc]
    """Three batches of noise for ONNX Runtime's calibrator."""

    def __init__(self) -> None:
        self.batches: Iterator[Feeds] = iter(
            {"x": np.random.default_rng(seed).standard_normal((4, 3, 32, 32)).astype(np.float32)} for seed in range(3)
        )

    def get_next(self) -> Feeds | None:
        return next(self.batches, None)


def quantized_by_onnxruntime(folder: Path, **options: object) -> Path:
    path = folder / "onnxruntime.onnx"
    quantize_static(TINY, path, ErrorEnergy(), **options)
    return path


def initializer(path: Path, name: str) -> np.ndarray:
    return next(
        onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer if tensor.name == name
    )


def written(folder: Path, body: str, inputs: str = "float[4,16] x") -> Path:
    text = f'<ir_version: 10, opset_import: ["": 21]> g ({inputs}) => (float[4,16] y) {{ {body} }}'
    onnx.save(onnx.parser.parse_model(text), folder / "written.onnx")
    return folder / "written.onnx"


def test_our_own_model_gives_back_the_scales_bit_for_bit(tmp_path: Path) -> None:
    table = CalibrationTable({"p1": 1 / 3, "r2": np.pi * 1e-3})
    save_model(insert_qdq(load_model(TINY), table).model, tmp_path / "ours.onnx")
    found = read_qdq_ranges(tmp_path / "ours.onnx")
    assert {name: found.table.scale(name).tobytes() for name in found.table.amax} == {
        "r1": table.scale("p1").tobytes(),  # the input of the MaxPool that gives p1
        "p1": table.scale("p1").tobytes(),
        "r2": table.scale("r2").tobytes(),
    }
    assert found.widened == ()


def test_our_own_model_with_an_fp16_rest_gives_back_the_scales_as_float16_has_them(tmp_path: Path) -> None:
    table = CalibrationTable({"p1": 1 / 3, "r2": np.pi})
    save_model(convert_to_float16(insert_qdq(load_model(TINY), table).model).model, tmp_path / "ours.onnx")
    found = read_qdq_ranges(tmp_path / "ours.onnx").table
    wanted = {name: np.float32(np.float16(table.scale(name))) for name in table.amax}
    assert {name: found.scale(name) for name in found.amax} == wanted | {"r1": wanted["p1"]}  # the MaxPool's input


def test_symmetric_int8_of_onnxruntime_gives_its_scales_bit_for_bit(tmp_path: Path) -> None:
    path = quantized_by_onnxruntime(
        tmp_path, activation_type=QuantType.QInt8, per_channel=True, extra_options={"ActivationSymmetric": True}
    )
    found = read_qdq_ranges(path)
    assert set(found.table.amax) == {"x", "c1", "r1", "p1", "c2", "a", "r2", "y"}
    assert found.table.scale("c1") == initializer(path, "c1_scale")
    assert found.widened == ()


def test_asymmetric_uint8_of_onnxruntime_is_widened_and_reported(tmp_path: Path) -> None:
    path = quantized_by_onnxruntime(tmp_path, activation_type=QuantType.QUInt8)
    found = read_qdq_ranges(path)
    scale, zero = float(initializer(path, "x_scale")), int(initializer(path, "x_zero_point"))
    assert found.table.amax["x"] == max(zero * scale, (255 - zero) * scale)
    assert {"x", "r1", "y"} <= {tensor.name for tensor in found.widened}


def test_onnxruntimes_name_for_a_quantized_output_becomes_the_outputs(tmp_path: Path) -> None:
    path = quantized_by_onnxruntime(tmp_path)
    assert "y_QuantizeLinear_Input" in {name for node in onnx.load(path).graph.node for name in node.output}
    assert "y" in read_qdq_ranges(path).table.amax


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_model_of_modelopt_gives_its_activations_under_the_names_of_the_float_model(precision: str) -> None:
    """The fp16 model has a Cast between its input and the QuantizeLinear, and scales in float16."""
    found = read_qdq_ranges(DATA / f"tiny.modelopt-0.47.0.{precision}.onnx")
    assert set(found.table.amax) == {"x", "r1", "p1", "r2"}
    assert found.num_weights == 3
    assert found.widened == ()
    assert found.table.amax["x"] == pytest.approx(3.94555, rel=1e-4)


def test_a_weight_behind_other_operators_is_still_a_weight(tmp_path: Path) -> None:
    body = """
        s = Constant <value_float = 0.5> ()
        z = Constant <value = int8 {0}> ()
        w = Constant <value = float[16] {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}> ()
        v = Abs (w)
        wq = QuantizeLinear (v, s, z)
        wd = DequantizeLinear (wq, s, z)
        xq = QuantizeLinear (x, s, z)
        xd = DequantizeLinear (xq, s, z)
        y = Mul (xd, wd)
    """
    found = read_qdq_ranges(written(tmp_path, body))
    assert dict(found.table.amax) == {"x": 63.5}
    assert found.num_weights == 1


def test_a_tensor_with_several_scales_gets_the_widest_and_is_reported(tmp_path: Path) -> None:
    body = """
        s = Constant <value_float = 0.5> () t = Constant <value_float = 0.25> () z = Constant <value = int8 {0}> ()
        q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z)
        p = QuantizeLinear (x, t, z) e = DequantizeLinear (p, t, z)
        y = Add (d, e)
    """
    found = read_qdq_ranges(written(tmp_path, body))
    assert dict(found.table.amax) == {"x": 63.5}
    assert found.conflicting == ("x",)


def test_an_omitted_zero_point_means_uint8(tmp_path: Path) -> None:
    body = "s = Constant <value_float = 0.5> () q = QuantizeLinear (x, s) y = DequantizeLinear (q, s)"
    found = read_qdq_ranges(written(tmp_path, body))
    assert dict(found.table.amax) == {"x": 127.5}
    assert found.widened[0].encoding == "uint8 with zero point 0: 0 to 127.5"


@pytest.mark.parametrize(("zero", "amax"), [(200, 100.0), (50, 102.5)])
def test_an_asymmetric_range_is_covered_by_its_larger_end(tmp_path: Path, zero: int, amax: float) -> None:
    body = (
        f"s = Constant <value_float = 0.5> () z = Constant <value = uint8 {{{zero}}}> () "
        "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)"
    )
    assert dict(read_qdq_ranges(written(tmp_path, body)).table.amax) == {"x": amax}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "s = Constant <value_floats = [0.5, 1.0, 0.5, 1.0]> () z = Constant <value = int8[4] {0, 0, 0, 0}> () "
            "q = QuantizeLinear <axis = 0> (x, s, z) y = DequantizeLinear <axis = 0> (q, s, z)",
            r"'x' is quantized per channel \(4 scales\)",
        ),
        (
            "z = Constant <value = int8 {0}> () s = ReduceMax <keepdims = 0> (x) "
            "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)",
            "'x' has a scale that is computed at run time",
        ),
        (
            "s = Constant <value_float = 0.5> () z = Constant <value = int16 {0}> () "
            "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)",
            "'x' is quantized to INT16, not to 8-bit integers",
        ),
        (
            "s = Constant <value_float = 0.0> () z = Constant <value = int8 {0}> () "
            "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)",
            "'x' has scale 0; it must be positive and finite",
        ),
    ],
    ids=["per channel", "dynamic", "int16", "zero scale"],
)
def test_what_a_cache_cannot_represent_is_refused_by_name(tmp_path: Path, body: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        read_qdq_ranges(written(tmp_path, body))


def test_a_float_model_is_refused() -> None:
    with pytest.raises(ModelError, match=r"tiny\.onnx: none of its activations is quantized"):
        read_qdq_ranges(TINY)


def test_a_model_in_qoperator_format_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = quantized_by_onnxruntime(tmp_path, quant_format=QuantFormat.QOperator)
    with pytest.raises(ModelError, match=r"quantized with integer operators .* Q/DQ format"):
        read_qdq_ranges(path)
