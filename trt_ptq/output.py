"""The folder that holds the results of one run of `trt-ptq quantize`, and of one only."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from trt_ptq._internal.files import check_writable, require_regular_file
from trt_ptq.errors import UsageError
from trt_ptq.onnx_io.save import weights_beside
from trt_ptq.recipe import Recipe, load_recipe

STATISTICS = "stats.safetensors"
RECIPE = "recipe.yaml"
TRANSFORMED = "model.transformed.onnx"  # the float model as repairs have changed it, if they have
_ONNX = ("model.int8.onnx", "model.fp16.onnx", TRANSFORMED)
_ENGINES = ("model.int8.engine", "model.fp16.engine")
_DERIVED = (
    *("calibration.cache", "calibration.json", "report.json", "report.html"),
    *_ONNX,
    *_ENGINES,
    *(f"{name}.json" for name in _ENGINES),
)


def check_folder(out: Path, model: Path, weights: Collection[Path] = ()) -> None:
    """Find out before the work that results cannot be written to `out`, or would replace the `model` or its `weights`.

    Raises:
        OutputError: with the reason.
        UsageError: the model or its weights lie where a result goes.
    """
    check_writable(out, is_folder=True)
    for file in (out / STATISTICS, out / RECIPE, *_derived(out)):
        require_regular_file(file)
    derived = {file.resolve() for file in _derived(out)}
    for file in (model, *weights):
        if file.resolve() in derived:
            raise UsageError(f"{file}: a result of that name would replace the model: give another --out")


def remove_last_run(out: Path) -> None:
    """Remove what was derived from earlier statistics: it must not stand beside results of other ones."""
    for file in _derived(out):
        file.unlink(missing_ok=True)


def remove_other_recipe(out: Path, asked: Recipe) -> None:
    """Remove the recipe of an earlier run; the one that is `asked` for again stays, should this run be interrupted."""
    file = out / RECIPE
    try:
        same = load_recipe(file) == asked
    except UsageError:  # none, or none that could be done again
        same = False
    if not same:
        file.unlink(missing_ok=True)


def _derived(out: Path) -> list[Path]:
    return [out / name for name in _DERIVED] + [file for name in _ONNX for file in weights_beside(out / name)]
