"""Batch sources of Python objects: functions, iterables, torch DataLoaders, Hugging Face datasets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from trt_ptq.data.feeds import FeedsReader, as_array, is_array, stack
from trt_ptq.data.sources import InMemorySource, open_arrays
from trt_ptq.data.user_function import UserFunction, describe_failure, user_file
from trt_ptq.errors import DataError, TrtPtqError, UsageError
from trt_ptq.types import Batch, BatchSource, TensorSpec


@dataclass(frozen=True)
class FunctionSource:
    """A function that returns or yields batches, or returns arrays, a DataLoader or a dataset.

    It is called anew for each pass.
    """

    name: str
    function: Callable[[], Any]
    reader: FeedsReader
    batch_size: int

    @property
    def total(self) -> int | None:
        return None

    def __iter__(self) -> Iterator[Batch]:
        items = self._items()
        if isinstance(self.function, UserFunction):
            items = self.function.steps(items)
        for origin, item in _numbered(self.name, items, file=user_file(self.function)):
            yield self.reader.batch(item, origin)

    def _items(self) -> Iterator[Any]:
        returned = self.function()
        source = _open_object(self.name, returned, self.reader, self.batch_size)
        if source is not None:
            yield from source
        elif _is_iterable(returned) and not isinstance(returned, (str, bytes)):
            yield from returned
        else:
            raise DataError(
                f"{self.name} returns {type(returned).__name__}, not data: return or yield batches, or return an "
                "array, a dict of arrays, a torch DataLoader or a Hugging Face dataset; give a path itself as the data"
            )


@dataclass(frozen=True)
class DataLoaderSource:
    """A torch DataLoader. Each pass draws the same random numbers from torch, so that a shuffling loader repeats its
    batches; random numbers from elsewhere (`random`, NumPy) are the user's to seed."""

    name: str
    loader: Any
    reader: FeedsReader

    @property
    def total(self) -> int | None:
        try:
            return len(self.loader)
        except TypeError:  # an IterableDataset without a length
            return None

    def __iter__(self) -> Iterator[Batch]:
        for origin, item in _numbered(self.name, _repeatable(self.loader)):
            yield self.reader.batch(item, origin, ignore_extra=True)


@dataclass(frozen=True)
class DatasetSource:
    """A Hugging Face dataset, whose rows are samples and whose columns are inputs."""

    name: str
    dataset: Any
    inputs: tuple[TensorSpec, ...]
    batch_size: int

    @property
    def total(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def batch(self, index: int) -> Batch:
        """The rows from `index * batch_size` on."""
        start = index * self.batch_size
        stop = min(start + self.batch_size, len(self.dataset))
        origin = f"{self.name}, rows {start} to {stop - 1}"
        with _errors_at(origin):
            return _batch_of_columns(self.dataset[start:stop], self.inputs, origin)

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, range(self.total))


@dataclass(frozen=True)
class StreamSource:
    """A Hugging Face dataset that can only be iterated over (`streaming=True`)."""

    name: str
    dataset: Iterable[Mapping[str, Any]]
    inputs: tuple[TensorSpec, ...]
    batch_size: int

    @property
    def total(self) -> int | None:
        return None

    def __iter__(self) -> Iterator[Batch]:
        rows = (row for _, row in _numbered(self.name, self.dataset, "row"))
        start = 0
        while chunk := list(islice(rows, self.batch_size)):
            stop = start + len(chunk)
            columns = {name: [row[name] for row in chunk] for name in chunk[0]}
            yield _batch_of_columns(columns, self.inputs, f"{self.name}, rows {start} to {stop - 1}")
            start = stop


def adapt(data: Any, inputs: tuple[TensorSpec, ...], batch_size: int) -> BatchSource:
    """A batch source of a Python object: see `open_data`.

    Raises:
        DataError: an item is not a batch of the model's inputs.
        UsageError: not one of the supported forms of data.
    """
    reader = FeedsReader(inputs)
    name = getattr(getattr(data, "func", data), "__name__", type(data).__name__)  # a partial has a `func`
    source = _open_object(name, data, reader, batch_size)
    if source is not None:
        return source
    if isinstance(data, BatchSource):
        return data
    if isinstance(data, (list, tuple)):
        return InMemorySource([reader.batch(item, f"{name}, batch {index}") for index, item in enumerate(data)])
    if isinstance(data, Iterator):  # can be read only once
        return in_memory(FunctionSource(name, lambda: data, reader, batch_size))
    if isinstance(data, Iterable):
        return FunctionSource(name, data.__iter__, reader, batch_size)
    if callable(data):
        return FunctionSource(name, data, reader, batch_size)
    raise UsageError(
        f"data of type {type(data).__name__} is not supported: give a folder, a file, a list, generator or function of "
        "feed dicts or arrays, a torch DataLoader, a Hugging Face dataset or a BatchSource"
    )


