"""The folder that holds the results of one run of `trt-ptq quantize`, and of one only."""

from __future__ import annotations

from pathlib import Path

from trt_ptq.calibrators.errors import UsageError
from trt_ptq.calibrators.files import check_writable

_ONNX = ("model.int8.onnx", "model.fp16.onnx")
_ENGINES = ("model.int8.engine", "model.fp16.engine")
_DERIVED = (
    *("calibration.cache", "calibration.json", "report.json", "report.html"),
    *_ONNX,
    *(f"{name}.data" for name in _ONNX),
    *_ENGINES,
    *(f"{name}.json" for name in _ENGINES),
)


def check_folder(out: Path, model: Path) -> None:
    """Find out before the work that results cannot be written to `out`, or would replace the `model`.

    Raises:
        OutputError: with the reason.
        UsageError: the model lies where a result goes.
    """
    check_writable(out, is_folder=True)
    if model.resolve() in [(out / name).resolve() for name in _DERIVED]:
        raise UsageError(f"{model}: a result of that name would replace the model: give another --out")


def remove_last_run(out: Path) -> None:
    """Remove what was derived from earlier statistics: it must not stand beside results of other ones."""
    for name in _DERIVED:
        (out / name).unlink(missing_ok=True)
