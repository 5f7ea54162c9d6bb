"""The comparison's code on tiny models: that it counts and tells what it says, never how accurate."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import page
from benchmarks.accuracy.accuracy_row import measure
from benchmarks.accuracy.accuracy_rows import accuracy_rows
from benchmarks.accuracy.cases import CASES, Feeds
from benchmarks.accuracy.makers import MAKERS
from benchmarks.accuracy.share import share_of_macs_in_int8
from benchmarks.models.texts import line_texts
from trt_ptq.errors import TrtPtqError


def half_quantized(path: Path, *, quantize_data: bool = True) -> Path:
    """x [n, 4] @ 4x6, in INT8 if `quantize_data`, then @ 6x2 in float: 24 n and 12 n multiply-accumulates."""
    rng = np.random.default_rng(0)
    constants = {
        "scale": np.float32(0.1),
        "zero": np.int8(0),
        "w1": rng.integers(-9, 9, (4, 6), np.int8),
        "w2": rng.normal(size=(6, 2)).astype(np.float32),
    }
    data = "x_back" if quantize_data else "x"
    nodes = [
        helper.make_node("DequantizeLinear", ["w1", "scale", "zero"], ["w1_back"]),
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["x_int8"]),
        helper.make_node("DequantizeLinear", ["x_int8", "scale", "zero"], ["x_back"]),
        helper.make_node("MatMul", [data, "w1_back"], ["h"]),
        helper.make_node("MatMul", ["h", "w2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_node_is_in_int8_when_its_data_and_its_weight_are_dequantized(tmp_path: Path) -> None:
    assert share_of_macs_in_int8(half_quantized(tmp_path / "m.onnx"), {"x": (3, 4)}) == pytest.approx(24 / 36)


def test_a_quantized_weight_alone_is_not_int8_arithmetic(tmp_path: Path) -> None:
    path = half_quantized(tmp_path / "m.onnx", quantize_data=False)
    assert share_of_macs_in_int8(path, {"x": (3, 4)}) == 0.0


@pytest.mark.parametrize("count", [100, 3000])
def test_no_line_of_text_is_in_two_splits(count: int) -> None:
    splits = [set(line_texts(split, count)) for split in ("calibration", "validation", "test")]
    assert [len(lines) for lines in splits] == [count] * 3
    assert len(set.union(*splits)) == 3 * count


def test_the_test_lines_have_capitals_digits_and_punctuation() -> None:
    lines = line_texts("test", 1000)
    for has in (str.isupper, str.islower, str.isdigit, lambda one: one in ".,:!?$%@()-/+#"):
        assert sum(any(has(one) for one in line) for line in lines) >= 200


def outputs(name: str, feeds: Feeds) -> Feeds:
    """Outputs that the model's metric takes, of random numbers."""
    first = next(iter(feeds.values()))
    shapes = {
        "recogniser": (len(first), first.shape[-1] // 8, 6625),
        "detector": (len(first), 1, *first.shape[2:]),
        "magika": (len(first), 214),
        "minilm": (*first.shape, 384),
        "smollm2": (*first.shape, 49152),
    }
    return {"y": np.random.default_rng(0).random(shapes[name], np.float32)}


@pytest.mark.parametrize(
    "name",
    ["recogniser", "detector", *(pytest.param(one, marks=pytest.mark.slow) for one in ("magika", "minilm", "smollm2"))],
)
def test_no_sample_is_both_for_calibration_and_for_validation_or_the_test(name: str) -> None:
    case = CASES[name]
    seen: dict[str, set[bytes]] = {"calibration": set(), "validation": set(), "test": set()}

    def keep(split: str, feeds: Feeds) -> Feeds:
        seen[split].update(one.tobytes() for one in next(iter(feeds.values())))
        return outputs(name, feeds)

    for feeds in case.calibration(samples=8):
        keep("calibration", feeds)
    case.validation(partial(keep, "validation"), samples=8)
    case.evaluate(partial(keep, "test"), samples=8)
    assert [len(samples) for samples in seen.values()] == [8, 8, 8]
    assert len(set.union(*seen.values())) == 24


def test_each_model_has_a_row_for_each_maker() -> None:
    names = [row.name for row in accuracy_rows()]
    assert len(set(names)) == len(names) == len(CASES) * (1 + len(MAKERS))
    assert set(MAKERS) <= page.TITLES.keys(), "a row without a title would not be on the page"


def test_a_loss_needs_the_row_of_the_float_model() -> None:
    with pytest.raises(TrtPtqError, match="magika: FP32 was not measured"):
        measure("magika", "ours-plain", {"magika/fp32": {"failed": "no"}})
