"""A TorchAccumulator counts, on the card, exactly what a TensorAccumulator counts (proof: GPU)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from tests.calibrators.statistics.torch_values import DTYPES, batches, measure_numba, measure_torch, to_torch  # noqa: E402
from trt_ptq.calibrators.statistics.torch_accumulator import TorchAccumulator  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")]


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=300, deadline=None)  # the first call starts CUDA
@given(st.data())
def test_any_batches_of_any_bits_give_the_statistics_of_the_numba_kernel(dtype: str, data: st.DataObject) -> None:
    tensors = [to_torch(bits, dtype, "cuda") for bits in data.draw(batches(dtype))]
    assert measure_torch(*tensors) == measure_numba(tensors)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_16_bit_pattern_is_counted_as_in_the_numba_kernel(dtype: str) -> None:
    values = to_torch(np.arange(2**16, dtype=np.uint16), dtype, "cuda")
    assert measure_torch(values) == measure_numba([values])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [-130, -20, 0, 14])
def test_large_tensors_of_many_zeros_and_some_nan_are_counted_as_in_the_numba_kernel(dtype: str, exponent: int) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    values = torch.randn(20_000_003, generator=generator, device="cuda").relu() * 2.0**exponent
    values[::1_000_001] = torch.nan
    tensor = values.to(DTYPES[dtype])
    assert measure_torch(tensor) == measure_numba([tensor])


def test_one_bin_counts_every_value_of_a_large_constant_tensor() -> None:
    found = measure_torch(torch.full((2**25 + 1,), 0.75, device="cuda"))
    assert int(found.histogram.counts.max()) == found.count == 2**25 + 1


def test_an_update_copies_a_few_numbers_to_the_host_and_no_activations() -> None:
    values = torch.randn(2**22, device="cuda")
    accumulator = TorchAccumulator()
    accumulator.update(values)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        accumulator.update(values)
        torch.cuda.synchronize()
    copies = [event for event in profile.events() if "Memcpy DtoH" in event.name]
    assert len(copies) == 1


def test_little_memory_is_needed_beside_the_tensor() -> None:
    values = torch.randn(2**26, device="cuda", dtype=torch.float16)
    accumulator = TorchAccumulator()
    accumulator.update(values[:10])
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    accumulator.update(values)
    assert torch.cuda.max_memory_allocated() - before < values.nbytes
