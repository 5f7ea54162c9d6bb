"""Batch sources, one for each form that data comes in. Only one .npy/.npz is kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from polygraphy.json import load_json

from trt_ptq.errors import DataError
from trt_ptq.types import Array, Batch, Feeds


@dataclass(frozen=True)
class NpzFolder:
    """A folder of .npz files, one batch each, in order of their names; keys are input names."""

    files: tuple[Path, ...]

    @property
    def total(self) -> int:
        return len(self.files)

    def batch(self, index: int) -> Batch:
        return Batch(read_arrays(self.files[index]), str(self.files[index]))

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, range(len(self.files)))


@dataclass(frozen=True)
class ArrayFile:
    """One .npz (keys are input names) or .npy (for the only input), whose first axis is the sample."""

    path: Path
    arrays: Feeds
    batch_size: int

    @property
    def samples(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def total(self) -> int:
        return -(-self.samples // self.batch_size)

    def batch(self, index: int) -> Batch:
        start = index * self.batch_size
        stop = min(start + self.batch_size, self.samples)
        feeds = {name: array[start:stop] for name, array in self.arrays.items()}
        return Batch(feeds, f"{self.path}, samples {start} to {stop - 1}")

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, range(self.total))


@dataclass(frozen=True)
class ImageFolder:
    """A folder of images, in order of their names, each turned into the input array of one sample."""

    files: tuple[Path, ...]
    input_name: str
    preprocess: Callable[[Any], Array]
    batch_size: int

    @property
    def total(self) -> int:
        return -(-len(self.files) // self.batch_size)

    def batch(self, index: int) -> Batch:
        start = index * self.batch_size
        files = self.files[start : start + self.batch_size]
        samples = [_read_image(file, self.preprocess) for file in files]
        for file, sample in zip(files, samples, strict=True):
            if sample.shape != samples[0].shape:
                raise DataError(
                    f"{file}: preprocessed to shape {list(sample.shape)}, {files[0].name} to "
                    f"{list(samples[0].shape)}: all images of a batch need one shape; or use --batch-size 1"
                )
        return Batch({self.input_name: np.stack(samples)}, f"{files[0]} to {files[-1].name}")

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, range(self.total))


@dataclass(frozen=True)
class Loader:
    """A user's function that yields feed dicts; it is called anew for each pass."""

    spec: str
    function: Callable[[], Any]

    @property
    def total(self) -> int | None:
        return None

    def __iter__(self) -> Iterator[Batch]:
        index = 0
        try:
            for feeds in self.function():
                if not isinstance(feeds, dict):
                    raise DataError(
                        f"{self.spec}, batch {index}: yields {type(feeds).__name__}, not a dict of arrays by input name"
                    )
                yield Batch(
                    {str(name): np.asarray(array) for name, array in feeds.items()},
                    f"{self.spec}, batch {index}",
                )
                index += 1
        except DataError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{self.spec} fails at batch {index}: {type(error).__name__}: {reason}") from error


@dataclass(frozen=True)
class PolygraphyFile:
    """A JSON file that Polygraphy saved (`--save-inputs`): a list of feed dicts."""

    path: Path
    batches: Sequence[Feeds]

    @property
    def total(self) -> int:
        return len(self.batches)

    def batch(self, index: int) -> Batch:
        return Batch(self.batches[index], f"{self.path}, batch {index}")

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, range(len(self.batches)))


def read_arrays(path: Path) -> Feeds:
    """The arrays of a .npz by name; of a .npy as {"": array}. Pickled objects are refused.

    Raises:
        DataError: unreadable, truncated or with objects in it; names the file.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds for damaged files
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a readable NumPy file: {reason}") from error
    if not arrays:
        raise DataError(f"{path}: has no arrays")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy gives other members of the archive as bytes
            raise DataError(f"{path}: {name!r} is not a NumPy array")
    return arrays


def read_polygraphy(path: Path) -> PolygraphyFile:
    """Read Polygraphy's JSON.

    Raises:
        DataError: not JSON, or not a list of feed dicts.
    """
    try:
        loaded = load_json(str(path))
        if not isinstance(loaded, list) or not all(isinstance(feeds, dict) for feeds in loaded):
            raise ValueError("not a list of inputs, as Polygraphy's --save-inputs writes")
        batches = [{name: np.asarray(array) for name, array in feeds.items()} for feeds in loaded]
    except Exception as error:  # Polygraphy raises many kinds, its own among them
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a Polygraphy JSON file: {reason}") from error
    return PolygraphyFile(path, batches)


def _read_image(path: Path, preprocess: Callable[[Any], Array]) -> Array:
    from PIL import Image  # gated by `open_source`

    try:
        image = Image.open(path)
        image.load()  # here, so that a truncated file is not taken for a fault of the function
    except Exception as error:  # Pillow's plug-ins raise many kinds for damaged files
        raise DataError(f"{path}: not a readable image: {error}") from error
    try:
        with image:
            return np.asarray(preprocess(image))
    except Exception as error:
        raise DataError(f"{path}: the preprocess function fails: {type(error).__name__}: {error}") from error
