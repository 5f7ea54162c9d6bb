"""A TorchAccumulator counts, on CPU tensors, exactly what a TensorAccumulator counts."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.calibrators.statistics.torch_values import DTYPES, batches, measure_numba, measure_torch, to_torch
from trt_ptq.calibrators.statistics import torch_accumulator
from trt_ptq.calibrators.statistics.torch_accumulator import TorchAccumulator
from trt_ptq.errors import MissingPackageError


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data())
def test_any_batches_of_any_bits_give_the_statistics_of_the_numba_kernel(dtype: str, data: st.DataObject) -> None:
    tensors = [to_torch(bits, dtype) for bits in data.draw(batches(dtype))]
    assert measure_torch(*tensors) == measure_numba(tensors)


@pytest.mark.parametrize("growth", [np.arange(-149, 128), np.arange(127, -150, -1)], ids=["rising", "falling"])
def test_the_range_grows_as_in_the_numba_kernel(growth: Any) -> None:
    tensors = [torch.tensor([value, -value / 3]) for value in np.ldexp(1.0, growth).astype(np.float32).tolist()]
    assert measure_torch(*tensors) == measure_numba(tensors)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_16_bit_pattern_is_counted_as_in_the_numba_kernel(dtype: str) -> None:
    values = to_torch(np.arange(2**16, dtype=np.uint16), dtype)
    assert measure_torch(values) == measure_numba([values])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_of_several_chunks_is_counted_as_in_the_numba_kernel(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_accumulator, "_CHUNK", 1000)
    values = torch.randn(10_007, generator=torch.Generator().manual_seed(0)).relu().to(DTYPES[dtype])
    values[[3, 2000]] = torch.tensor([torch.nan, -torch.inf], dtype=DTYPES[dtype])
    assert measure_torch(values) == measure_numba([values])


@pytest.mark.parametrize(
    ("values", "minimum", "maximum"),
    [([3.0, 5.0], 3.0, 5.0), ([-5.0, -3.0], -5.0, -3.0), ([-0.0], 0.0, 0.0), ([torch.nan], 0.0, 0.0), ([], 0.0, 0.0)],
    ids=["positive", "negative", "minus zero", "nothing finite", "empty"],
)
def test_one_sided_and_degenerate_data_keep_their_true_range(
    values: list[float], minimum: float, maximum: float
) -> None:
    measured = measure_torch(torch.tensor(values))
    assert (measured.minimum, measured.maximum) == (minimum, maximum)
    assert not np.signbit(measured.minimum) or measured.minimum < 0


def test_update_returns_how_many_values_of_this_batch_were_not_finite() -> None:
    accumulator = TorchAccumulator()
    assert accumulator.update(torch.tensor([1.0, torch.nan, torch.inf])) == 2
    assert accumulator.update(torch.tensor([1.0, 2.0])) == 0
    assert accumulator.statistics().nonfinite == 2


@pytest.mark.parametrize(
    "form",
    [
        lambda values: values.reshape(5, 7).T,
        lambda values: values[::2],
        lambda values: values[0],
        lambda values: values.double(),
        lambda values: values.requires_grad_(),
        lambda values: values[:1].expand(9),
    ],
    ids=["transposed", "strided", "scalar", "float64", "with a gradient", "expanded"],
)
def test_the_layout_of_a_tensor_does_not_matter(form: Any) -> None:
    tensor = form(torch.randn(35, generator=torch.Generator().manual_seed(0)))
    assert measure_torch(tensor) == measure_numba([tensor.detach().contiguous()])


def test_the_tensor_itself_is_not_changed() -> None:
    values = torch.tensor([-1.5, 0.0, torch.nan])
    measure_torch(values)
    assert torch.equal(values.nan_to_num(7.0), torch.tensor([-1.5, 0.0, 7.0]))


def test_a_snapshot_does_not_change_when_more_comes() -> None:
    accumulator = TorchAccumulator()
    accumulator.update(torch.ones(10))
    before = accumulator.statistics()
    accumulator.update(torch.full((10,), 1000.0))
    accumulator.update(torch.ones(10))
    assert before == measure_torch(torch.ones(10))


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match=r"trt-ptq\[torch\]"):
        TorchAccumulator()
