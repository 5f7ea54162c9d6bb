"""Inputs and outputs without axes, and dynamic axes of length 0, such as a key-value cache at the first step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.observed_arrays import observed_arrays
from trt_ptq.api.calibrating import calibrate
from trt_ptq.api.comparing import compare
from trt_ptq.calibration.devices import HostDevice, TorchDevice
from trt_ptq.calibration.measurements.channels import sample_channels
from trt_ptq.calibration.observed.observed_model import ObservedModel
from trt_ptq.config import QuantizeConfig
from trt_ptq.data.open import open_data
from trt_ptq.data.sources import InMemorySource
from trt_ptq.evaluation.runners.onnx_runner import onnx_runner
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.ort_session import load_session, run_session
from trt_ptq.pipeline import quantize
from trt_ptq.types import Array, Batch, TensorSpec

SIZE = 32
PREFILL, DECODE = 0, 16  # lengths of the cache


@pytest.fixture
def view(tmp_path: Path) -> Path:
    """Selects one of three views by a scalar index: an index with an axis would add one to everything behind it."""
    return save(
        tmp_path / "view.onnx",
        [
            helper.make_node("Gather", ["x", "index"], ["view"], axis=1),
            helper.make_node("MatMul", ["view", "w"], ["y"]),
            helper.make_node("ReduceMean", ["y"], ["score"], keepdims=0),
        ],
        inputs={"x": (TensorProto.FLOAT, ["n", 3, SIZE]), "index": (TensorProto.INT64, [])},
        outputs={"y": ["n", SIZE], "score": []},
    )


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    """A layer that appends its key to the cache, and one that reads the cache."""
    return save(
        tmp_path / "decoder.onnx",
        [
            helper.make_node("MatMul", ["x", "w"], ["key"]),
            helper.make_node("Concat", ["past", "key"], ["present"], axis=1),
            helper.make_node("MatMul", ["past", "v"], ["values"]),
            helper.make_node("ReduceSum", ["values", "axes"], ["sum"], keepdims=1),
            helper.make_node("Add", ["key", "sum"], ["y"]),
        ],
        inputs={"x": (TensorProto.FLOAT, ["n", "s", SIZE]), "past": (TensorProto.FLOAT, ["n", "p", SIZE])},
        outputs={"y": ["n", "s", SIZE], "present": ["n", "t", SIZE]},
    )


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, Sequence[str | int]]],
    outputs: dict[str, Sequence[str | int]],
) -> Path:
    weights = np.random.default_rng(0).standard_normal((2, SIZE, SIZE)).astype(np.float32) / 6
    constants = {"w": weights[0], "v": weights[1], "axes": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def values(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32).cumsum(axis=1, dtype=np.float32)


def step(seed: int, past: int) -> dict[str, Array]:
    return {"x": values(seed, 8, 4, SIZE), "past": values(seed + 1000, 8, past, SIZE)}


def steps(*pasts: int) -> list[dict[str, Array]]:
    return [step(seed, past) for seed, past in enumerate(pasts)]


class TestScalars:
    def test_they_reach_the_model_as_scalars(self, view: Path) -> None:
        feeds = {"x": values(0, 4, 3, SIZE), "index": np.array(2)}
        batch = Batch(feeds, "batch")
        observed = observed_arrays(ObservedModel(load_model(view), ["view", "y"], HostDevice()), batch)
        ran = run_session(load_session(view, "view"), batch)
        with onnx_runner(view) as runner:
            evaluated = runner.infer(feeds, "batch")
        assert observed["view"].shape == observed["y"].shape == ran[0].shape == evaluated["y"].shape == (4, SIZE)
        assert ran[1].shape == evaluated["score"].shape == ()
        assert np.array_equal(observed["view"], feeds["x"][:, 2])

    def test_a_whole_run_takes_and_gives_them(self, view: Path, tmp_path: Path) -> None:
        data = [{"x": values(seed, 8, 3, SIZE), "index": np.array(seed % 3)} for seed in range(10)]
        result = quantize(view, data, output_dir=tmp_path / "int8", config=QuantizeConfig(backend="none"))
        assert calibrate(view, data).tensors["view"].count == 10 * 8 * SIZE
        assert compare(view, result.model_path, data).outputs["score"].compared == 10

    def test_a_scalar_beside_arrays_that_are_cut_into_batches_belongs_to_each_batch(self) -> None:
        inputs = (TensorSpec("x", np.dtype(np.float32), ("n", 2)), TensorSpec("gain", np.dtype(np.float32), ()))
        arrays = {"gain": np.array(1.5, np.float32), "x": np.ones((5, 2), np.float32)}
        batches = list(open_data(arrays, inputs, batch_size=2))
        assert [batch.feeds["gain"].shape for batch in batches] == [(), (), ()]
        assert [len(batch.feeds["x"]) for batch in batches] == [2, 2, 1]


class TestEmptyAxes:
    @pytest.mark.parametrize("pasts", [(PREFILL, DECODE), (DECODE, PREFILL)], ids=["prefill first", "decode first"])
    def test_only_values_are_counted(self, decoder: Path, pasts: tuple[int, int]) -> None:
        statistics = calibrate(decoder, steps(*pasts * 3))
        assert statistics.tensors["past"].count == 3 * 8 * DECODE * SIZE
        assert statistics.tensors["x"].count == 6 * 8 * 4 * SIZE

    def test_torch_counts_the_same(self, decoder: Path) -> None:
        pytest.importorskip("torch")
        model, batches = load_model(decoder), [Batch(feeds, "") for feeds in steps(PREFILL, DECODE)]

        def count(device: HostDevice | TorchDevice) -> object:
            accumulator, observed = device.accumulator(), ObservedModel(model, ["values"], device)
            for batch in batches:
                for arrays in observed.run(batch):
                    for array in arrays.values():
                        accumulator.update(array)
            return accumulator.statistics()

        assert count(TorchDevice("cpu")) == count(HostDevice())

    def test_channels_come_from_the_filled_batches(self, decoder: Path) -> None:
        batches = steps(PREFILL, DECODE, PREFILL)
        source = InMemorySource([Batch(feeds, "") for feeds in batches])
        channels = sample_channels(load_model(decoder), source, {"past": SIZE})
        assert np.array_equal(channels["past"].amax, np.abs(batches[1]["past"]).max(axis=(0, 1)))
        assert channels["past"].rows.shape == (8 * DECODE, SIZE)

    @pytest.mark.parametrize(
        "config",
        [
            QuantizeConfig(backend="none", max_drop=1e-6),
            QuantizeConfig(backend="none", max_drop=1e-6, techniques=("smoothquant", "bias-correction")),
        ],
        ids=["auto", "all"],
    )
    def test_a_whole_run_copes(self, decoder: Path, tmp_path: Path, config: QuantizeConfig) -> None:
        data = steps(*(PREFILL, DECODE) * 6)
        result = quantize(decoder, data, output_dir=tmp_path / "int8", config=config)
        assert compare(decoder, result.model_path, data).samples == 12 * 8
