"""A loaded model is compared with its file on the first calibration batch, whatever loading changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import trt_ptq
from tests.networks import image_input, images, residual_cnn, weight
from trt_ptq.errors import ModelError
from trt_ptq.onnx_io import check_loaded as check_loaded_module
from trt_ptq.onnx_io.check_loaded import check_loaded
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.ort_session import run_session
from trt_ptq.types import Batch

NODE = helper.make_node
BATCHES = [Batch({"x": images(2)}, "batch 0")]
OUTPUT = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)


def saved(path: Path, nodes: list[onnx.NodeProto], opset: int = 17, **fields: Any) -> Path:
    """A model x -> y with the weights "w" and "gain"."""
    constants = [weight("w", 16, 16, 3, 3), numpy_helper.from_array(np.full(1, 1.5, np.float32), "gain")]
    graph = helper.make_graph(nodes, "g", [image_input()], [OUTPUT], constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8, **fields), path)
    return path


def folded(path: Path) -> Path:
    return saved(path, [NODE("Mul", ["w", "gain"], ["scaled"]), NODE("Conv", ["x", "scaled"], ["y"])])


def inlined(path: Path) -> Path:
    function = helper.make_function(
        "own", "Filter", ["a", "b"], ["c"], [NODE("Conv", ["a", "b"], ["c"])], [helper.make_opsetid("", 17)]
    )
    return saved(path, [NODE("Filter", ["x", "w"], ["y"], domain="own")], functions=[function])


def old(path: Path) -> Path:
    return saved(path, [NODE("Conv", ["x", "w"], ["c"]), NODE("Relu", ["c"], ["y"])], 11)


def sparse(path: Path) -> Path:
    proto = onnx.load(saved(path, [NODE("Conv", ["x", "w"], ["y"])]))
    dense = numpy_helper.to_array(proto.graph.initializer[0])
    del proto.graph.initializer[:]
    indices = numpy_helper.from_array(np.arange(dense.size), "indices")
    proto.graph.sparse_initializer.append(
        helper.make_sparse_tensor(numpy_helper.from_array(dense.ravel(), "w"), indices, dense.shape)
    )
    onnx.save(proto, path)
    return path


REWRITES: dict[Callable[[Path], Path], str] = {
    folded: "computed weights folded",
    inlined: "functions inlined",
    old: "conversion to opset 13",
    sparse: "sparse tensors made dense",
}


def changed(model: Model) -> Model:
    """The model as loading would leave it if it got the weights wrong."""
    proto = onnx.ModelProto.FromString(model.proto.SerializeToString())
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(values * np.float32(1.01), tensor.name))
    return replace(model, proto=proto)


@pytest.mark.parametrize("make", REWRITES)
def test_what_loading_changes_is_compared(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    model = load_model(make(tmp_path / "m.onnx"))
    assert model.rewrites == (REWRITES[make],)
    assert check_loaded(model, BATCHES) == []
    with pytest.raises(
        ModelError, match=rf"m.onnx: loading changes what (Conv|Filter) '[yc]' .*batch 0 \({REWRITES[make]}\)"
    ):
        check_loaded(changed(model), BATCHES)


def test_an_unchanged_model_is_not_run(tmp_path: Path) -> None:
    model = load_model(residual_cnn(tmp_path / "m.onnx"))
    assert model.rewrites == ()

    batches = iter(BATCHES)
    assert check_loaded(model, batches) == []
    assert list(batches) == BATCHES


def test_an_empty_domain_that_is_written_out_is_no_change(tmp_path: Path) -> None:
    nodes = [NODE("Conv", ["x", "w"], ["y"])]
    nodes[0].domain = ""
    assert nodes[0].HasField("domain")
    assert load_model(saved(tmp_path / "m.onnx", nodes)).rewrites == ()


def _sizes_that_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are compared from now on."""
    sizes: list[int] = []

    def run(session: Any, batch: Batch) -> list[Any]:
        sizes.append(len(batch.feeds["x"]))
        return run_session(session, batch)

    monkeypatch.setattr(check_loaded_module, "run_session", run)
    return sizes


