"""Fidelity of ONNX models to a reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.calibration.test_collector import Given
from tests.networks import CHANNELS, image_input, images, residual_cnn, weight, write
from trt_ptq.errors import DataError, ModelError
from trt_ptq.evaluation import compare_models as comparing
from trt_ptq.evaluation.compare_models import compare_models
from trt_ptq.onnx_io.load import Model


def test_a_model_equals_itself(cnn: Model) -> None:
    comparison = compare_models(cnn.path, [cnn.path], Given([images(3), images(2)]))[0]
    assert comparison.samples == 5
    assert comparison.outputs["y"].cosine == 1
    assert comparison.errors() == {"fidelity of y": 0}


def test_other_weights_are_seen(cnn: Model, tmp_path: Path) -> None:
    other = residual_cnn(tmp_path / "other.onnx", seed=1)
    assert compare_models(cnn.path, [other], Given([images(3)]))[0].outputs["y"].cosine < 0.9


def test_a_reference_without_a_finite_value_is_refused(cnn: Model) -> None:
    nan = compare_models(cnn.path, [cnn.path], Given([np.full_like(images(2), np.nan)]))[0]
    with pytest.raises(DataError, match=r"no output of the reference has a finite value .* \('y'\)"):
        nan.errors()


def test_a_model_with_other_outputs_is_refused(cnn: Model, tmp_path: Path) -> None:
    from onnx import helper

    node = helper.make_node("Conv", ["x", "w"], ["z"])
    other = write(tmp_path / "z.onnx", [node], [weight("w", CHANNELS, CHANNELS, 1, 1)], [image_input()], ["z"])
    with pytest.raises(ModelError, match=r"differ in their outputs \(y, z\)"):
        compare_models(cnn.path, [other], Given([images(3)]))


def test_large_models_two_at_a_time_compare_as_all_at_once(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [residual_cnn(tmp_path / f"{seed}.onnx", seed=seed) for seed in (1, 2)]
    at_once = compare_models(cnn.path, others, Given([images(3), images(2)]))
    monkeypatch.setattr(comparing, "_MAX_BYTES_TOGETHER", 0)
    assert compare_models(cnn.path, others, Given([images(3), images(2)])) == at_once


def test_no_batches_is_an_error(cnn: Model) -> None:
    with pytest.raises(DataError, match="no batches to compare on"):
        compare_models(cnn.path, [cnn.path], Given([]))
