"""Hugging Face datasets become batches that every pass repeats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.data.opened import X, origins, rows, shapes
from trt_ptq.data.open import open_data
from trt_ptq.errors import DataError, UsageError
from trt_ptq.types import TensorSpec, is_indexed

IDS = TensorSpec("ids", np.dtype(np.int64), ("n", 3))


class Dataset:
    """What a Hugging Face dataset offers: columns by name and rows by slices."""

    def __init__(self, **columns: Any) -> None:
        self.columns = columns
        self.selected: list[str] = []

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, rows: slice) -> dict[str, Any]:
        return {name: values[rows] for name, values in self.columns.items()}

    def select_columns(self, names: list[str]) -> Dataset:
        return Dataset(**{name: self.columns[name] for name in names})


class StreamedDataset:
    """A Hugging Face dataset with `streaming=True`."""

    column_names = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return ({"ids": [index] * 3, "text": "a"} for index in range(5))


TABLE = Dataset(ids=[[index] * 3 for index in range(5)], text=list("abcde"))


class TestHuggingFace:
    @pytest.mark.parametrize("dataset", [TABLE, StreamedDataset()], ids=["table", "stream"])
    def test_columns_are_inputs_and_others_are_ignored(self, dataset: Any) -> None:
        source = open_data(dataset, (IDS,), batch_size=2)
        assert [batch.feeds["ids"][:, 0].tolist() for batch in source] == [[0, 1], [2, 3], [4]]
        assert shapes(source) == [{"ids": (2, 3)}, {"ids": (2, 3)}, {"ids": (1, 3)}]

    def test_batches_are_named_by_their_rows(self) -> None:
        assert origins(open_data(TABLE, (IDS,), batch_size=2))[1] == "Dataset, rows 2 to 3"

    def test_any_batch_can_be_read(self) -> None:
        source = open_data(TABLE, (IDS,), batch_size=2)
        assert is_indexed(source)
        assert (source.total, source.batch(2).feeds["ids"].tolist()) == (3, [[4, 4, 4]])

    def test_lists_take_the_dtype_of_the_input(self) -> None:
        source = open_data(Dataset(x=[[0.5] * 4]), (X,))
        assert next(iter(source)).feeds["x"].dtype == np.float32

    def test_arrays_keep_their_dtype(self) -> None:
        source = open_data(Dataset(x=rows(5).astype(np.float16)), (X,))
        assert next(iter(source)).feeds["x"].dtype == np.float16

    @pytest.mark.parametrize("dataset", [TABLE, StreamedDataset()], ids=["table", "stream"])
    def test_a_missing_column_is_named(self, dataset: Any) -> None:
        with pytest.raises(DataError, match="has no column x, an input of the model; it has ids, text"):
            list(open_data(dataset, (IDS, X)))

    def test_rows_of_different_lengths_are_refused(self) -> None:
        message = r"^Dataset, rows 0 to 1: column 'ids': the samples have different shapes, \[3\] and \[2\]: pad them"
        with pytest.raises(DataError, match=message):
            list(open_data(Dataset(ids=[[1, 2, 3], [1, 2]]), (IDS,)))

    def test_an_error_of_the_dataset_names_the_rows(self) -> None:
        class Broken(Dataset):
            select_columns = None  # type: ignore[assignment]

            def __getitem__(self, rows: slice) -> dict[str, Any]:
                raise OSError("no such file")

        with pytest.raises(DataError, match=r"^Broken, rows 0 to 1: OSError: no such file$"):
            list(open_data(Broken(ids=[[1, 2, 3]] * 2), (IDS,)))

    def test_a_set_of_datasets_is_refused_with_what_to_choose(self) -> None:
        class DatasetDict(dict[str, Any]):
            column_names = {"train": ["ids"]}  # noqa: RUF012

        with pytest.raises(UsageError, match=r"is a set of datasets: choose one, e\.g\. data\['train'\]"):
            open_data(DatasetDict(train=TABLE), (IDS,))

    def test_a_function_may_return_a_dataset(self) -> None:
        assert shapes(open_data(lambda: TABLE, (IDS,), batch_size=4)) == [{"ids": (4, 3)}, {"ids": (1, 3)}]

    @pytest.mark.parametrize("form", [None, "numpy", "torch"])
    def test_a_real_dataset(self, form: str | None) -> None:
        datasets = pytest.importorskip("datasets", reason="needs Hugging Face datasets")
        dataset = datasets.Dataset.from_dict(TABLE.columns).with_format(form)
        source = open_data(dataset, (IDS,), batch_size=2)
        assert [batch.feeds["ids"][:, 0].tolist() for batch in source] == [[0, 1], [2, 3], [4]]

    def test_a_real_stream(self) -> None:
        datasets = pytest.importorskip("datasets", reason="needs Hugging Face datasets")
        dataset = datasets.Dataset.from_dict(TABLE.columns).to_iterable_dataset()
        assert shapes(open_data(dataset, (IDS,), batch_size=4)) == [{"ids": (4, 3)}, {"ids": (1, 3)}]
