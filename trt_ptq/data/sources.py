"""Batch sources of files: .npz, .npy, Polygraphy's JSON. Arrays that are in memory are cut into batches here too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from polygraphy.json import load_json

from trt_ptq.errors import DataError
from trt_ptq.types import Batch, Feeds, TensorSpec


@dataclass(frozen=True)
class NpzFolder:
    """A folder of .npz files: each is a batch, in the order of their names; the keys are input names."""

    files: tuple[Path, ...]

    @property
    def total(self) -> int:
        return len(self.files)

    def batch(self, index: int) -> Batch:
        """Read file `index`."""
        return Batch(read_arrays(self.files[index]), str(self.files[index]))

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, range(self.total))


@dataclass(frozen=True)
class ArraySource:
    """Arrays by input name, cut into batches along the first axis, which is the sample.

    An array without axes (a threshold, say) belongs to every batch.
    """

    name: str
    arrays: Feeds
    batch_size: int

    @property
    def samples(self) -> int:
        return next(len(array) for array in self.arrays.values() if array.ndim)

    @property
    def total(self) -> int:
        return -(-self.samples // self.batch_size)

    def batch(self, index: int) -> Batch:
        """The samples from `index * batch_size` on; views of the arrays."""
        start = index * self.batch_size
        stop = min(start + self.batch_size, self.samples)
        feeds = {name: array[start:stop] if array.ndim else array for name, array in self.arrays.items()}
        return Batch(feeds, f"{self.name}, samples {start} to {stop - 1}")

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, range(self.total))


@dataclass(frozen=True)
class InMemorySource:
    """Batches in memory."""

    batches: Sequence[Batch]

    @property
    def total(self) -> int:
        return len(self.batches)

    def batch(self, index: int) -> Batch:
        """Batch `index`."""
        return self.batches[index]

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def open_arrays(name: str, arrays: Feeds, inputs: tuple[TensorSpec, ...], batch_size: int) -> ArraySource:
    """A source of `arrays`, whose key is "" for an array without a name; `name` is for messages.

    Raises:
        DataError: an array without a name for several inputs, no samples, or different numbers of samples.
    """
    if "" in arrays:
        if len(inputs) != 1:
            names = ", ".join(spec.name for spec in inputs)
            raise DataError(f"{name}: a single array feeds one input, the model has {len(inputs)} ({names}): use .npz")
        arrays = {inputs[0].name: arrays[""]}
    scalars = {spec.name for spec in inputs if not spec.shape}
    lengths = {array.shape[:1] for key, array in arrays.items() if array.ndim or key not in scalars}
    if len(lengths) != 1 or () in lengths:
        shapes = ", ".join(f"{key} {list(array.shape)}" for key, array in arrays.items())
        raise DataError(f"{name}: the arrays have different numbers of samples (first axis): {shapes}")
    if lengths == {(0,)}:
        raise DataError(f"{name}: has no samples")
    return ArraySource(name, arrays, batch_size)


def read_arrays(path: Path) -> Feeds:
    """The arrays of a .npz by name; the array of a .npy as {"": array}. Pickled objects are refused.

    Raises:
        DataError: unreadable, truncated, or contains objects; names the file.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds of errors for damaged files
        reason = " ".join(str(error).split())
        if "pickle" in reason:  # NumPy takes every file that it does not know for pickled, and advises to load it so
            reason = "it is of another format, or holds Python objects, which are not loaded; write it with numpy.savez"
        raise DataError(f"{path}: not a readable NumPy file: {reason}") from error
    if not arrays:
        raise DataError(f"{path}: has no arrays")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy gives other members of the archive as bytes
            raise DataError(f"{path}: {name!r} is not a NumPy array")
    return arrays


def read_polygraphy(path: Path) -> InMemorySource:
    """Read a JSON file that Polygraphy saved (`--save-inputs`): a list of feed dicts.

    Raises:
        DataError: not JSON, or not a list of feed dicts.
    """
    try:
        loaded = load_json(str(path))
        if not isinstance(loaded, list) or not all(isinstance(feeds, dict) for feeds in loaded):
            raise ValueError("not a list of inputs, as Polygraphy's --save-inputs writes")
        batches = [{name: np.asarray(array) for name, array in feeds.items()} for feeds in loaded]
    except Exception as error:  # Polygraphy raises many kinds of errors
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a Polygraphy JSON file: {reason}") from error
    return InMemorySource([Batch(feeds, f"{path}, batch {index}") for index, feeds in enumerate(batches)])
