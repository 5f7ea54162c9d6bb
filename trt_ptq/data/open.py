"""`open_data` turns every form of data that users have into a batch source."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq.data.adapters import FunctionSource, adapt
from trt_ptq.data.feeds import FeedsReader
from trt_ptq.data.images import IMAGE_SUFFIXES, ImageFolder, find_files
from trt_ptq.data.sources import NpzFolder, open_arrays, read_arrays, read_polygraphy
from trt_ptq.data.user_function import load_function
from trt_ptq.errors import DataError, UsageError
from trt_ptq.types import BatchSource, TensorSpec

Preprocess = Callable[[Any], Any]
TEXT_SUFFIXES = {".txt", ".jsonl", ".parquet"}
DATA_SUFFIXES = {".npz", *IMAGE_SUFFIXES}  # of the files that are read from folders


def open_data(
    data: Any,
    inputs: tuple[TensorSpec, ...],
    *,
    batch_size: int = 8,
    preprocess: str | Preprocess | None = None,
) -> BatchSource:
    """Open calibration or test data.

    Args:
        data: one of
            - a folder of .npz files (each a batch; keys are input names), or of images (with `preprocess`); both may
              be in one subfolder for each class;
            - a .npz or .npy file, an array, or a dict of arrays by input name (the first axis is the sample);
            - a JSON file of Polygraphy's `--save-inputs`;
            - "file.py:function" or a function, which is called anew for each pass: it yields batches, or returns them,
              an array, a dict of arrays, a torch DataLoader or a Hugging Face dataset;
            - a list or other iterable of batches; a generator, which is read into memory at once;
            - a torch DataLoader, or a Hugging Face dataset, whose columns are inputs;
            - a `BatchSource`.
            A batch is a dict of arrays by input name, a tuple of arrays in the order of the inputs, or an array for a
            model with one input. Arrays are numpy arrays, or torch tensors on any device, of the input's dtype.
        inputs: the inputs of the model.
        batch_size: samples in a batch, for data that is not in batches yet.
        preprocess: a function, or "file.py:function", from a PIL image to the array of one sample (without the batch
            axis).

    Returns:
        A source that yields the same batches in every pass. They are not checked against the model yet.

    Raises:
        DataError: no such data, or not in one of these forms.
        UsageError: a function cannot be loaded, an argument is missing or has no meaning for this data.
        MissingPackageError: images need Pillow.
    """
    if batch_size < 1:
        raise UsageError(f"`batch_size` must be 1 or more, not {batch_size}")
    if isinstance(data, (str, os.PathLike)):
        return _open_path(os.fspath(data), inputs, batch_size, preprocess)
    if preprocess is not None:
        raise UsageError(f"`preprocess` is for a folder of images, not for {type(data).__name__} objects")
    return adapt(data, inputs, batch_size)


def _open_path(
    name: str, inputs: tuple[TensorSpec, ...], batch_size: int, preprocess: str | Preprocess | None
) -> BatchSource:
    path = Path(name)
    if preprocess is not None and not path.is_dir():
        raise UsageError(f"`preprocess` is for a folder of images, which {name} is not")
    if ".py:" in name:
        return FunctionSource(name, load_function(name), FeedsReader(inputs), batch_size)
    if path.is_dir():
        return _open_folder(path, inputs, batch_size, preprocess)
    if not path.exists() and any(character in path.name for character in "*?["):
        raise DataError(f"{path}: patterns are not expanded: give the folder, {path.parent}")
    if not path.is_file():
        raise DataError(f"{path}: no such data file or folder")
    if path.suffix == ".json":
        return read_polygraphy(path)
    if path.suffix in (".npz", ".npy"):
        return open_arrays(str(path), read_arrays(path), inputs, batch_size)
    if path.suffix in TEXT_SUFFIXES:
        raise DataError(
            f"{path}: text is only for language models, in quantize and calibrate with `task=text-generation`"
        )
    raise DataError(f"{path}: unknown form of data: give .npz, .npy, .json, a folder, or file.py:function")


def _open_folder(
    path: Path, inputs: tuple[TensorSpec, ...], batch_size: int, preprocess: str | Preprocess | None
) -> BatchSource:
    arrays, images = find_files(path, {".npz"}), find_files(path, IMAGE_SUFFIXES)
    if arrays and images:
        direct = [files[0].parent == path for files in (arrays, images)]
        if direct[0] == direct[1]:
            raise DataError(f"{path}: has both .npz files and images: keep one kind in a folder")
        arrays, images = (arrays, ()) if direct[0] else ((), images)  # subfolders are only read if there is no other
    if arrays and preprocess is not None:
        raise UsageError(f"`preprocess` is for images: {path} has .npz files")
    if arrays:
        return NpzFolder(arrays)
    if not images and find_files(path, {".npy"}):
        raise DataError(
            f"{path}: has .npy files, which name no inputs: save each batch as .npz (numpy.savez, with the names "
            "of the inputs as keys), or all samples in one .npy file, and give that"
        )
    if not images:
        raise DataError(f"{path}: has no .npz files and no images, nor have its subfolders")
    if preprocess is None:
        raise UsageError(
            f"{path}: images need `preprocess`, a function (or file.py:function) from a PIL image to the array of one "
            "sample"
        )
    if len(inputs) != 1:
        raise DataError(f"{path}: images feed one input, the model has {len(inputs)}: use .npz files")
    require("PIL.Image", extra="images")
    function = load_function(preprocess) if isinstance(preprocess, str) else preprocess
    return ImageFolder(path, images, inputs[0], function, batch_size)
