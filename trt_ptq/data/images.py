"""A folder of images as a batch source."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq.data.feeds import as_array
from trt_ptq.data.user_function import describe_failure, user_file
from trt_ptq.errors import DataError
from trt_ptq.types import Array, Batch, TensorSpec

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True)
class ImageFolder:
    """Images of `folder`, each converted by `preprocess` (from a PIL image) to the array of one sample."""

    folder: Path
    files: tuple[Path, ...]
    input: TensorSpec
    preprocess: Callable[[Any], Any]
    batch_size: int

    @property
    def total(self) -> int:
        return -(-len(self.files) // self.batch_size)

    def batch(self, index: int) -> Batch:
        """Read the images from `index * batch_size` on.

        Raises:
            DataError: an image is damaged, `preprocess` fails, or the samples have different shapes; names the file.
        """
        start = index * self.batch_size
        files = self.files[start : start + self.batch_size]
        samples = [self._sample(file) for file in files]
        for file, sample in zip(files, samples, strict=True):
            if sample.shape != samples[0].shape:
                raise DataError(
                    f"{file}: preprocessed to shape {list(sample.shape)}, {self._name(files[0])} to "
                    f"{list(samples[0].shape)}: all images of a batch need one shape; or use `batch_size=1`"
                )
        return Batch({self.input.name: np.stack(samples)}, f"{files[0]} to {self._name(files[-1])}")

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, range(self.total))

    def _name(self, file: Path) -> str:
        return str(file.relative_to(self.folder))

    def _sample(self, file: Path) -> Array:
        image_module = require("PIL.Image", extra="images")
        try:
            image = image_module.open(file)
            image.load()  # here, so that a truncated file is not reported as an error of the function
        except Exception as error:  # Pillow's plug-ins raise many kinds of errors for damaged files
            raise DataError(f"{file}: not a readable image: {error}") from error
        try:
            with image:
                sample = self.preprocess(image)
        except Exception as error:
            reason = describe_failure(error, user_file(self.preprocess))
            raise DataError(f"{file}: the preprocess function fails: {reason}") from error
        array = as_array(sample, self.input, f"{file}: what the preprocess function returns")
        if array.dtype.hasobject:  # None, a dict, an image
            kind = "None" if sample is None else type(sample).__name__
            raise DataError(f"{file}: the preprocess function returns {kind}: it must return the array of one sample")
        return array


def find_files(folder: Path, suffixes: Collection[str]) -> tuple[Path, ...]:
    """The files in `folder` by name; if there are none, those in its subfolders (one for each class).

    The classes take turns, so that the first batches already contain samples of all classes.
    """
    files = _files_in(folder, suffixes)
    if files:
        return tuple(files)
    classes = [_files_in(subfolder, suffixes) for subfolder in sorted(folder.iterdir()) if subfolder.is_dir()]
    return tuple(file for turn in zip_longest(*classes) for file in turn if file is not None)


def _files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.suffix.lower() in suffixes]
