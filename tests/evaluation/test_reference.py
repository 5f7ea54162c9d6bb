"""The outputs of the float model, computed once for a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.calibration.test_collector import Given
from tests.networks import images, residual_cnn, weight, write
from trt_ptq.data.scratch import Scratch
from trt_ptq.evaluation.compare_models import compare_models
from trt_ptq.evaluation.joined import Joint
from trt_ptq.evaluation.reference import Reference
from trt_ptq.evaluation.runners.onnx_runner import OnnxRunner
from trt_ptq.onnx_io.load import Model
from trt_ptq.types import Batch


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that ran, in order."""
    names: list[str] = []
    infer = OnnxRunner.infer

    def counted(runner: OnnxRunner, feeds: dict[str, object], origin: str) -> object:
        names.append(runner.name)
        return infer(runner, feeds, origin)  # type: ignore[arg-type]

    monkeypatch.setattr(OnnxRunner, "infer", counted)
    return names


def test_the_reference_runs_once_on_a_batch_whatever_it_is_compared_with(
    cnn: Model, tmp_path: Path, runs: list[str]
) -> None:
    data = Given([images(3), images(2)])
    reference = Reference(cnn.path, Scratch(tmp_path))
    for seed in (1, 2):
        other = residual_cnn(tmp_path / f"{seed}.onnx", seed=seed)
        kept = compare_models(reference, other, data)
        assert kept == compare_models(Reference(cnn.path, Scratch(tmp_path)), other, data)
    assert runs.count("1.onnx") == runs.count("2.onnx") == 4
    runs.clear()
    compare_models(reference, tmp_path / "1.onnx", Given([images(2), images(3), images(4)]))
    assert runs.count(cnn.path.name) == 1  # on the batch that is new


def test_what_outputs_join_is_found_without_the_values_of_large_weights(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["boxes"]),
        helper.make_node("Sigmoid", ["boxes"], ["scores"]),
        helper.make_node("Reshape", ["scores", "shape"], ["folded"]),
        helper.make_node("Concat", ["boxes", "folded"], ["y"], axis=1),
    ]
    weights = [weight("w", 32, 1024), numpy_helper.from_array(np.array([-1, 1024]), "shape")]
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])
    path = write(tmp_path / "m.onnx", nodes, weights, [rows], ["y"])
    assert Reference(path).output_kinds.joints == {"y": Joint(1, (1024, 2048))}


def test_the_model_is_not_loaded_where_all_outputs_are_known(cnn: Model, tmp_path: Path) -> None:
    reference = Reference(residual_cnn(tmp_path / "copy.onnx"), Scratch(tmp_path))
    before = compare_models(reference, cnn.path, Given([images(3)]))
    onnx.save(onnx.ModelProto(), reference.path)
    assert compare_models(reference, cnn.path, Given([images(3)])) == before


def test_outputs_that_do_not_fit_are_computed_again(cnn: Model, tmp_path: Path, runs: list[str]) -> None:
    reference = Reference(cnn.path, Scratch(tmp_path, 1))
    batch = Batch({"x": images(3)}, "batch 0")
    with reference.outputs() as outputs:
        first, second = outputs(batch), outputs(batch)
    assert np.array_equal(first["y"], second["y"])
    assert runs == [cnn.path.name] * 2
