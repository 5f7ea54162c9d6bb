"""GPTQ's rounding of a matrix."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from threadpoolctl import threadpool_limits

from trt_ptq.qdq.weights import channel_scales, round_to_int8
from trt_ptq.transforms import gptq
from trt_ptq.transforms.gptq import error_feedback, round_with_feedback

Floats = npt.NDArray[np.float32]


def weights(channels: int, outputs: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((channels, outputs)).astype(np.float32)


def moments_of(rows: int, channels: int, seed: int = 1) -> npt.NDArray[np.float64]:
    """Of inputs whose channels go together, and differ in size by orders of magnitude."""
    generator = np.random.default_rng(seed)
    sources = generator.standard_normal((rows, channels // 4))
    inputs = (
        sources @ generator.standard_normal((channels // 4, channels)) + generator.standard_normal((rows, channels)) / 8
    )
    inputs = inputs * np.geomspace(0.01, 100, channels)
    return inputs.T @ inputs / rows


def errors(weight: Floats, integers: npt.NDArray[np.int8], scales: Floats, moments: npt.NDArray[np.float64]) -> Floats:
    """e^T H e by output channel."""
    error = integers * scales.astype(np.float64) - weight
    return np.einsum("io,ij,jo->o", error, moments, error)  # type: ignore[no-any-return]


@pytest.mark.parametrize("rows", [1000, 20], ids=["many rows", "fewer rows than channels"])
@pytest.mark.parametrize(("channels", "outputs"), [(48, 16), (200, 40)], ids=str)
def test_the_error_of_the_output_shrinks(rows: int, channels: int, outputs: int) -> None:
    weight, moments = weights(channels, outputs), moments_of(rows, channels)
    scales = channel_scales(weight, 1, "w")
    rounded = round_with_feedback(weight, scales, error_feedback(moments))
    before = errors(weight, round_to_int8(weight, scales, 1), scales, moments)
    after = errors(weight, rounded, scales, moments)
    assert (after <= before * 1.001).all()
    assert after.sum() < 0.5 * before.sum()
    assert rounded.dtype == np.int8
    assert np.abs(rounded.astype(int)).max() == 127


def test_the_best_of_all_roundings_is_found_or_nearly() -> None:
    """Against all 2^6 ways to round each weight down or up."""
    weight, moments = weights(6, 12), moments_of(100, 6)
    scales = np.full(12, 0.25, np.float32)
    rounded = round_with_feedback(weight, scales, error_feedback(moments, dampening=0))
    found = errors(weight, rounded, scales, moments)
    ways = (np.arange(64)[:, None] >> np.arange(6) & 1).astype(np.int8)
    lower = np.floor(weight / scales).astype(np.int8)
    best = np.min([errors(weight, lower + way[:, None], scales, moments) for way in ways], axis=0)
    nearest = errors(weight, round_to_int8(weight, scales, 1), scales, moments)
    assert found.sum() < 0.5 * (best.sum() + nearest.sum())


def test_independent_inputs_give_the_nearest_integers() -> None:
    weight = weights(70, 30)
    scales = channel_scales(weight, 1, "w")
    rounded = round_with_feedback(weight, scales, error_feedback(np.diag(np.geomspace(1e-6, 1e6, 70))))
    np.testing.assert_array_equal(rounded, round_to_int8(weight, scales, 1))


def test_a_dead_input_channel_gets_the_nearest_integers() -> None:
    weight, moments = weights(48, 16), moments_of(1000, 48)
    moments[7] = moments[:, 7] = 0
    scales = channel_scales(weight, 1, "w")
    rounded = round_with_feedback(weight, scales, error_feedback(moments))
    nearest = round_to_int8(weight, scales, 1)
    np.testing.assert_array_equal(rounded[7], nearest[7])
    assert (rounded != nearest).any()


def test_inputs_of_zeros_give_the_nearest_integers() -> None:
    weight = weights(20, 16)
    scales = channel_scales(weight, 1, "w")
    rounded = round_with_feedback(weight, scales, error_feedback(np.zeros((20, 20))))
    np.testing.assert_array_equal(rounded, round_to_int8(weight, scales, 1))


def test_the_scale_follows_from_the_rounded_weight() -> None:
    weight, moments = weights(200, 40), moments_of(1000, 200)
    scales = channel_scales(weight, 1, "w")
    rounded = round_with_feedback(weight, scales, error_feedback(moments))
    np.testing.assert_array_equal(np.abs(rounded.astype(int)).max(axis=0), 127)


def test_moments_that_rounding_made_indefinite_are_dampened_more() -> None:
    weight, moments = weights(48, 16), moments_of(1000, 48)
    moments -= 0.02 * np.diagonal(moments).mean() * np.eye(48)
    scales = channel_scales(weight, 1, "w")
    assert np.linalg.eigvalsh(moments)[0] < 0
    rounded = round_with_feedback(weight, scales, error_feedback(moments))
    before = errors(weight, round_to_int8(weight, scales, 1), scales, moments)
    assert errors(weight, rounded, scales, moments).sum() < before.sum()


@pytest.mark.parametrize("rows", [1000, 20], ids=["many rows", "fewer rows than channels"])
def test_each_channel_makes_up_for_the_errors_before_it(rows: int) -> None:
    """Against algorithm 1 of the paper, in double precision: from the Cholesky factor of the inverse."""
    weight, moments = weights(100, 40), moments_of(rows, 100)
    scales = channel_scales(weight, 1, "w")
    rounded = round_with_feedback(weight, scales, error_feedback(moments))
    order = np.argsort(-np.diagonal(moments))
    dampened = moments[np.ix_(order, order)] + 0.01 * np.diagonal(moments).mean() * np.eye(100)
    factor = np.linalg.cholesky(np.linalg.inv(dampened)).T
    left = (weight / scales)[order].astype(np.float64)
    is_largest = np.abs(left) > 126.5
    expected = np.rint(left)
    for channel in range(100):
        expected[channel] = np.clip(np.rint(np.where(is_largest[channel], expected, left)[channel]), -127, 127)
        error = (left[channel] - expected[channel]) / factor[channel, channel]
        left[channel:] -= np.outer(factor[channel, channel:], error)
    assert (rounded[order] != expected).mean() < 0.01  # one that differs by rounding changes those after it


def test_the_number_of_cores_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, moments = weights(576, 600), moments_of(1000, 576)
    scales = channel_scales(weight, 1, "w")
    results = []
    for threads in (1, 2):
        monkeypatch.setattr(gptq, "usable_cores", lambda count=threads: count)
        with threadpool_limits(threads, user_api="blas"):
            feedback = error_feedback(moments)
            results.append((feedback.factor.tobytes(), round_with_feedback(weight, scales, feedback).tobytes()))
    assert results[0] == results[1]


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, moments = weights(100, 40), moments_of(1000, 100)
    scales = channel_scales(weight, 1, "w")
    whole = round_with_feedback(weight, scales, error_feedback(moments))
    monkeypatch.setattr(gptq, "_BLOCK", 7)
    monkeypatch.setattr(gptq, "_COLUMNS", 13)
    monkeypatch.setattr(gptq, "_FACTORED", 5)
    monkeypatch.setattr(gptq, "_COMPARED", 9)
    blocks = round_with_feedback(weight, scales, error_feedback(moments))
    assert (whole != blocks).mean() < 0.01  # sums in another order
