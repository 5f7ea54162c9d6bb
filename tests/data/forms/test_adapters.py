"""Python objects become batches that every pass repeats."""

from __future__ import annotations

import sys
from collections import UserDict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.opened import Indexed, X, Y, numbers, one_line, origins, rows, shapes
from trt_ptq.data.adapters import in_memory
from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.data.open import open_data
from trt_ptq.errors import DataError
from trt_ptq.types import Batch, BatchSource, TensorSpec, is_indexed

IDS = TensorSpec("ids", np.dtype(np.int64), ("n", 3))


def batches(count: int = 3) -> Iterator[dict[str, Any]]:
    for index in range(count):
        yield {"x": np.full((1, 4), index, np.float32)}


def refilled() -> Iterator[dict[str, Any]]:
    """A loader that uses one buffer for all batches."""
    buffer = np.empty((1, 4), np.float32)
    for index in range(3):
        buffer[:] = index
        yield {"x": buffer}


class TestIterables:
    @pytest.mark.parametrize(
        "data",
        [list(batches()), tuple(batches()), batches, partial(batches, 3), [feeds["x"] for feeds in batches()]],
        ids=["list", "tuple", "function", "partial", "arrays"],
    )
    def test_batches_come_in_order_in_every_pass(self, data: Any) -> None:
        source = open_data(data, (X,))
        assert numbers(source) == numbers(source) == [0, 1, 2]

    def test_a_generator_can_be_read_again(self) -> None:
        source = open_data(batches(), (X,))
        assert numbers(source) == numbers(source) == [0, 1, 2]
        assert source.total == 3

    def test_a_generator_may_refill_its_buffer(self) -> None:
        assert numbers(open_data(refilled(), (X,))) == [0, 1, 2]

    def test_a_list_is_indexed_and_a_function_is_not(self) -> None:
        assert [is_indexed(open_data(data, (X,))) for data in (list(batches()), batches)] == [True, False]

    def test_a_function_is_called_for_each_pass(self) -> None:
        calls = []
        source = open_data(lambda: calls.append(1) or batches(), (X,))  # type: ignore[func-returns-value]
        assert numbers(source) == numbers(source)
        assert len(calls) == 2

    def test_data_that_is_exhausted_in_the_second_pass_is_refused(self) -> None:
        batches = iter([{"x": rows(2)}])
        source = ValidatedSource(open_data(lambda: batches, (X,)), (X,))
        assert len(list(source)) == 1
        with pytest.raises(DataError, match=r"no batches \(a function must yield them anew each time it is called\)"):
            list(source)

    def test_an_iterable_is_iterated_over_anew_for_each_pass(self) -> None:
        class Loader:
            def __iter__(self) -> Iterator[dict[str, Any]]:
                return batches()

        source = open_data(Loader(), (X,))
        assert numbers(source) == numbers(source) == [0, 1, 2]

    def test_a_batch_is_named_after_the_function(self) -> None:
        assert origins(open_data(batches, (X,)))[1] == "batches, batch 1"

    def test_a_batch_source_is_used_directly(self) -> None:
        source = Indexed(3)
        assert open_data(source, (X,)) is source

    def test_batches_of_a_function_may_be_batch_objects(self) -> None:
        assert origins(open_data(lambda: [Batch({"x": rows(1)}, "mine")], (X,))) == ["mine"]

    def test_a_bad_item_of_a_list_is_refused_at_once(self) -> None:
        with pytest.raises(DataError, match=r"^list, batch 1: expected a dict of arrays by input name, got int$"):
            open_data([rows(1), 3], (X,))

    def test_a_function_may_return_arrays(self) -> None:
        assert shapes(open_data(lambda: rows(5), (X,), batch_size=4)) == [{"x": (4, 4)}, {"x": (1, 4)}]
        returned = {"x": rows(3), "y": np.arange(3)}
        assert shapes(open_data(lambda: returned, (X, Y), batch_size=4)) == [{"x": (3, 4), "y": (3,)}]

    def test_an_array_that_a_function_returns_feeds_one_input(self) -> None:
        with pytest.raises(DataError, match="a single array feeds one input, the model has 2"):
            list(open_data(lambda: rows(5), (X, Y)))

    @pytest.mark.parametrize("returned", [None, 3, "d.npz", Path("d.npz")], ids=["None", "int", "str", "path"])
    def test_a_function_that_returns_no_data_is_refused(self, returned: Any) -> None:
        def load() -> Any:
            return returned

        with pytest.raises(DataError, match=rf"^load returns {type(returned).__name__}, not data: return or yield"):
            list(open_data(load, (X,)))

    def test_a_failing_generator_is_named_with_the_batch(self) -> None:
        def broken() -> Iterator[Any]:
            yield rows(1)
            raise OSError("disk\nfull")

        with pytest.raises(DataError, match=r"^broken fails at batch 1: OSError: disk full$"):
            open_data(broken(), (X,))


