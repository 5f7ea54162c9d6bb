"""Two models have the same identity only if they compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.networks import weight
from trt_ptq.onnx_io.load import load_model, read_proto
from trt_ptq.provenance import ModelIdentity

Change = Callable[[onnx.ModelProto], None]


def small(path: Path, change: Change = lambda _: None) -> ModelIdentity:
    """The identity of x -> Conv -> Softmax -> y after `change`."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Softmax", ["c"], ["y"], axis=1)]
    named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 16, 8, 8]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", named[:1], named[1:], [weight("w", 16, 16, 1, 1)])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    change(proto)
    onnx.save(proto, path)
    return load_model(path).identity


def older_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 12  # where Softmax works on a matrix


def long_domain(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].domain = "ai.onnx"


def unused_import(proto: onnx.ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))


def sparse_of(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], linear: bool) -> onnx.SparseTensorProto:
    positions = np.flatnonzero(values).astype(np.int64)
    rows = positions if linear else np.stack(np.unravel_index(positions, values.shape), 1).astype(np.int64)
    parts = numpy_helper.from_array(values.ravel()[positions], "w"), numpy_helper.from_array(rows, "w.indices")
    return helper.make_sparse_tensor(*parts, list(values.shape))


def pruned(factor: float, storage: str) -> Change:
    """Set every other weight to zero, multiply the rest with `factor`, and store the weights sparsely or not."""

    def change(proto: onnx.ModelProto) -> None:
        values = numpy_helper.to_array(proto.graph.initializer.pop()) * np.float32(factor)
        values[::2] = 0
        if storage == "dense":
            proto.graph.initializer.append(numpy_helper.from_array(values, "w"))
        elif storage == "constant":
            node = helper.make_node("Constant", [], ["w"], sparse_value=sparse_of(values, linear=True))
            proto.graph.node.insert(0, node)
        else:
            proto.graph.sparse_initializer.append(sparse_of(values, linear=storage == "linear"))

    return change


def test_the_opset_is_part_of_the_identity(tmp_path: Path) -> None:
    assert small(tmp_path / "a.onnx").graph != small(tmp_path / "b.onnx", older_opset).graph


@pytest.mark.parametrize("change", [long_domain, unused_import])
def test_the_way_an_opset_is_imported_is_not(tmp_path: Path, change: Change) -> None:
    assert small(tmp_path / "a.onnx") == small(tmp_path / "b.onnx", change)


@pytest.mark.parametrize("storage", ["linear", "rows", "constant"])
def test_sparse_weights_count_like_dense_ones(tmp_path: Path, storage: str) -> None:
    dense, sparse, other = (
        small(tmp_path / "m.onnx", pruned(factor, how)) for factor, how in ((1, "dense"), (1, storage), (2, storage))
    )
    assert sparse == dense
    assert other.graph == dense.graph
    assert other.weights != dense.weights


def test_an_input_is_not_an_output(tmp_path: Path) -> None:
    """The tensor `k` is a constant in both: one that callers may replace, or one that is returned."""

    def constant_input(proto: onnx.ModelProto) -> None:
        proto.graph.initializer.append(weight("k", 2))
        proto.graph.input.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, [2]))

    def constant_output(proto: onnx.ModelProto) -> None:
        proto.graph.initializer.append(weight("k", 2))
        proto.graph.output.insert(0, helper.make_tensor_value_info("k", TensorProto.FLOAT, [2]))

    assert small(tmp_path / "a.onnx", constant_input).graph != small(tmp_path / "b.onnx", constant_output).graph


def test_types_of_equal_bytes_differ(tmp_path: Path) -> None:
    def eighth(dtype: int) -> Change:
        def change(proto: onnx.ModelProto) -> None:
            proto.opset_import[0].version, proto.ir_version = 19, 9
            tensor = TensorProto(name="k", dims=[4], data_type=dtype, raw_data=b"\x01\x02\x03\x04")
            proto.graph.initializer.append(tensor)
            proto.graph.node.append(helper.make_node("Cast", ["k"], ["f"], to=TensorProto.FLOAT))

        return change

    e4m3, e5m2 = (
        small(tmp_path / "m.onnx", eighth(dtype)) for dtype in (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2)
    )
    assert e4m3.weights != e5m2.weights


def test_making_weights_dense_adds_no_empty_bodies(cnn_path: Path) -> None:
    before = onnx.load(cnn_path)
    assert onnx.load_from_string(read_proto(cnn_path).SerializeToString()) == before
