"""Parts of a model that run on recorded tensors give what the whole model gives (proof: run, on a CPU)."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.calibration.test_collector import Given
from tests.networks import CHANNELS, image_input, images, residual_cnn, sequences, transformer_block, weight, write
from trt_ptq.analysis.subgraph import Rewiring, Subgraph
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.calibrators.table.calibration_table import derive_table
from trt_ptq.errors import DataError, ModelError, OutputError
from trt_ptq.onnx_io.load import load_model
from trt_ptq.sensitivity.measure import measure_sensitivity
from trt_ptq.sensitivity.recorder import ActivationRecorder, recording

ONE_BY_ONE: dict[str, Any] = {"kernel_shape": [1, 1]}


def branching(path: Path) -> Path:
    """A weight behind a Transpose, and an If whose bodies read c1 from outside: x -> c1 -> (If) chosen -> y."""
    body_input = helper.make_node("Conv", ["c1", "w2"], ["convolved"], **ONE_BY_ONE)
    then = helper.make_graph([body_input], "then", [], [helper.make_empty_tensor_value_info("convolved")])
    other = helper.make_graph(
        [helper.make_node("Relu", ["c1"], ["positive"])], "else", [], [helper.make_empty_tensor_value_info("positive")]
    )
    nodes = [
        helper.make_node("Transpose", ["w1"], ["w1_turned"], perm=[1, 0, 2, 3]),
        helper.make_node("Conv", ["x", "w1_turned"], ["c1"], **ONE_BY_ONE),
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "limit"], ["large"]),
        helper.make_node("If", ["large"], ["chosen"], then_branch=then, else_branch=other),
        helper.make_node("Conv", ["chosen", "w3"], ["y"], **ONE_BY_ONE),
    ]
    weights = [weight(f"w{number}", CHANNELS, CHANNELS, 1, 1) for number in (1, 2, 3)]
    weights.append(helper.make_tensor("limit", TensorProto.FLOAT, [], [0.5]))
    return write(path, nodes, weights, [image_input()], ["y"])


NETWORKS: dict[str, tuple[Callable[[Path], Path], Given]] = {
    "residual": (residual_cnn, Given([images(2, seed=1), images(3, seed=2)])),
    "transformer": (transformer_block, Given([sequences(2, 9, seed=1), sequences(3, 5, seed=2)])),
    "branching": (branching, Given([images(2, seed=1), 0.4 * images(3, seed=2)])),
}


def unchanged(node: str, tensors: list[str]) -> tuple[Rewiring, dict[str, str]]:
    """A change of what `node` reads, and the recorded tensors by the names under which they are fed."""
    fed = {f"fed{index}": tensor for index, tensor in enumerate(tensors)}
    return Rewiring(tuple(fed), {(node, index): name for index, name in enumerate(fed)}), fed


def check(recorder: ActivationRecorder, part: Subgraph, fed: dict[str, str], wanted: str) -> None:
    opened = recorder.open(part)
    for batch in range(recorder.batches):
        found = opened.run(batch, {name: recorder.value(tensor, batch) for name, tensor in fed.items()})
        np.testing.assert_allclose(found[wanted], recorder.value(wanted, batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_rest_of_the_model_behind_any_node_gives_its_outputs(network: str, tmp_path: Path) -> None:
    build, source = NETWORKS[network]
    model = load_model(build(tmp_path / "m.onnx"))
    computed = {name for node in model.proto.graph.node for name in node.output} - {"w1_turned"}
    parts = []
    with recording(model.to_ir(), "m") as recorder:
        for node in model.proto.graph.node:
            read = node.input[:1]
            if {*read} <= computed | {"x"} and node.op_type not in ("Shape", "Concat", "If"):  # float32 in, and out
                change, fed = unchanged(node.output[0], list(read))
                parts.append((recorder.network.suffix(change), fed, "y"))
                parts.append((recorder.network.layer(change, node.output[0]), fed, node.output[0]))
        recorder.record({*computed, "x"}, source)
        assert len(parts) >= 6
        for part, fed, wanted in parts:
            check(recorder, part, fed, wanted)


def test_what_bodies_read_is_reached(tmp_path: Path) -> None:
    model = load_model(branching(tmp_path / "m.onnx"))
    with recording(model.to_ir(), "m") as recorder:
        part = recorder.network.suffix(unchanged("c1", ["x"])[0])
        assert {node.op_type for node in part.proto.graph.node} == {"Transpose", "Conv", "If"}
        assert part.live_inputs == ("large",)


def test_what_nothing_reads_reaches_no_output(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["dead"], **ONE_BY_ONE),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    path = write(tmp_path / "m.onnx", nodes, [weight("w", CHANNELS, CHANNELS, 1, 1)], [image_input()], ["y"])
    with recording(load_model(path).to_ir(), "m") as recorder:
        part = recorder.network.suffix(unchanged("dead", ["x"])[0])
        recorder.record(["x"], Given([images(2)]))
        assert part.outputs == ()
        assert recorder.open(part).run(0, {"fed0": images(2)}) == {}


def test_external_weights_give_the_same_figures(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], **ONE_BY_ONE),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "wide"], ["y"], transB=1),
    ]
    weights = [weight("w", CHANNELS, CHANNELS, 1, 1), weight("wide", 64, CHANNELS * 64)]
    inline = write(tmp_path / "inline.onnx", nodes, weights, [image_input()], ["y"])
    outside = tmp_path / "outside.onnx"
    onnx.save(onnx.load(inline), outside, save_as_external_data=True, location="weights", size_threshold=0)
    source = Given([images(4)])
    found = []
    for path in (inline, outside):
        model = load_model(path)
        assert bool(model.external.files) == (path == outside)
        table = derive_table(collect_statistics(model, source, select_calibration_tensors(model)), METHODS["minmax"])
        found.append(measure_sensitivity(model, table, source))
    assert found[0] == found[1]


def test_a_batch_that_the_model_fails_on_is_named(tmp_path: Path) -> None:
    model = load_model(residual_cnn(tmp_path / "m.onnx"))
    with (
        recording(model.to_ir(), "m") as recorder,
        pytest.raises(DataError, match="batch 1: the model fails on this batch"),
    ):
        recorder.record(["c1"], Given([images(2), images(2)[:, :3]]))


def test_what_is_no_tensor_cannot_be_recorded(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "x"], ["pair"]),
        helper.make_node("ConcatFromSequence", ["pair"], ["y"], axis=1),
    ]
    model = load_model(write(tmp_path / "m.onnx", nodes, [], [image_input()], ["y"]))
    with (
        recording(model.to_ir(), "m.onnx") as recorder,
        pytest.raises(ModelError, match=r"m\.onnx: 'pair' is not a tensor"),
    ):
        recorder.record(["pair"], Given([images(2)]))


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    model = load_model(residual_cnn(tmp_path / "m.onnx"))
    with recording(model.to_ir(), "m") as recorder:
        monkeypatch.setattr(np, "save", full)
        with pytest.raises(OutputError, match=r"No space left on device: free some space, or set TMPDIR"):
            recorder.record(["c1"], Given([images(2)]))


def test_a_part_is_freed_as_soon_as_nothing_uses_it(tmp_path: Path) -> None:
    with recording(load_model(residual_cnn(tmp_path / "m.onnx")).to_ir(), "m") as recorder:
        change, _ = unchanged("y", ["f"])
        part = recorder.network.suffix(change)
        recorder.record(["f", *part.live_inputs], Given([images(2)]))
        opened = recorder.open(part)
        opened.run(0, {"fed0": recorder.value("f", 0)})
        freed = weakref.ref(opened)
        gc.disable()  # a session of a large model takes gigabytes until cycles are collected
        try:
            del opened
            assert freed() is None
        finally:
            gc.enable()