def in_memory(source: BatchSource) -> InMemorySource:
    """Copies of all batches of `source`, which may reuse the memory of a batch for the next one."""
    return InMemorySource(
        [Batch({name: np.array(array) for name, array in batch.feeds.items()}, batch.origin) for batch in source]
    )


def _open_object(name: str, data: Any, reader: FeedsReader, batch_size: int) -> BatchSource | None:
    """A source of an object that has all samples: a DataLoader, a dataset or arrays; None if `data` is none of them."""
    if is_array(data):
        return open_arrays(name, {"": as_array(data, None, name)}, reader.inputs, batch_size)
    if isinstance(data, Mapping) and not hasattr(data, "column_names"):
        arrays = {str(key): as_array(value, None, f"{name}: {key!r}") for key, value in data.items()}
        return open_arrays(name, arrays, reader.inputs, batch_size)
    return _open_dataset(name, data, reader, batch_size)


def _open_dataset(name: str, data: Any, reader: FeedsReader, batch_size: int) -> BatchSource | None:
    """A source of a torch DataLoader or a Hugging Face dataset; None if `data` is something else."""
    torch = sys.modules.get("torch")  # whoever has a DataLoader has imported torch
    if torch is not None and isinstance(data, torch.utils.data.DataLoader):
        return DataLoaderSource(name, data, reader)
    if not hasattr(data, "column_names"):
        return None
    columns, inputs = data.column_names, reader.inputs
    if isinstance(columns, Mapping):
        raise UsageError(f"{name}: is a set of datasets: choose one, e.g. data[{next(iter(columns), 'train')!r}]")
    if columns is not None:  # a stream may not know its columns in advance
        _check_columns(columns, inputs, name)
        if callable(getattr(data, "select_columns", None)):
            data = data.select_columns([spec.name for spec in inputs])  # decodes no others
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return DatasetSource(name, data, inputs, batch_size)
    return StreamSource(name, data, inputs, batch_size)


def _batch_of_columns(columns: Mapping[str, Any], inputs: tuple[TensorSpec, ...], origin: str) -> Batch:
    _check_columns(columns, inputs, origin)
    feeds = {}
    for spec in inputs:
        values, where = columns[spec.name], f"{origin}: column {spec.name!r}"
        feeds[spec.name] = as_array(values, spec, where) if is_array(values) else stack(values, spec, where)
    return Batch(feeds, origin)


def _check_columns(columns: Iterable[str], inputs: tuple[TensorSpec, ...], where: str) -> None:
    missing = [spec.name for spec in inputs if spec.name not in columns]
    if missing:
        raise DataError(
            f"{where}: has no column {', '.join(missing)}, an input of the model; it has {', '.join(columns)}: rename "
            "the columns by input"
        )


def _numbered(
    name: str, items: Iterable[Any], unit: str = "batch", file: Path | None = None
) -> Iterator[tuple[str, Any]]:
    """Yield the items of a user's iterable, which `file` may define, with their origin.

    Raises:
        DataError: the user's code fails; names the item.
    """
    steps = None
    for index in count():
        with _errors_at(f"{name} fails at {unit} {index}", file):
            steps = iter(items) if steps is None else steps
            try:
                item = next(steps)
            except StopIteration:
                return
        yield f"{name}, {unit} {index}", item


def _is_iterable(value: Any) -> bool:
    return hasattr(value, "__iter__") or hasattr(value, "__getitem__")


@contextmanager
def _errors_at(where: str, file: Path | None = None) -> Iterator[None]:
    try:
        yield
    except TrtPtqError:
        raise
    except Exception as error:  # whatever a user's code raises
        raise DataError(f"{where}: {describe_failure(error, file)}") from error


def _repeatable(loader: Any) -> Iterator[Any]:
    """The items of a torch DataLoader, each pass with the same states of torch's generator and of the loader's own.

    Others may draw from both in between, and go on where they were.
    """
    torch = sys.modules["torch"]
    seeds = {torch.default_generator: 0}
    if loader.generator is not None:
        seeds[loader.generator] = loader.generator.initial_seed()
    states = [torch.Generator(own.device).manual_seed(seed).get_state() for own, seed in seeds.items()]
    items = None
    while True:
        others = _swap(seeds, states)
        try:
            items = iter(loader) if items is None else items
            item = next(items)
        except StopIteration:
            return
        finally:
            states = _swap(seeds, others)
        yield item


def _swap(generators: Iterable[Any], states: Iterable[Any]) -> list[Any]:
    """Set the states of torch generators; returns those before."""
    before = []
    for generator, state in zip(generators, states, strict=True):
        before.append(generator.get_state())
        generator.set_state(state)
    return before
