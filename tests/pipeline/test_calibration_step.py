"""What is calibrated with, and what the calibration data is warned of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.networks import images
from tests.pipeline.quantizing import quantized, source
from trt_ptq.calibrators.methods import AUTO_CANDIDATES
from trt_ptq.data.open import open_data
from trt_ptq.data.sources import ArraySource
from trt_ptq.errors import DataError
from trt_ptq.onnx_io.load import Model

Floats = npt.NDArray[np.float32]


def test_held_out_batches_are_not_calibrated_with(cnn: Model, tmp_path: Path) -> None:
    report = quantized(cnn, tmp_path).report
    assert (report.fingerprint.samples, report.held_out_samples) == (32, 8)


def test_test_data_are_compared_on_instead(cnn: Model, tmp_path: Path) -> None:
    report = quantized(cnn, tmp_path, test_data=source(12, seed=9)).report
    assert (report.fingerprint.samples, report.held_out_samples) == (40, 12)


def test_a_single_batch_cannot_be_split(cnn: Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="single batch"):
        quantized(cnn, tmp_path, source(4))


def test_random_noise_is_warned_of(cnn: Model, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(40, 16, 8, 8)).astype(np.float32)
    result = quantized(cnn, tmp_path, ArraySource("n.npz", {"x": noise}, 4))
    assert any("looks like random noise" in warning for warning in result.warnings)


def test_a_comparison_on_calibration_data_is_warned_of(cnn: Model, tmp_path: Path) -> None:
    result = quantized(cnn, tmp_path, test_data=source())
    assert [text for text in result.warnings if text.startswith("40 of 40 samples") and "images.npz, samples 0" in text]
    page = (tmp_path / "report.html").read_text()
    assert "40 samples, not all held out: 40 were also used for calibration" in page
    assert "held-out samples" not in page


@pytest.mark.parametrize("scratch_limit", [None, 1])
def test_a_shuffling_loader_is_a_problem_only_where_it_is_read_again(
    cnn: Model, tmp_path: Path, scratch_limit: int | None
) -> None:
    samples, generator = images(40), np.random.default_rng(0)

    def shuffled() -> list[dict[str, Floats]]:
        order = generator.permutation(40)
        return [{"x": samples[order[start : start + 4]]} for start in range(0, 40, 4)]

    data = open_data(shuffled, cnn.inputs)
    result = quantized(cnn, tmp_path, data, scratch_limit=scratch_limit)
    repeated = result.report.comparison_samples_calibrated_with
    warned = [text for text in result.warnings if text.startswith(f"{repeated} of 8 samples of the comparison")]
    assert (0 < repeated <= 8, bool(warned)) == (scratch_limit is not None, scratch_limit is not None)


def test_a_method_that_until_stable_did_not_check_is_warned_of(cnn: Model, tmp_path: Path) -> None:
    many = ArraySource("images.npz", {"x": images(400)}, 4)
    checked = AUTO_CANDIDATES[0].name

    def warned(method: str) -> list[str]:
        warnings = quantized(cnn, tmp_path, many, method=method, until_stable=0.9).warnings
        return [warning for warning in warnings if "until" in warning and checked in warning]

    assert not warned("percentile")
    assert warned("auto")


def test_a_memory_limit_changes_no_result(cnn: Model, tmp_path: Path) -> None:
    quantized(cnn, tmp_path / "plain")
    quantized(cnn, tmp_path / "limited", memory_limit="8GB")
    for name in ("calibration.json", "model.int8.onnx"):
        assert (tmp_path / "limited" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
