"""The folder that holds the results of one run of `trt-ptq quantize`, and of one only."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from trt_ptq.calibrators.errors import UsageError
from trt_ptq.calibrators.files import check_writable
from trt_ptq.graph.save import weights_beside

PREPARED = "model.prepared.onnx"  # the float model as repairs have changed it, if they have
_ONNX = ("model.int8.onnx", "model.fp16.onnx", PREPARED)
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
    derived = {file.resolve() for file in _derived(out)}
    for file in (model, *weights):
        if file.resolve() in derived:
            raise UsageError(f"{file}: a result of that name would replace the model: give another --out")


def remove_last_run(out: Path) -> None:
    """Remove what was derived from earlier statistics: it must not stand beside results of other ones."""
    for file in _derived(out):
        file.unlink(missing_ok=True)


def _derived(out: Path) -> list[Path]:
    return [out / name for name in _DERIVED] + [file for name in _ONNX for file in weights_beside(out / name)]
