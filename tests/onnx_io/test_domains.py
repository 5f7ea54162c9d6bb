"""Names of operator sets, plugins in the default domain, and inputs and outputs without a shape."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.networks import weight
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.qdq.plan import plan_quantization

SHAPE = ["n", 16, 8, 8]


def saved(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    opsets: dict[str, int],
    input_shape: list[str | int] | None = SHAPE,  # type: ignore[assignment]
    output_shape: list[str | int] | None = SHAPE,  # type: ignore[assignment]
) -> Path:
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", input_shape), ("y", output_shape))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight("w", 16, 16, 1, 1)])
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def conv(domain: str = "", output: str = "y") -> onnx.NodeProto:
    return helper.make_node("Conv", ["x", "w"], [output], domain=domain)


def detector(path: Path, domain: str) -> Model:
    """A Conv that ends in a plugin."""
    nodes = [conv(output="c"), helper.make_node("Decode_TRT", ["c"], ["y"], domain=domain)]
    return load_model(saved(path, nodes, {"": 17, "TRT": 1}))


@pytest.mark.parametrize("node_domain", ["", "ai.onnx"])
@pytest.mark.parametrize("opsets", [{"ai.onnx": 17}, {"": 17, "ai.onnx": 17}], ids=["long", "both"])
def test_the_long_name_of_the_default_domain_is_the_short_one(
    tmp_path: Path, node_domain: str, opsets: dict[str, int]
) -> None:
    model = load_model(saved(tmp_path / "m.onnx", [conv(node_domain)], opsets))
    assert model.opset == 17
    assert [node.is_int8 for node in plan_quantization(model.to_ir().graph).nodes] == [True]
    assert model.identity == load_model(saved(tmp_path / "short.onnx", [conv()], {"": 17})).identity


def test_two_versions_of_one_operator_set_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [conv()], {"": 17, "ai.onnx": 13})
    with pytest.raises(ModelError, match=r"m\.onnx: it imports two versions of ONNX's operators: 13, 17"):
        load_model(path)


@pytest.mark.parametrize("domain", ["", "TRT"])
def test_a_model_that_ends_in_a_plugin_is_quantized_up_to_it(tmp_path: Path, domain: str) -> None:
    model = detector(tmp_path / "m.onnx", domain)
    assert select_calibration_tensors(model).tensors == ("x",)
    quantized = insert_qdq(model, CalibrationTable({"x": 1.0}))
    assert [(node.output, node.is_int8) for node in quantized.nodes] == [("c", True)]
    (unsupported,) = quantized.plan.unsupported
    assert unsupported.output == "y"
    assert "Decode_TRT" in unsupported.reason
    plugin = next(node for node in quantized.model.graph if node.op_type == "Decode_TRT")
    assert plugin.domain == domain


def test_an_operator_that_the_opset_lacks_is_no_plugin(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [conv(output="c"), helper.make_node("Gelu", ["c"], ["y"])], {"": 17})
    with pytest.raises(ModelError, match=r"not a valid ONNX model.*Gelu"):
        load_model(path)


def test_an_output_without_a_shape_gets_the_inferred_one(tmp_path: Path) -> None:
    model = load_model(saved(tmp_path / "m.onnx", [conv()], {"": 17}, output_shape=None))
    assert model.to_ir().graph.outputs[0].shape == model.to_ir().graph.inputs[0].shape


def test_an_input_without_a_shape_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="input 'x' has no shape"):
        load_model(saved(tmp_path / "m.onnx", [conv()], {"": 17}, input_shape=None))


def test_the_opset_of_a_model_with_a_plugin_can_be_raised(tmp_path: Path) -> None:
    nodes = [conv(output="c"), helper.make_node("Decode_TRT", ["c"], ["y"])]
    model = load_model(saved(tmp_path / "m.onnx", nodes, {"": 11}))
    assert model.opset == 13
    assert [(node.op_type, node.domain) for node in model.proto.graph.node] == [("Conv", ""), ("Decode_TRT", "")]
