"""Whole models: what is refused, what is checked, and that models without defects have no findings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.lint.findings import found, rules
from tests.lint.sketch import Sketch
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import ModelError
from trt_ptq.lint.linter import RULES, lint_model
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq

DATA = Path(__file__).parents[1] / "files" / "qdq"


def test_our_own_model_has_no_findings(cnn: Model, tmp_path: Path) -> None:
    save_model(insert_qdq(cnn, CalibrationTable({"x": 1.0, "r1": 3.0, "f": 4.0})).model, tmp_path / "int8.onnx")
    assert lint_model(tmp_path / "int8.onnx") == []


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_model_of_modelopt_has_no_findings(precision: str) -> None:
    assert lint_model(DATA / f"tiny.modelopt-0.47.0.{precision}.onnx") == []


def test_a_float_model_is_refused(cnn_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cnn\.onnx: nothing in it is quantized: pass a Q/DQ model"):
        lint_model(cnn_path)


def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("TRT-8601-EntropyCalibration2\n")
    with pytest.raises(ModelError, match=r"text\.onnx: not an ONNX model"):
        lint_model(tmp_path / "text.onnx")


def test_rules_have_unique_ids_and_texts() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert all(rule.effect and rule.remedy and rule.evidence for rule in RULES)


def test_scales_in_constant_nodes_are_read(tmp_path: Path) -> None:
    sketch = Sketch()
    scale = sketch.node("Constant", value=onnx.numpy_helper.from_array(np.array(0, np.float32)))
    zero_point = sketch.node("Constant", value=onnx.numpy_helper.from_array(np.array(0, np.int8)))
    quantized = sketch.node("QuantizeLinear", "x", scale, zero_point)
    output = sketch.conv(sketch.node("DequantizeLinear", quantized, scale, zero_point))
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == ["scale"]


def test_scales_in_an_external_file_are_read(tmp_path: Path) -> None:
    sketch = Sketch()
    path = sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair("x", np.inf)))
    onnx.save(onnx.load(path), path, save_as_external_data=True, size_threshold=0, location="m.data")
    assert rules(path) == ["scale"]


def test_bodies_of_if_are_checked(tmp_path: Path) -> None:
    body = Sketch()
    pair = body.pair("x", 0.02, np.int8(3))
    inner = onnx.load(body.save(tmp_path / "body.onnx", body.node("Relu", pair))).graph
    other = Sketch()
    outer = onnx.load(other.save(tmp_path / "other.onnx", other.node("Relu", "x"))).graph
    for branch in (inner, outer):
        del branch.input[:]
        branch.output[0].type.tensor_type.shape.CopyFrom(
            helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 16, 8, 8]).tensor_type.shape
        )
    sketch = Sketch()
    sketch.input("flag", dtype=TensorProto.BOOL)
    chosen = sketch.node("If", "flag", then_branch=inner, else_branch=outer)
    assert found(sketch.save(tmp_path / "m.onnx", chosen)) == [
        ("error", "zero-point", "QuantizeLinear0", "zero point 3")
    ]


def test_operators_of_onnxruntimes_domain_are_checked(tmp_path: Path) -> None:
    sketch = Sketch()
    scale, zero_point = sketch.constant(0.02, np.float32), sketch.constant(np.uint8(0))
    domain = "com.microsoft"
    quantized = sketch.node("QuantizeLinear", "x", scale, zero_point, domain=domain)
    output = sketch.conv(sketch.node("DequantizeLinear", quantized, scale, zero_point, domain=domain))
    assert rules(sketch.save(tmp_path / "m.onnx", output)) == ["uint8"]


def test_a_node_without_a_name_is_named_by_its_output(tmp_path: Path) -> None:
    sketch = Sketch()
    path = sketch.save(tmp_path / "m.onnx", sketch.conv(sketch.pair("x", np.inf)))
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, path)
    assert lint_model(path)[0].node == "QuantizeLinear0"


def test_concats_of_concats_are_linted_in_no_time(tmp_path: Path) -> None:
    sketch = Sketch(shape=(1, 16, 1, 1))
    value = sketch.pair()
    for _ in range(40):  # 2**40 paths
        value = sketch.node("Concat", value, value, axis=2)
    assert rules(sketch.save(tmp_path / "m.onnx", sketch.conv(value))) == []
