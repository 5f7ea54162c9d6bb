"""The evidence of the rules: TensorRT-RTX builds the engines here (proof: run; not executed)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.cli.run import ROOT
from tests.lint.findings import rules
from tests.lint.moves import MOVES
from tests.lint.sketch import ROWS, Sketch
from trt_ptq.errors import EngineError

pytest.importorskip("tensorrt_rtx", reason='needs tensorrt-rtx: pip install "trt-ptq[rtx]"')
from tests.lint.rtx_operands import operands

INT8, FLOAT = ("int8", "int8"), ("float", "float")
KERNEL = np.ones((16, 16, 3, 3), np.int8)


def rows() -> Sketch:
    return Sketch(shape=ROWS)


def eight_bit_float(sketch: Sketch, value: str) -> str:
    zero_point = sketch.tensor(helper.make_tensor("", TensorProto.FLOAT8E4M3FN, [], [0]))
    scale = sketch.constant(0.02, np.float32)
    quantized = sketch.node("QuantizeLinear", value, scale, zero_point)
    return sketch.node("DequantizeLinear", quantized, scale, zero_point)


REFUSED: dict[str, tuple[Callable[[], Sketch], Callable[[Sketch], str], str]] = {
    "zero-point": (Sketch, lambda s: s.conv(s.pair("x", 0.02, np.int8(3))), "zero point is not supported"),
    "uint8": (Sketch, lambda s: s.conv(s.pair(), s.kernel(dtype=np.uint8)), "UINT8"),
    "int32-bias": (
        Sketch,
        lambda s: s.conv(s.pair(), s.kernel(), s.dequantize(s.constant(np.ones(16, np.int32)), 0.1, None)),
        "input has type Int32",
    ),
    "type": (
        lambda: Sketch(opset=21),
        lambda s: s.node("Relu", s.pair("x", 0.02, np.int16(0))),
        "Failed to import initializer",
    ),
    "integer-operator": (
        Sketch,
        lambda s: s.node("Cast", s.node("ConvInteger", s.quantize("x"), s.constant(KERNEL)), to=TensorProto.FLOAT),
        "cannot parse",
    ),
    "int8-constant": (
        rows,
        lambda s: s.node(
            "MatMul",
            s.pair(),
            s.dequantize(
                s.node("Transpose", s.constant(np.ones((64, 32), np.int8))), np.full(64, 1), np.zeros(64, np.int8)
            ),
        ),
        "only allowed before DQ",
    ),
    "scale zero": (Sketch, lambda s: s.conv(s.pair("x", 0.0)), "must all be positive"),
    "scale negative": (Sketch, lambda s: s.conv(s.pair("x", -0.02)), "must all be positive"),
    "scale nan": (Sketch, lambda s: s.conv(s.pair("x", np.nan)), "must all be positive"),
    "scale-count": (
        Sketch,
        lambda s: s.conv(s.pair(), s.dequantize(s.constant(KERNEL), np.full(8, 1), np.zeros(8, np.int8), axis=0)),
        "number of scales",
    ),
    "mixed-operands": (
        lambda: Sketch(opset=19, shape=ROWS),
        lambda s: s.node("MatMul", eight_bit_float(s, "x"), s.weight(32, 64, axis=1)),
        "cannot build",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tensorrt_rtx_refuses_the_model(tmp_path: Path, case: str) -> None:
    begin, draw, reason = REFUSED[case]
    sketch = begin()
    path = sketch.save(tmp_path / "m.onnx", draw(sketch))
    assert case.split(maxsplit=1)[0] in rules(path)
    with pytest.raises(EngineError, match=reason):
        operands(path)


@pytest.mark.parametrize("scale", [np.inf, 1e-40], ids=["infinite", "denormal"])
def test_a_scale_that_destroys_the_tensor_is_built_silently(tmp_path: Path, scale: float) -> None:
    sketch = Sketch()
    path = sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair("x", scale)))
    assert list(operands(path).values()) == [INT8]


def test_a_scale_computed_from_the_input_crashes_the_builder(tmp_path: Path) -> None:
    sketch = Sketch()
    scale, zero_point = sketch.node("ReduceMax", "x", keepdims=0), sketch.constant(np.int8(0))
    quantized = sketch.node("QuantizeLinear", "x", scale, zero_point)
    output = sketch.conv(sketch.node("DequantizeLinear", quantized, scale, zero_point))
    path = sketch.save(tmp_path / "m.onnx", output)
    command = [
        sys.executable,
        "-c",
        "import sys; from tests.lint.rtx_operands import operands, Path; operands(Path(sys.argv[1]))",
    ]
    done = subprocess.run([*command, path], capture_output=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode < 0, (done.returncode, done.stderr)  # ended by a signal


BUILT: dict[str, tuple[Callable[[], Sketch], Callable[[Sketch], str], tuple[str, str]]] = {
    "sound": (Sketch, lambda s: s.conv(s.pair()), INT8),
    "a sound MatMul": (rows, lambda s: s.node("MatMul", s.pair(), s.weight(32, 64, axis=1)), INT8),
    "a sound MatMul of two activations": (
        rows,
        lambda s: s.node("MatMul", s.pair(), s.pair(s.input("z", 32, 64))),
        INT8,
    ),
    "uint8": (Sketch, lambda s: s.conv(s.pair("x", 0.02, np.uint8(0))), INT8),
    "weight-per-tensor": (Sketch, lambda s: s.conv(s.pair(), s.dequantize(s.constant(KERNEL), 0.01)), INT8),
    "weight-axis": (Sketch, lambda s: s.conv(s.pair(), s.kernel(axis=1)), FLOAT),
    "weight-axis of MatMul": (rows, lambda s: s.node("MatMul", s.pair(), s.weight(32, 64, axis=0)), FLOAT),
    "activation-per-channel": (
        Sketch,
        lambda s: s.conv(s.pair("x", np.full(16, 0.02), np.zeros(16, np.int8), axis=1)),
        FLOAT,
    ),
    "scale-vector": (Sketch, lambda s: s.conv(s.pair("x", [0.02], np.zeros(1, np.int8))), FLOAT),
    "float-operand": (Sketch, lambda s: s.conv(s.pair(), s.float_kernel()), FLOAT),
    "weight-only": (Sketch, lambda s: s.conv("x"), FLOAT),
    "runtime-weight": (Sketch, lambda s: s.conv(s.pair(), s.pair(s.input("w", 16, 16, 3, 3))), INT8),
    "lone-dequantize": (lambda: Sketch(dtype=TensorProto.INT8), lambda s: s.conv(s.dequantize("x")), INT8),
    "concat-scales": (
        Sketch,
        lambda s: s.conv(s.node("Concat", s.pair(), s.pair(s.input("z", 1, 16, 8, 8), 0.05), axis=2)),
        FLOAT,
    ),
    "a Concat of one scale": (
        Sketch,
        lambda s: s.conv(s.node("Concat", s.pair(), s.pair(s.input("z", 1, 16, 8, 8)), axis=2)),
        INT8,
    ),
}


@pytest.mark.parametrize("case", BUILT)
def test_operands_in_the_engine_match_the_findings(tmp_path: Path, case: str) -> None:
    begin, draw, expected = BUILT[case]
    sketch = begin()
    path = sketch.save(tmp_path / "m.onnx", draw(sketch))
    first = case.split(maxsplit=1)[0]
    assert (first in rules(path)) == ("-" in first or first == "uint8")
    assert list(operands(path).values()) == [expected]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_convtranspose_reads_float_in_tensorrt_rtx_for_any_axis(tmp_path: Path, axis: int) -> None:
    sketch = Sketch()
    output = sketch.node("ConvTranspose", sketch.pair(), sketch.weight(16, 32, 3, 3, axis=axis))
    assert list(operands(sketch.save(tmp_path / "m.onnx", output)).values()) == [FLOAT]


@pytest.mark.parametrize("move", MOVES)
def test_a_convolution_reads_int8_behind_an_operator_that_only_moves_data(tmp_path: Path, move: str) -> None:
    sketch = Sketch()
    path = sketch.save(tmp_path / "m.onnx", sketch.conv(MOVES[move](sketch, sketch.pair())))
    assert list(operands(path).values()) == [INT8]
