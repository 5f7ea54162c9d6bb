"""The audit warns about suspicious calibration data, and has no findings on good data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_ptq.data.adapters import FunctionSource
from trt_ptq.data.checks import audit
from trt_ptq.data.checks.audit import Audit, HeldOutAudit
from trt_ptq.data.feeds import FeedsReader
from trt_ptq.data.observation import observe
from trt_ptq.data.shard import EmptyShardError, ShardedSource
from trt_ptq.data.sources import InMemorySource
from trt_ptq.types import Batch, TensorSpec

Floats = npt.NDArray[np.float32]
X = TensorSpec("x", np.dtype(np.float32), ("n", 3, 32, 32))


def source(make: Callable[[int], Floats], count: int) -> InMemorySource:
    """`count` batches of what `make` returns for their index."""
    return InMemorySource([Batch({"x": make(index)}, f"batch {index}") for index in range(count)])


def picture(index: int) -> Floats:
    """Smooth values, as in images: a running sum of noise."""
    return np.random.default_rng(index).standard_normal((8, 3, 32, 32)).cumsum(axis=-1).astype(np.float32)


def noise(index: int) -> Floats:
    return np.random.default_rng(index).standard_normal((8, 3, 32, 32)).astype(np.float32)


def findings(make: Callable[[int], Floats], count: int = 13) -> list[str]:
    audited = Audit()
    list(observe(source(make, count), audited))
    return audited.findings()


def test_good_data_has_no_findings() -> None:
    assert findings(picture) == []


def test_few_samples() -> None:
    assert findings(picture, 12) == ["only 96 calibration samples: 100 to 1000 are advised"]


def test_repeated_batches() -> None:
    assert findings(lambda index: picture(index % 10)) == [
        "3 batches repeat earlier ones, e.g. batch 10 repeats batch 0"
    ]


def test_batches_of_the_same_bytes_but_another_shape_do_not_repeat() -> None:
    assert findings(lambda index: picture(0).reshape(8, 3, 2**index, -1), 6)[1:] == []


def test_constant_inputs() -> None:
    found = findings(lambda index: np.full((8, 3, 32, 32), index, np.float32))
    assert found == ["13 inputs have a single constant value, e.g. 'x' of batch 0"]


def test_random_noise() -> None:
    assert len(findings(noise)) == 1
    assert findings(noise)[0].startswith("input 'x' looks like random noise")


@pytest.mark.parametrize("axis", range(4))
def test_data_that_is_smooth_along_any_axis_is_not_noise(axis: int) -> None:
    assert findings(lambda index: noise(index).cumsum(axis=axis, dtype=np.float32)) == []


def test_a_key_value_cache_whose_channels_have_their_own_means_is_not_noise() -> None:
    means = 0.3 * np.random.default_rng(99).standard_normal((3, 1, 32))
    assert findings(lambda index: (noise(index) + means).astype(np.float32)) == []


def test_noise_is_recognized_in_small_batches_too() -> None:
    found = findings(lambda index: noise(index)[:4, :1], 100)
    assert [finding for finding in found if "random noise" in finding]


def test_one_real_batch_among_noise_is_enough() -> None:
    assert findings(lambda index: picture(0) if index == 7 else noise(index)) == []


@pytest.mark.filterwarnings("error")
def test_permitted_nan_and_infinity_are_not_noise() -> None:
    def broken(index: int) -> Floats:
        values = noise(index)
        values[0, 0, 0, :2] = np.nan, np.inf
        return values

    assert findings(broken) == []


def test_held_out_samples_that_were_calibrated_with_are_counted() -> None:
    calibration = Audit()
    held_out = HeldOutAudit(calibration)
    list(observe(source(picture, 3), calibration))
    list(observe(source(lambda index: picture(index + 2), 3), held_out))
    assert len(held_out.findings()) == 1
    assert held_out.findings()[0].startswith(
        "8 of 24 samples of the comparison were also used for calibration, e.g. in batch 0: "
    )


def test_held_out_samples_are_recognized_in_other_batches() -> None:
    calibration = Audit()
    held_out = HeldOutAudit(calibration)
    list(observe(source(picture, 3), calibration))
    shuffled = np.concatenate([picture(7)[:5], picture(1)[2:3], picture(8)[:2]])
    list(observe(source(lambda _: shuffled, 1), held_out))
    assert held_out.num_calibrated == 1
    assert held_out.findings()[0].startswith("1 of 8 samples ")


def test_held_out_samples_are_recognized_from_every_calibration_pass() -> None:
    calibration = Audit()
    held_out = HeldOutAudit(calibration)
    passes = iter([picture(0), picture(1)])
    shuffling = observe(FunctionSource("loader", lambda: [next(passes)], FeedsReader((X,)), 8), calibration)
    assert [len(list(shuffling)), len(list(shuffling))] == [1, 1]
    list(observe(source(lambda _: picture(1), 1), held_out))
    assert held_out.num_calibrated == 8
    assert calibration.samples == 8  # counted once


def test_a_scalar_beside_the_samples_does_not_hide_them() -> None:
    calibration = Audit()
    held_out = HeldOutAudit(calibration)
    gain = np.array(1.5, np.float32)
    calibration.observe(Batch({"x": picture(0), "gain": gain}, "batch 0"))
    held_out.observe(Batch({"x": picture(0)[::-1], "gain": gain}, "batch 0"))
    assert held_out.num_calibrated == 8


def test_other_held_out_batches_have_no_findings() -> None:
    calibration = Audit()
    held_out = HeldOutAudit(calibration)
    list(observe(source(picture, 3), calibration))
    list(observe(source(lambda index: picture(index + 3), 3), held_out))
    assert held_out.findings() == []


def test_memory_does_not_grow_with_the_number_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_REMEMBERED", 5)
    repeats = findings(lambda index: picture(index % 12), 18)
    assert repeats == [
        "5 batches repeat earlier ones, e.g. batch 12 repeats batch 0"
    ]  # only the first 5 are remembered


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(1, 4), st.sampled_from([picture, noise]))
@settings(max_examples=30, deadline=None)
def test_merged_audits_of_shards_equal_one_audit(seeds: list[int], count: int, make: Callable[[int], Floats]) -> None:
    def batch(index: int) -> Floats:
        return make(seeds[index]) if seeds[index] else np.ones((8, 3, 32, 32), np.float32)

    def counts(found: list[str]) -> list[str]:
        return [finding.partition(", e.g.")[0] for finding in found]  # the examples may differ

    whole = Audit()
    list(observe(source(batch, len(seeds)), whole))
    merged = Audit()
    for index in range(count):
        shard = Audit()
        with suppress(EmptyShardError):
            list(observe(ShardedSource(source(batch, len(seeds)), index, count), shard))
        merged.merge(shard)
    assert counts(merged.findings()) == counts(whole.findings())


def test_a_shard_may_have_few_samples() -> None:
    shard = Audit()
    list(observe(source(noise, 3), shard))
    assert [finding[:9] for finding in shard.findings(is_shard=True)] == ["input 'x'"]
