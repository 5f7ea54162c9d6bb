"""Statistics from a real run of a model."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.networks import images, residual_cnn
from trt_ptq.calibration.collector import check_statistics, collect_statistics
from trt_ptq.calibration.devices import HostDevice
from trt_ptq.calibration.tensors import model_with_outputs, select_calibration_tensors
from trt_ptq.calibrators.statistics.statistics import merge_statistics
from trt_ptq.calibrators.statistics.tensor import TensorAccumulator
from trt_ptq.data.open import open_data
from trt_ptq.errors import DataError, ModelError, StatisticsError
from trt_ptq.fp16.convert import to_float16
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.types import Array, Batch


@dataclass(frozen=True)
class Given:
    """Batches from memory."""

    arrays: Sequence[Array]

    @property
    def total(self) -> int | None:
        return len(self.arrays)

    def __iter__(self) -> Iterator[Batch]:
        for index, array in enumerate(self.arrays):
            yield Batch({"x": array}, f"batch {index}")


def test_statistics_match_the_activations(cnn: Model) -> None:
    batches = [images(4, seed=seed) for seed in range(3)]
    statistics = collect_statistics(cnn, Given(batches), select_calibration_tensors(cnn, ["all"]))
    names = [name for name in statistics.tensors if name != "x"]
    assert {"r1", "y"} <= {*names}
    session = ort.InferenceSession(ir.to_proto(model_with_outputs(cnn, names)).SerializeToString())
    for index, name in enumerate(names):
        expected = TensorAccumulator()
        for batch in batches:
            expected.update(session.run(None, {"x": batch})[index])
        assert statistics.tensors[name] == expected.statistics(), name


def test_an_input_is_measured_too(cnn: Model) -> None:
    batch = images(4)
    tensor = collect_statistics(cnn, Given([batch]), select_calibration_tensors(cnn)).tensors["x"]
    assert (tensor.minimum, tensor.maximum, tensor.count) == (batch.min(), batch.max(), batch.size)


@pytest.mark.parametrize(
    ("node", "result"),
    [
        (
            helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING),
            helper.make_tensor_value_info("y", TensorProto.STRING, ["n", 4]),
        ),
        (
            helper.make_node("SequenceConstruct", ["x"], ["y"]),
            helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None),
        ),
    ],
    ids=["strings", "a sequence"],
)
def test_an_input_is_measured_where_the_only_output_is_no_tensor_of_numbers(
    tmp_path: Path, node: onnx.NodeProto, result: onnx.ValueInfoProto
) -> None:
    model = _written(tmp_path / "m.onnx", [node], {"x": TensorProto.FLOAT}, result)
    statistics = collect_statistics(
        model, Given([np.full((2, 4), 3, np.float32)]), select_calibration_tensors(model, ["x"])
    )
    assert statistics.tensors["x"].amax == 3


def test_a_model_that_is_fed_strings_is_measured(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["s"], ["f"], to=TensorProto.FLOAT), helper.make_node("Add", ["x", "f"], ["y"])]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    model = _written(tmp_path / "m.onnx", nodes, {"x": TensorProto.FLOAT, "s": TensorProto.STRING}, result)
    feeds = {"x": np.ones((2, 4), np.float32), "s": np.full((2, 4), "6", object)}
    tensors = collect_statistics(
        model, open_data([feeds], model.inputs), select_calibration_tensors(model, ["all"])
    ).tensors
    assert {name: tensor.amax for name, tensor in tensors.items()} == {"x": 1, "f": 6, "y": 7}


def _written(path: Path, nodes: list[onnx.NodeProto], inputs: dict[str, int], result: onnx.ValueInfoProto) -> Model:
    fed = [helper.make_tensor_value_info(name, kind, ["n", 4]) for name, kind in inputs.items()]
    graph = helper.make_graph(nodes, "g", fed, [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return load_model(path)


def test_the_order_of_batches_does_not_matter(cnn: Model) -> None:
    batches = [images(4, seed=seed) for seed in range(5)]
    assert collect_statistics(cnn, Given(batches), select_calibration_tensors(cnn)) == collect_statistics(
        cnn, Given(batches[::-1]), select_calibration_tensors(cnn)
    )


def test_shards_merge_to_what_one_run_gives(cnn: Model) -> None:
    batches = [images(4, seed=seed) for seed in range(5)]
    calibration_tensors = select_calibration_tensors(cnn)
    whole = collect_statistics(cnn, Given(batches), calibration_tensors)
    shards = [
        collect_statistics(cnn, Given(part), calibration_tensors) for part in (batches[3:], batches[:1], batches[1:3])
    ]
    assert merge_statistics(shards) == whole
    assert whole.data.samples == 20


def test_the_data_fingerprint_does_not_depend_on_the_batch_size(cnn: Model) -> None:
    samples = images(12)
    calibration_tensors = select_calibration_tensors(cnn)
    by_four = collect_statistics(cnn, Given(np.split(samples, 3)), calibration_tensors)
    by_six = collect_statistics(cnn, Given(np.split(samples, 2)), calibration_tensors)
    assert by_four.data == by_six.data
    assert by_four.data != collect_statistics(cnn, Given([images(12, seed=1)]), calibration_tensors).data


def test_a_nan_in_an_activation_names_tensor_and_batch(cnn: Model) -> None:
    broken = images(2, seed=1)
    broken[1, 3] = np.inf
    with pytest.raises(DataError, match=r"batch 1: tensor 'x' has 64 NaN or infinite values of 2048"):
        collect_statistics(cnn, Given([images(2), broken]), select_calibration_tensors(cnn))


def test_a_nan_in_a_weight_is_not_blamed_on_the_batch(tmp_path: Path) -> None:
    proto = onnx.load(residual_cnn(tmp_path / "m.onnx"))
    broken = numpy_helper.to_array(proto.graph.initializer[2]).copy()
    broken[0, 0, 0, 0] = np.nan
    proto.graph.initializer[2].CopyFrom(numpy_helper.from_array(broken, "w2"))
    onnx.save(proto, tmp_path / "m.onnx")
    model = load_model(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"m\.onnx: weight 'w2' has NaN values"):
        collect_statistics(model, Given([images(2)]), select_calibration_tensors(model))


def test_skipped_nans_are_counted(cnn: Model) -> None:
    broken = images(2, seed=1)
    broken[1, 3, 0, 0] = np.nan
    statistics = collect_statistics(cnn, Given([images(2), broken]), select_calibration_tensors(cnn), nonfinite="skip")
    assert statistics.tensors["x"].nonfinite == 1
    assert statistics.tensors["r1"].nonfinite > 0
    assert np.isfinite(statistics.tensors["r1"].maximum)


def test_no_batches_at_all_is_an_error(cnn: Model) -> None:
    with pytest.raises(DataError, match="no batches"):
        collect_statistics(cnn, Given([]), select_calibration_tensors(cnn))


def test_a_batch_that_the_model_cannot_take_is_named(cnn: Model) -> None:
    with pytest.raises(DataError, match="batch 1: the model fails on this batch"):
        collect_statistics(cnn, Given([images(2), images(2)[:, :, :4]]), select_calibration_tensors(cnn))


def test_statistics_of_another_model_are_refused(cnn: Model) -> None:
    statistics = collect_statistics(cnn, Given([images(2)]), select_calibration_tensors(cnn))
    check_statistics(statistics, cnn, "stats")
    other = load_model(cnn.path)
    object.__setattr__(other, "identity", type(other.identity)("0" * 64, other.identity.weights))
    with pytest.raises(StatisticsError, match=r"stats: of another model than .*the graph differs"):
        check_statistics(statistics, other, "stats")


def test_float16_activations_are_measured_as_they_are(cnn: Model, tmp_path: Path) -> None:
    save_model(to_float16(cnn), tmp_path / "half.onnx")
    half = load_model(tmp_path / "half.onnx")
    calibration_tensors = select_calibration_tensors(half, ["all"])
    batch = images(4)
    statistics = collect_statistics(half, Given([batch]), calibration_tensors)
    sixteen = [
        value for value in half.proto.graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    ]
    measured = [value.name for value in sixteen if value.name in statistics.tensors]
    assert measured
    outputs = ort.InferenceSession(ir.to_proto(model_with_outputs(half, measured)).SerializeToString()).run(
        None, {"x": batch}
    )
    for name, array in zip(measured, outputs, strict=True):
        assert array.dtype == np.float16
        assert statistics.tensors[name].amax == np.abs(array).max()
        assert statistics.tensors[name].count == array.size


def test_no_buffer_outlives_a_calibration(cnn: Model) -> None:
    buffers: list[weakref.ref[Array]] = []

    class Watched(HostDevice):
        def allocate(self, name: str, element_type: int, shape: tuple[int, ...]) -> Array:
            array = super().allocate(name, element_type, shape)
            assert array.base is not None
            buffers.append(weakref.ref(array.base))
            return array

    device = Watched()
    collect_statistics(cnn, Given([images(3), images(2)]), select_calibration_tensors(cnn), device=device)
    assert buffers
    assert all(buffer() is None for buffer in buffers)
