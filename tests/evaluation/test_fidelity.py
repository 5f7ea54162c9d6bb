"""SQNR, cosine and top-1 agreement, against their definitions on the whole arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trt_ptq.evaluation.fidelity import FidelityMeter, OutputFidelity, worst_output
from trt_ptq.types import Array


def test_batches_add_up_to_the_definitions() -> None:
    random = np.random.default_rng(0)
    reference = random.normal(size=(30, 7)).astype(np.float32)
    candidate = reference + random.normal(0, 0.3, size=reference.shape).astype(np.float32)
    meter = FidelityMeter(scores=True)
    for part in (slice(0, 8), slice(8, 9), slice(9, 30)):
        meter.update(reference[part], candidate[part])
    result = meter.result()
    wanted, got = reference.astype(float), candidate.astype(float)
    error = got - wanted
    assert result.sqnr_db == pytest.approx(10 * math.log10((wanted**2).sum() / (error**2).sum()))
    assert result.cosine == pytest.approx((wanted * got).sum() / np.linalg.norm(wanted) / np.linalg.norm(got))
    assert result.top1 == pytest.approx((wanted.argmax(1) == got.argmax(1)).mean())
    assert result.max_abs == pytest.approx(np.abs(error).max())
    assert result.mean_abs == pytest.approx(np.abs(error).mean())


def test_equal_outputs_are_perfect() -> None:
    meter = FidelityMeter(scores=True)
    meter.update(np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32))
    assert (meter.result().sqnr_db, meter.result().cosine, meter.result().top1) == (math.inf, 1.0, 1.0)


def test_classes_lose_by_how_many_change_whatever_their_numbers() -> None:
    meter = FidelityMeter()
    meter.update(np.array([0, 900, 3, 1]), np.array([0, 1, 3, 1]))
    meter.update(np.array([5, 5, 7, 7]), np.array([5, 5, 7, 7]))
    assert (meter.result().changed, meter.result().error, meter.result().cosine_error) == (1 / 8, 1 / 8, 1 / 8)
    assert meter.result().describe(0.01) == ("12.50% of the values changed", "at most 1%")


def test_floats_lose_their_direction() -> None:
    meter = FidelityMeter()
    meter.update(np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    assert meter.result().changed is None
    assert meter.result().cosine_error == pytest.approx(1 - 1 / math.sqrt(2))


def test_the_error_is_the_energy_of_the_noise() -> None:
    halved = fidelity(np.array([3.0, 4.0]), np.array([1.5, 2.0]))  # which the cosine does not see
    assert halved.error == pytest.approx(1 / 4)
    assert halved.cosine_error == pytest.approx(0)
    assert halved.describe(0.01) == ("6.0 dB SQNR", "at least 20.0 dB")


def test_scores_whose_largest_entry_changes_are_wrong_by_that() -> None:
    reference = np.array([[1.0, 1.001], [5, 1], [5, 1], [5, 1]])
    candidate = np.array([[1.001, 1.0], [5, 1], [5, 1], [5, 1]])
    meter = FidelityMeter(scores=True)
    meter.update(reference, candidate)
    assert meter.result().error == 0.25
    assert meter.result().describe(0.01)[0].endswith(" dB SQNR, 75.00% top-1 agreement")
    assert fidelity(reference, candidate).error < 1e-6
    assert fidelity(reference, candidate).top1 is None


def test_an_output_of_one_value_has_no_top1() -> None:
    meter = FidelityMeter(scores=True)
    meter.update(np.ones((4, 1), np.float32), np.ones((4, 1), np.float32))
    assert meter.result().top1 is None


def test_a_candidate_of_zeros_is_no_match() -> None:
    meter = FidelityMeter()
    meter.update(np.ones((4, 2), np.float32), np.zeros((4, 2), np.float32))
    assert meter.result().cosine == 0
    assert meter.result().sqnr_db == 0


def test_a_nan_in_the_candidate_is_not_hidden() -> None:
    meter = FidelityMeter()
    meter.update(np.ones((4, 2), np.float32), np.full((4, 2), np.nan, np.float32))
    assert math.isnan(meter.result().cosine)


def fidelity(reference: Array, candidate: Array) -> OutputFidelity:
    meter = FidelityMeter()
    meter.update(reference, candidate)
    return meter.result()


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_what_the_reference_has_as_no_number_is_left_out_and_counted(value: float) -> None:
    result = fidelity(np.array([[1, value, 3]], np.float32), np.array([[1, value, 4]], np.float32))
    assert (result.compared, result.left_out) == (2, 1)
    assert result.cosine == pytest.approx(13 / math.sqrt(10 * 17))
    assert (result.max_abs, result.mean_abs) == (1, 0.5)


def test_an_infinity_of_the_candidate_alone_is_not_hidden() -> None:
    result = fidelity(np.ones(3, np.float32), np.array([1, np.inf, 1], np.float32))
    assert math.isnan(result.cosine)
    assert math.isnan(result.max_abs)


def test_an_empty_output_is_not_perfect_but_unknown() -> None:
    result = fidelity(np.zeros((0, 5), np.float32), np.zeros((0, 5), np.float32))
    assert result.compared == 0
    assert math.isnan(result.cosine)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.uint8, np.float16])
def test_outputs_of_other_types_are_compared_as_numbers(dtype: type[np.generic]) -> None:
    result = fidelity(np.array([[0, 1, 1]], dtype), np.array([[0, 1, 0]], dtype))
    assert result.cosine == pytest.approx(1 / math.sqrt(2))
    assert result.max_abs == 1


def test_nan_is_the_worst_of_all_outputs_and_an_empty_one_is_none() -> None:
    ones = np.ones(3, np.float32)
    outputs = {
        "fine": fidelity(ones, ones),
        "broken": fidelity(ones, ones * np.nan),
        "empty": fidelity(ones[:0], ones[:0]),
    }
    assert worst_output(outputs) is outputs["broken"]
    assert worst_output({"empty": outputs["empty"]}) is None
