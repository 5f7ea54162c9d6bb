"""Comparing through Polygraphy's comparator, on ONNX Runtime's runners; with engines on a GPU in tests/gpu."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

from tests.networks import image_input, images, residual_cnn, write
from trt_ptq.data.sources import ArraySource
from trt_ptq.errors import DataError, EngineError
from trt_ptq.evaluation.compare_engines import compare_runners
from trt_ptq.evaluation.compare_models import compare_models


def runner(path: Path) -> OnnxrtRunner:
    return OnnxrtRunner(SessionFromOnnx(str(path)), name=str(path))


def source(samples: int = 10) -> ArraySource:
    return ArraySource("images.npz", {"x": images(samples)}, 4)


def test_the_comparator_finds_what_our_own_comparison_finds(cnn_path: Path, tmp_path: Path) -> None:
    other = residual_cnn(tmp_path / "other.onnx", seed=1)
    found = compare_runners([runner(cnn_path), runner(other)], source())
    expected = compare_models(cnn_path, other, source())
    outputs = {name: replace(output, top1=None, answers=0) for name, output in expected.outputs.items()}
    assert found == replace(expected, outputs=outputs)  # a runner does not say which outputs hold scores
    assert found.samples == 10


def test_other_outputs_are_refused(cnn_path: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "relu.onnx", [helper.make_node("Relu", ["x"], ["z"])], [], [image_input()], ["z"])
    with pytest.raises(EngineError, match=r"other outputs than .*cnn\.onnx: build both from the same model"):
        compare_runners([runner(cnn_path), runner(other)], source())


def test_a_batch_that_a_runner_fails_on_is_named(cnn_path: Path) -> None:
    wrong = ArraySource("wrong.npz", {"x": np.zeros((4, 3, 8, 8), np.float32)}, 4)
    with pytest.raises(DataError, match=r"wrong\.npz.*cannot be compared on: "):
        compare_runners([runner(cnn_path), runner(cnn_path)], wrong)


def test_no_batches_are_refused(cnn_path: Path) -> None:
    class Nothing:
        total = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter(())

    with pytest.raises(DataError, match="no batches to compare on"):
        compare_runners([runner(cnn_path), runner(cnn_path)], Nothing())
