"""Loading models: what is accepted, converted and refused."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from tests.networks import image_input, images, residual_cnn, weight, write
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.load import Model, load_model, model_size_bytes
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq

QDQ_FILES = Path(__file__).parents[1] / "files" / "qdq"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.onnx: no such model file"):
        load_model(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match=f"{tmp_path.name}: is a folder: name a model file in it"):
        load_model(tmp_path)


def test_what_an_exporter_noted_on_nodes_is_not_copied(cnn_path: Path) -> None:
    proto = onnx.load(cnn_path)
    helper.set_model_props(proto, {"author": "A"})
    proto.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File ...")
    onnx.save(proto, cnn_path)
    copy = load_model(cnn_path).to_ir()
    assert not any(node.metadata_props for node in copy.graph)
    assert dict(copy.metadata_props) == {"author": "A"}


@pytest.mark.parametrize(("channels", "collections"), [(16, 0), (2**19, 1)], ids=["small", "large"])
def test_garbage_is_collected_where_the_weights_are_large(tmp_path: Path, channels: int, collections: int) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = write(tmp_path / "m.onnx", nodes, [weight("w", 8, channels)], [image_input()], ["y"])
    gc.disable()  # by itself, Python collects now and then
    try:
        before = gc.get_stats()[-1]["collections"]
        load_model(path)
        assert gc.get_stats()[-1]["collections"] - before == collections
    finally:
        gc.enable()


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_model_is_refused(cnn_path: Path, keep: float) -> None:
    content = cnn_path.read_bytes()
    cnn_path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ModelError, match=r"cnn\.onnx: not a"):
        load_model(cnn_path)


@pytest.mark.parametrize("content", [b"hello, world\n" * 50, b"\x89PNG\r\n\x1a\n" + bytes(200), b"{}"])
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX model"):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("net.pt", "export the module by torch.onnx.export"), ("model.safetensors", "Hugging Face folder")],
)
def test_weights_of_other_tools_are_refused_with_what_to_do(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(200))
    with pytest.raises(ModelError, match=f"{name}: not an ONNX model: .*{hint}"):
        load_model(tmp_path / name)


@pytest.fixture
def external(cnn_path: Path) -> Path:
    """The CNN with its weights in weights.bin beside it."""
    model = onnx.load(cnn_path)
    onnx.save(model, cnn_path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return cnn_path


def test_external_weights_give_the_same_model(external: Path, tmp_path: Path) -> None:
    inline = residual_cnn(tmp_path / "inline.onnx")
    assert load_model(external).identity == load_model(inline).identity


def test_external_weights_count_in_the_size_of_a_model(external: Path) -> None:
    files = [external, external.parent / "weights.bin"]
    assert model_size_bytes(external) == sum(file.stat().st_size for file in files)


def test_missing_external_weights_are_named(external: Path) -> None:
    (external.parent / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights file .*weights\.bin is missing \(tensor 'w1'\)"):
        load_model(external)


def test_truncated_external_weights_are_named(external: Path) -> None:
    weights = external.parent / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"weights\.bin is truncated: tensor 'w1' ends at byte"):
        load_model(external)


def test_a_quantized_model_is_refused(cnn: Model, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    save_model(insert_qdq(cnn, CalibrationTable({"x": 1.0, "r1": 2.0, "f": 3.0})).model, path)
    with pytest.raises(ModelError, match=r"already quantized .*QuantizeLinear.*pass the float model"):
        load_model(path)


@pytest.mark.parametrize("name", ["tiny.modelopt-0.47.0.fp32.onnx", "tiny.modelopt-0.47.0.fp16.onnx"])
def test_a_quantized_model_of_another_tool_is_loaded_on_request(name: str, tmp_path: Path) -> None:
    path = QDQ_FILES / name
    model = load_model(str(path), allow_quantized=True)
    assert model.is_quantized
    assert [spec.name for spec in model.inputs] == ["x"]
    save_model(model.to_ir(), tmp_path / "copy.onnx")
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)}
    before, after = (ort.InferenceSession(file).run(None, feeds)[0] for file in (path, tmp_path / "copy.onnx"))
    np.testing.assert_array_equal(after, before)


def test_a_float_model_is_not_quantized() -> None:
    assert not load_model(QDQ_FILES / "tiny.onnx").is_quantized


def test_an_old_opset_is_converted_and_computes_the_same(tmp_path: Path) -> None:
    old = residual_cnn(tmp_path / "old.onnx", opset=11)
    model = load_model(old)
    assert model.opset == 13
    raised = tmp_path / "raised.onnx"
    save_model(model.to_ir(), raised)
    feeds = {"x": images(2)}
    before, after = (ort.InferenceSession(path).run(None, feeds)[0] for path in (old, raised))
    np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-6)


def test_identity_distinguishes_weights_from_graph(tmp_path: Path, cnn: Model) -> None:
    retrained = load_model(residual_cnn(tmp_path / "other.onnx", seed=1)).identity
    assert retrained.graph == cnn.identity.graph
    assert "weights differ" in (retrained.difference(cnn.identity) or "")


def test_identity_ignores_comments_and_node_names(cnn_path: Path, cnn: Model) -> None:
    proto = onnx.load(cnn_path)
    proto.doc_string = "exported on Tuesday"
    for node in proto.graph.node:
        node.name = f"renamed_{node.op_type}"
    onnx.save(proto, cnn_path)
    assert load_model(cnn_path).identity == cnn.identity


def times_two(path: Path, scalar: float = 2.0, activation: str = "Relu") -> Path:
    """x -> MatMul -> a function -> Mul with a bare number -> y, written as it is."""
    function = helper.make_function(
        "local", "Activation", ["a"], ["b"], [helper.make_node(activation, ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    nodes = [
        helper.make_node("Constant", [], ["factor"], value_float=scalar),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Activation", ["m"], ["r"], domain="local"),
        helper.make_node("Mul", ["r", "factor"], ["y"]),
    ]
    named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 16]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", named[:1], named[1:], [weight("w", 16, 16)])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=8), path)
    return path


def test_a_number_in_the_graph_is_part_of_its_identity(tmp_path: Path) -> None:
    two, three = (load_model(times_two(tmp_path / "m.onnx", scalar)).identity for scalar in (2.0, 3.0))
    assert two.graph != three.graph
    assert two.weights == three.weights


def test_functions_are_part_of_the_identity(tmp_path: Path) -> None:
    relu, sigmoid = (
        load_model(times_two(tmp_path / "m.onnx", activation=activation)).identity for activation in ("Relu", "Sigmoid")
    )
    assert relu.graph != sigmoid.graph


@pytest.mark.parametrize("opset", [9, 13])
def test_a_model_of_old_ir_whose_weights_are_inputs_gives_a_valid_one(tmp_path: Path, opset: int) -> None:
    path = tmp_path / "old.onnx"
    named = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, 16])
        for name, rows in (("x", 4), ("w", 16), ("y", 4))
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", named[:2], named[2:], [weight("w", 16, 16)]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3), path)
    model = load_model(path)
    assert [spec.name for spec in model.inputs] == ["x"]
    save_model(insert_qdq(model, CalibrationTable({"x": 1.0})).model, tmp_path / "int8.onnx")
    onnx.checker.check_model(str(tmp_path / "int8.onnx"))


def test_the_long_name_of_the_onnx_domain_is_known(cnn_path: Path) -> None:
    proto = onnx.load(cnn_path)
    proto.opset_import[0].domain = "ai.onnx"
    onnx.save(proto, cnn_path)
    assert load_model(cnn_path).outputs == ("y",)
