"""How ranges settle, and when they are stable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.calibration.test_collector import Given
from tests.calibrators.measured import measure
from tests.networks import images
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.convergence import Convergence, all_methods, relative_change
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import METHODS, Percentile
from trt_ptq.calibrators.statistics.tensor import TensorStatistics
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.load import Model

MINMAX = METHODS["minmax"]


def up_to(amax: float) -> TensorStatistics:
    return measure(np.array([0.0, amax], np.float32))


def after(convergence: Convergence, ranges: dict[int, dict[str, float]]) -> list[bool]:
    """What `update` says after each number of samples, given the tensors' largest values so far."""
    return [
        convergence.update(samples, lambda tensors=tensors: {name: up_to(amax) for name, amax in tensors.items()})  # type: ignore[misc]
        for samples, tensors in ranges.items()
    ]


def test_snapshots_are_taken_at_numbers_of_samples_that_grow_by_the_root_of_two() -> None:
    convergence = Convergence([MINMAX])
    for samples in range(1, 100):
        convergence.update(samples, lambda: {"x": up_to(1)})
    assert convergence.trajectory().samples == [8, 11, 16, 23, 32, 45, 64, 91]


def test_a_batch_that_skips_snapshots_takes_the_next() -> None:
    convergence = Convergence([MINMAX])
    for samples in range(12, 121, 12):
        convergence.update(samples, lambda: {"x": up_to(1)})
    assert convergence.trajectory().samples == [12, 24, 36, 48, 72, 96]


def test_the_final_ranges_are_recorded() -> None:
    convergence = Convergence([MINMAX])
    after(convergence, {8: {"x": 1.0}})
    for _ in range(2):
        convergence.record(9, {"x": up_to(2)})
    assert convergence.trajectory().samples == [8, 9]


def test_stable_when_no_range_moved_since_half_as_many_samples() -> None:
    convergence = Convergence([MINMAX], tolerance=0.01)
    stable = after(convergence, {50: {"x": 1.0, "y": 5.0}, 100: {"x": 1.0, "y": 6.0}, 200: {"x": 1.005, "y": 6.0}})
    assert stable == [False, False, True]
    assert str(convergence.stability()) == (
        "stable after 200 samples: since half of them, no range of method minmax has changed by more than 1%"
    )


def test_a_range_that_moved_and_came_back_is_not_stable() -> None:
    convergence = Convergence([MINMAX], tolerance=0.01)
    stable = after(convergence, {64: {"x": 1.0}, 91: {"x": 2.0}, 128: {"x": 1.0}})
    assert not stable[-1]
    assert convergence.stability().moving == {"x": 0.5}


def test_a_tensor_that_is_always_zero_is_stable_until_it_is_not() -> None:
    convergence = Convergence([MINMAX], tolerance=0.5)
    stable = after(convergence, {64: {"x": 0.0, "y": 0.0}, 128: {"x": 0.0, "y": 0.0}, 256: {"x": 0.0, "y": 1e-9}})
    assert stable == [False, True, False]
    assert convergence.stability().moving == {"y": 1.0}


def test_fewer_than_a_hundred_samples_are_never_stable() -> None:
    convergence = Convergence([MINMAX], tolerance=0.5)
    assert after(convergence, {count: {"x": 1.0} for count in (32, 64, 99)}) == [False] * 3
    assert str(convergence.stability()) == (
        "cannot judge after 99 samples whether the ranges are stable: use 100 or more, in several batches"
    )


def test_one_snapshot_is_not_enough_to_be_stable() -> None:
    convergence = Convergence([MINMAX], tolerance=0.5)
    assert after(convergence, {1000: {"x": 1.0}}) == [False]
    assert str(convergence.stability()).startswith("cannot judge after 1000 samples")


def test_unstable_tensors_are_named_the_fastest_first() -> None:
    convergence = Convergence([MINMAX], tolerance=0.01)
    first = {f"t{index}": 1.0 for index in range(8)}
    after(convergence, {8: first, 16: {name: 1.0 + index / 10 for index, name in enumerate(first)}})
    warning = str(convergence.stability())
    assert "7 ranges of method minmax have changed by more than 1%: 't7' by 41.2%, 't6' by 37.5%" in warning
    assert "and 2 more" in warning


def test_the_trajectory_has_the_change_to_the_final_ranges_by_each_method() -> None:
    convergence = Convergence([MINMAX, Percentile(50)])
    after(convergence, {8: {"x": 1.0, "y": 1.0}, 16: {"x": 2.0, "y": 1.0}, 32: {"x": 4.0, "y": 1.0}})
    trajectory = convergence.trajectory()
    minmax, percentile = trajectory.methods
    assert (minmax.method, percentile.method) == ("minmax", "percentile 50")
    assert trajectory.samples == [8, 16, 32]
    assert minmax.worst == [0.75, 0.5, 0]
    assert minmax.p90 == pytest.approx([0.675, 0.45, 0])
    assert minmax.slowest == {"x": [1 / 127, 2 / 127, 4 / 127]}


def test_tensors_of_several_passes_are_combined(cnn: Model) -> None:
    batches = [images(4, seed=seed) for seed in range(9)]
    calibration_tensors = select_calibration_tensors(cnn)
    at_once, in_passes = Convergence(all_methods(MINMAX)), Convergence(all_methods(MINMAX))
    collect_statistics(cnn, Given(batches), calibration_tensors, convergence=at_once)
    collect_statistics(
        cnn,
        Given(batches),
        calibration_tensors,
        passes=[calibration_tensors.tensors[:2], calibration_tensors.tensors[2:]],
        convergence=in_passes,
    )
    assert in_passes.trajectory() == at_once.trajectory()
    assert at_once.trajectory().samples == [8, 12, 16, 24, 32, 36]


def test_several_passes_cannot_stop_early(cnn: Model) -> None:
    calibration_tensors = select_calibration_tensors(cnn)
    with pytest.raises(UsageError, match=r"`until_stable` needs all tensors in one pass .* not in 3: raise"):
        collect_statistics(
            cnn,
            Given([images(4)]),
            calibration_tensors,
            passes=[[name] for name in calibration_tensors.tensors],
            convergence=Convergence([MINMAX], tolerance=0.01),
        )


def test_stopping_early_keeps_the_statistics_so_far(cnn: Model) -> None:
    batches = [images(20)] * 9
    calibration_tensors = select_calibration_tensors(cnn)
    convergence = Convergence([MINMAX], tolerance=0)
    statistics = collect_statistics(cnn, Given(batches), calibration_tensors, convergence=convergence)
    assert statistics.data.samples == convergence.stability().samples == 100
    assert statistics == collect_statistics(cnn, Given(batches[:5]), calibration_tensors)


def test_all_methods_are_recorded_and_the_first_decides() -> None:
    chosen = Percentile(99)
    assert [method.name for method in all_methods(chosen)] == ["percentile 99", "entropy", "minmax", "mse"]


@given(st.floats(0, 1e30), st.floats(0, 1e30))
def test_relative_change_is_symmetric_and_between_0_and_1(a: float, b: float) -> None:
    there, back = relative_change(np.array([a]), np.array([b]))[0], relative_change(np.array([b]), np.array([a]))[0]
    assert there == back
    assert 0 <= there <= 1
    assert (there == 0) == (a == b) or abs(a - b) < 1e-300
