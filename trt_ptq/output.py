"""The output directory: the results of a single run of `quantize`."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trt_ptq._internal.files import atomic_replace, check_writable, require_regular_file
from trt_ptq.data.images import find_files
from trt_ptq.data.open import DATA_SUFFIXES
from trt_ptq.engines.spec import Precision
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.save import weights_beside
from trt_ptq.provenance import ModelIdentity
from trt_ptq.recipe import Recipe, load_recipe

_logger = logging.getLogger(__name__)

STATISTICS = "stats.safetensors"
RECIPE = "recipe.yaml"
TABLES = ("calibration.cache", "calibration.json")
CACHE_SCALES = "kv_cache.json"
INT8_MODEL, FP16_MODEL = "model.int8.onnx", "model.fp16.onnx"
FLOAT_MODEL = "model.fp32.onnx"  # the float model, where it was given as an object
TRANSFORMED = "model.transformed.onnx"  # the float model, where techniques have changed it
ENGINES: dict[Precision, str] = {"int8": "model.int8.engine", "fp16": "model.fp16.engine"}
REPORT, REPORT_PAGE = "report.json", "report.html"
TRIALS = "trials.jsonl"  # what tuning measured; outlives the run, so that the same one need not measure it again
_ONNX = (INT8_MODEL, FP16_MODEL, TRANSFORMED)
_DERIVED = (
    *(REPORT, REPORT_PAGE),  # removed first: a report never stands beside results of another run
    *TABLES,
    CACHE_SCALES,
    *_ONNX,
    *ENGINES.values(),
    *(f"{name}{suffix}" for name in ENGINES.values() for suffix in (".json", ".plan.json")),
)


def check_folder(out: Path, model: Path, weights: Collection[Path] = ()) -> None:
    """Make sure, before any work, that results can be written to `out` and replace neither `model` nor its `weights`.

    Raises:
        OutputError: `out` or a file in it cannot be written, with the reason.
        UsageError: the model or its weights have the name of a result.
    """
    check_writable(out, is_folder=True)
    for file in (out / STATISTICS, out / RECIPE, out / TRIALS, *_derived(out)):
        require_regular_file(file)
    derived = {file.resolve() for file in _derived(out)}
    for file in (model, *weights):
        if file.resolve() in derived:
            raise UsageError(f"{file}: a result of that name would replace the model: choose another `output_dir`")


def warn_of_removal(out: Path, model: ModelIdentity) -> None:
    """Warn, before the last run is removed, if it was of another model than `model`, or if it built engines."""
    present = [file.name for file in _derived(out) if file.exists()]
    engines = [name for name in present if name in ENGINES.values()]
    try:
        another = load_recipe(out / RECIPE).model != model
    except UsageError:  # there is none, or it cannot be read
        another = False
    if present and another:
        _logger.warning("%s: the results of another model are removed: %s", out, ", ".join(present))
    elif engines:
        _logger.warning("%s: the engines of an earlier run are removed: %s", out, ", ".join(engines))


def check_outside(out: Path, data: Any, parameter: str) -> None:
    """Make sure that `out` holds no file of the folder `data`. Data are read from subfolders, too, but not results.

    Raises:
        UsageError: it does.
    """
    if not isinstance(data, str | os.PathLike) or not Path(data).is_dir() or not out.is_dir():
        return
    if out.resolve().is_relative_to(Path(data).resolve()) and find_files(out, DATA_SUFFIXES):
        raise UsageError(f"`output_dir={out}` holds files of `{parameter}`, {data}: choose another folder")


@contextmanager
def no_empty_folder(out: Path) -> Iterator[None]:
    """Remove `out`, if the block fails and leaves a new folder with nothing in it; its new parents as well."""
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # one is not empty
            for folder in missing:
                folder.rmdir()
        raise


def remove_last_run(out: Path) -> None:
    """Remove what was derived from earlier statistics: it would not belong to the new ones."""
    for file in _derived(out):
        file.unlink(missing_ok=True)


def save_float_model(model: Path, weights: Collection[Path], out: Path) -> None:
    """Copy the temporary file of a float model that was given as an object to `out`, with its weights.

    Raises:
        OutputError: a file cannot be written.
    """
    for file in weights_beside(out / FLOAT_MODEL):
        file.unlink()
    for file in (*weights, model):
        with atomic_replace(out / file.name) as temporary:
            shutil.copyfile(file, temporary)


def remove_other_recipe(out: Path, asked: Recipe) -> None:
    """Remove the recipe of an earlier run, unless it is `asked` for again: it must survive an interrupted run."""
    file = out / RECIPE
    try:
        same = load_recipe(file) == asked
    except UsageError:  # there is none, or it cannot be read
        same = False
    if not same:
        file.unlink(missing_ok=True)


def _derived(out: Path) -> list[Path]:
    return [out / name for name in _DERIVED] + [file for name in _ONNX for file in weights_beside(out / name)]