class TestArrays:
    def test_an_array_is_cut_into_batches(self) -> None:
        assert shapes(open_data(rows(5), (X,), batch_size=4)) == [{"x": (4, 4)}, {"x": (1, 4)}]

    def test_arrays_by_name_are_cut_into_batches(self) -> None:
        source = open_data(UserDict(x=rows(5), y=np.arange(5)), (X, Y), batch_size=4)
        assert shapes(source) == [{"x": (4, 4), "y": (4,)}, {"x": (1, 4), "y": (1,)}]


class TestInMemory:
    def test_a_refilled_buffer_is_copied(self) -> None:
        assert numbers(in_memory(open_data(refilled, (X,)))) == [0, 1, 2]

    def test_the_source_is_read_once(self) -> None:
        source = Indexed(3)
        copied = in_memory(source)
        assert numbers(copied) == numbers(copied) == source.read


class TestTorchDataLoader:
    @staticmethod
    def loader(items: Any, **options: Any) -> Any:
        data = pytest.importorskip("torch.utils.data", reason="needs torch")
        return data.DataLoader(items, **options)

    @staticmethod
    def samples() -> list[tuple[Any, int]]:
        torch = pytest.importorskip("torch", reason="needs torch")
        return [(torch.full((4,), float(index)), index % 2) for index in range(20)]

    def order(self, source: BatchSource) -> list[list[float]]:
        return [batch.feeds["x"][:, 0].tolist() for batch in source]

    def test_tuples_feed_the_inputs_in_their_order(self) -> None:
        source = open_data(self.loader(self.samples(), batch_size=8), (X,))
        assert shapes(source) == [{"x": (8, 4)}, {"x": (8, 4)}, {"x": (4, 4)}]
        assert source.total == 3

    def test_dicts_feed_the_inputs_by_name(self) -> None:
        samples = [{"label": label, "x": x} for x, label in self.samples()]
        assert shapes(open_data(self.loader(samples, batch_size=10), (X,))) == [{"x": (10, 4)}] * 2

    def test_a_shuffling_loader_repeats_its_batches(self) -> None:
        source = open_data(self.loader(self.samples(), batch_size=8, shuffle=True), (X,))
        first = self.order(source)
        assert first == self.order(source)
        assert first != sorted(first)

    def test_a_shuffling_loader_with_a_generator_repeats_its_batches(self) -> None:
        torch = pytest.importorskip("torch", reason="needs torch")
        generator = torch.Generator().manual_seed(3)
        source = open_data(self.loader(self.samples(), batch_size=8, shuffle=True, generator=generator), (X,))
        torch.rand(1, generator=generator)
        before = generator.get_state()
        next(iter(source))
        assert torch.equal(before, generator.get_state())
        assert self.order(source) == self.order(source)
        assert torch.equal(before, generator.get_state())

    def test_random_augmentation_is_repeated(self) -> None:
        torch = pytest.importorskip("torch", reason="needs torch")

        class Noise(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
            def __len__(self) -> int:
                return 6

            def __getitem__(self, index: int) -> Any:
                return torch.rand(4)

        source = open_data(self.loader(Noise(), batch_size=2), (X,))
        assert self.order(source) == self.order(source)

    def test_the_random_numbers_of_others_are_left_alone(self) -> None:
        torch = pytest.importorskip("torch", reason="needs torch")
        source = open_data(self.loader(self.samples(), batch_size=8, shuffle=True), (X,))
        before = torch.get_rng_state()
        list(source)
        assert torch.equal(before, torch.get_rng_state())

    def test_workers_give_the_same_batches(self) -> None:
        alone, workers = (
            open_data(self.loader(self.samples(), batch_size=8, shuffle=True, num_workers=count), (X,))
            for count in (0, 1)
        )
        assert self.order(alone) == self.order(workers)

    def test_a_loader_without_a_length_has_no_total(self) -> None:
        torch = pytest.importorskip("torch", reason="needs torch")

        class Endless(torch.utils.data.IterableDataset):  # type: ignore[misc, name-defined]
            def __iter__(self) -> Iterator[Any]:
                return (torch.zeros(4) for _ in range(3))

        source = open_data(self.loader(Endless(), batch_size=2), (X,))
        assert source.total is None
        assert len(list(source)) == 2

    def test_an_error_of_the_loader_names_the_batch(self) -> None:
        torch = pytest.importorskip("torch", reason="needs torch")
        samples = [torch.zeros(4), torch.zeros(4), torch.zeros(3)]
        with pytest.raises(DataError, match=r"^DataLoader fails at batch 1: RuntimeError: stack expects") as caught:
            list(open_data(self.loader([*samples, torch.zeros(4)], batch_size=2), (X,)))
        one_line(caught.value)

    def test_a_function_may_return_a_loader(self) -> None:
        source = open_data(lambda: self.loader(self.samples(), batch_size=8, shuffle=True), (X,))
        assert self.order(source) == self.order(source)

    def test_torch_is_not_imported_for_other_data(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        assert numbers(open_data(batches, (X,))) == [0, 1, 2]
