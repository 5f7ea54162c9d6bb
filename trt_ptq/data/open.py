"""From what a user writes after --data to a batch source."""

from __future__ import annotations

from pathlib import Path

from trt_ptq._internal.optional_packages import require
from trt_ptq.data.sources import ArrayFile, ImageFolder, Loader, NpzFolder, read_arrays, read_polygraphy
from trt_ptq.data.user_function import load_function
from trt_ptq.errors import DataError, UsageError
from trt_ptq.types import BatchSource, TensorSpec

_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}


def open_source(
    spec: str, inputs: tuple[TensorSpec, ...], batch_size: int = 8, preprocess: str | None = None
) -> BatchSource:
    """The source that `spec` names.

    A folder of .npz files (one batch each), one .npz or .npy (first axis is the sample), a folder of images with
    `preprocess` ("file.py:function", from a PIL image to the array of one sample), "file.py:function" that yields
    feed dicts, or Polygraphy's JSON. `batch_size` is used where the data does not say.

    Raises:
        DataError: nothing there, or not in one of these forms.
        UsageError: a user's function cannot be loaded, or an option is missing.
    """
    if batch_size < 1:
        raise UsageError(f"--batch-size must be 1 or more, not {batch_size}")
    path = Path(spec)
    if preprocess is not None and not path.is_dir():
        raise UsageError(f"--preprocess is for a folder of images, which {spec} is not")
    if ".py:" in spec:
        return Loader(spec, load_function(spec))
    if path.is_dir():
        return _open_folder(path, inputs, batch_size, preprocess)
    if not path.is_file():
        raise DataError(f"{path}: no such data file or folder")
    if path.suffix == ".json":
        return read_polygraphy(path)
    if path.suffix in (".npz", ".npy"):
        return _open_arrays(path, inputs, batch_size)
    raise DataError(f"{path}: unknown form of data: give .npz, .npy, .json, a folder, or file.py:function")


def _open_folder(path: Path, inputs: tuple[TensorSpec, ...], batch_size: int, preprocess: str | None) -> BatchSource:
    files = sorted(path.iterdir())
    arrays = tuple(file for file in files if file.suffix == ".npz")
    images = tuple(file for file in files if file.suffix.lower() in _IMAGES)
    if arrays and images:
        raise DataError(f"{path}: has both .npz files and images: keep one kind in a folder")
    if arrays and preprocess is not None:
        raise UsageError(f"--preprocess is for images: {path} has .npz files")
    if arrays:
        return NpzFolder(arrays)
    if not images:
        raise DataError(f"{path}: has no .npz files and no images")
    if preprocess is None:
        raise UsageError(f"{path}: images need --preprocess file.py:function (from a PIL image to an input array)")
    if len(inputs) != 1:
        raise DataError(f"{path}: images feed one input, the model has {len(inputs)}: use .npz files")
    require("PIL.Image", extra="images")
    return ImageFolder(images, inputs[0].name, load_function(preprocess), batch_size)


def _open_arrays(path: Path, inputs: tuple[TensorSpec, ...], batch_size: int) -> ArrayFile:
    arrays = read_arrays(path)
    if "" in arrays:
        if len(inputs) != 1:
            named = ", ".join(one.name for one in inputs)
            raise DataError(f"{path}: a .npy feeds one input, the model has {len(inputs)} ({named}): use .npz")
        arrays = {inputs[0].name: arrays[""]}
    lengths = {name: array.shape[:1] for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or () in lengths.values():
        told = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(f"{path}: the arrays differ in their number of samples (first axis): {told}")
    if not next(iter(arrays.values())).shape[0]:
        raise DataError(f"{path}: has no samples")
    return ArrayFile(path, arrays, batch_size)
