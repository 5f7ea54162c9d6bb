"""FP16 and INT8 compared with FP32 by the user's metrics, on the split that nothing was selected on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.calibration.test_collector import Given
from tests.networks import image_input, images, residual_cnn, write
from trt_ptq.data.scratch import Scratch
from trt_ptq.engines.spec import Precision
from trt_ptq.errors import DataError
from trt_ptq.evaluation.metrics import UserMetric
from trt_ptq.evaluation.precisions import evaluate_precisions
from trt_ptq.evaluation.reference import Reference
from trt_ptq.evaluation.runners.runner import Runner
from trt_ptq.onnx_io.load import Model
from trt_ptq.tuning.objective import Objective

IMAGES = Given([images(4)])


@pytest.fixture
def files(cnn: Model, tmp_path: Path) -> dict[Precision, Path]:
    others: dict[Precision, Path] = {"fp16": tmp_path / "fp16.onnx", "int8": tmp_path / "int8.onnx"}
    for path in others.values():
        residual_cnn(path, seed=1)
    return {"fp32": cnn.path, **others}


def test_tuning_selects_on_one_split_and_the_verdict_is_on_the_other(cnn: Model, files: dict[Precision, Path]) -> None:
    splits = []

    def accuracy(run: Any, split: str) -> dict[str, float]:
        run({"x": images(4)})
        splits.append(split)
        return {"accuracy": 1.0}

    objective = Objective(Reference(cnn.path), IMAGES, UserMetric(accuracy))
    assert objective.evaluate(cnn.to_ir()).loss == 0
    assert splits == ["select", "select"]
    known = objective.metrics_for_verdict({"accuracy": 1.0})
    evaluate_precisions(files, IMAGES, objective.metric, known)
    assert splits[2:] == ["test"] * 3


def test_with_one_split_nothing_is_evaluated_twice(cnn: Model, files: dict[Precision, Path]) -> None:
    calls = []

    def accuracy(run: Any) -> dict[str, float]:
        run({"x": images(4)})
        calls.append("")
        return {"accuracy": 0.5}

    objective = Objective(Reference(cnn.path), IMAGES, UserMetric(accuracy))
    score = objective.evaluate(cnn.to_ir())
    comparison = evaluate_precisions(files, IMAGES, objective.metric, objective.metrics_for_verdict(score.metrics))
    assert len(calls) == 3  # FP32, the candidate, FP16
    assert comparison.metrics == {precision: {"accuracy": 0.5} for precision in files}
    assert comparison.losses == {"accuracy": 0}


def test_fp32_is_loaded_once_where_its_outputs_are_stored(files: dict[Precision, Path], tmp_path: Path) -> None:
    seen = []

    def look(precision: Precision, runner: Runner) -> None:
        assert runner.infer({"x": images(4)}, "a batch").keys() == {"y"}
        seen.append(precision)
        if precision == "fp32":
            files["fp32"].unlink()

    reference = Reference(files["fp32"], Scratch(tmp_path))
    assert not reference.output_kinds.joints
    comparison = evaluate_precisions(files, IMAGES, reference=reference, look=look)
    assert seen == ["fp32", "int8", "fp16"]
    assert comparison.fidelity.keys() == {"int8", "fp16"}


def test_suspicious_metrics_are_warned_of(files: dict[Precision, Path]) -> None:
    def quality(run: Any) -> dict[str, float]:
        return {"quality": 1.0 + abs(run({"x": images(4)})["y"][0, 0])}

    known: dict[Precision, dict[str, float]] = {"fp32": {"quality": 1.0}, "int8": {"quality": 1.2}}
    warnings = evaluate_precisions(files, IMAGES, UserMetric(quality), known).warnings
    assert any("'quality': higher values are assumed to be better" in warning for warning in warnings)
    assert any("'quality' of int8.onnx is 20.0% better" in warning for warning in warnings)


def test_an_fp16_model_that_fails_on_a_batch_is_warned_of_and_left_out(files: dict[Precision, Path]) -> None:
    sevenths = numpy_helper.from_array(np.array([7, -1]), "shape")
    write(files["fp16"], [helper.make_node("Reshape", ["x", "shape"], ["y"])], [sevenths], [image_input()], ["y"])
    comparison = evaluate_precisions(files, IMAGES)
    assert comparison.fidelity.keys() == {"int8"}
    (warning,) = comparison.warnings
    assert "FP16 was not evaluated: " in warning
    assert "fp16.onnx fails on this batch" in warning
    files["fp16"].write_bytes(files["int8"].read_bytes())
    write(files["int8"], [helper.make_node("Reshape", ["x", "shape"], ["y"])], [sevenths], [image_input()], ["y"])
    with pytest.raises(DataError, match=r"int8\.onnx fails on this batch"):
        evaluate_precisions(files, IMAGES)