def test_two_samples_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = _sizes_that_run(monkeypatch)
    assert check_loaded(load_model(folded(tmp_path / "m.onnx")), [Batch({"x": images(5)}, "batch 0")]) == []
    assert sizes == [2, 2]


def test_a_whole_batch_is_compared_where_the_model_does_not_take_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = numpy_helper.from_array(np.array([4, 16, 8, 8]), "shape")
    nodes = [NODE("Constant", [], ["s"], value=shape), NODE("Reshape", ["x", "s"], ["four"])]
    nodes += [NODE("Mul", ["w", "gain"], ["scaled"]), NODE("Conv", ["four", "scaled"], ["y"])]
    model = load_model(saved(tmp_path / "m.onnx", nodes))
    sizes = _sizes_that_run(monkeypatch)
    assert check_loaded(model, [Batch({"x": images(4)}, "batch 0")]) == []
    assert sizes == [2, 4, 4]


def test_an_inferred_output_shape_is_no_change(tmp_path: Path) -> None:
    model = load_model(saved(tmp_path / "m.onnx", [NODE("Conv", ["x", "w"], ["y"])]))
    assert model.proto.graph.output[0].type.tensor_type.HasField("shape")
    assert model.rewrites == ()


def test_nodes_of_one_name_are_refused(tmp_path: Path) -> None:
    nodes = [NODE("Conv", ["x", "w"], ["c"], name="one"), NODE("Relu", ["c"], ["y"], name="one")]
    with pytest.raises(ModelError, match="2 nodes are called 'one', which ONNX Runtime refuses"):
        trt_ptq.calibrate(saved(tmp_path / "m.onnx", nodes), [{"x": images(2)}])


def test_random_nodes_do_not_count(tmp_path: Path) -> None:
    nodes = [
        *(NODE("Mul", ["w", "gain"], ["scaled"]), NODE("Conv", ["x", "scaled"], ["c"])),
        *(NODE("RandomNormalLike", ["c"], ["noise"]), NODE("Add", ["c", "noise"], ["y"])),
    ]
    assert check_loaded(load_model(saved(tmp_path / "m.onnx", nodes)), BATCHES) == []


def test_what_comes_before_a_plugin_is_compared(tmp_path: Path) -> None:
    nodes = [
        *(NODE("Mul", ["w", "gain"], ["scaled"]), NODE("Conv", ["x", "scaled"], ["c"])),
        NODE("CoordConvAC", ["c"], ["y"], domain="own"),
    ]
    model = load_model(saved(tmp_path / "m.onnx", nodes))
    assert check_loaded(model, BATCHES) == []
    with pytest.raises(ModelError, match="what Conv 'c' computes"):
        check_loaded(changed(model), BATCHES)


def test_a_file_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    model = load_model(folded(tmp_path / "m.onnx"))
    (warning,) = check_loaded(model, [Batch({"x": images(2)[:, :3]}, "batch 0")])
    assert "m.onnx: changed at loading (computed weights folded)" in warning
    assert "was not checked: batch 0: the model fails on this batch" in warning


TABLE = trt_ptq.CalibrationTable.from_ranges({"x": 1.0})


@pytest.mark.parametrize(
    "run",
    [
        trt_ptq.calibrate,
        trt_ptq.quantize,
        lambda model, data: trt_ptq.measure_sensitivity(model, data, table=TABLE),
        lambda model, data: trt_ptq.quantize_model(model, TABLE, data=data, high_precision="fp16"),
    ],
    ids=["calibrate", "quantize", "sensitivity", "quantize_model"],
)
def test_whatever_reads_data_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., object]
) -> None:
    model = changed(load_model(folded(tmp_path / "m.onnx")))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="loading changes what Conv 'y' computes"):
        run(model, [{"x": images(2, seed=seed)} for seed in range(8)])
