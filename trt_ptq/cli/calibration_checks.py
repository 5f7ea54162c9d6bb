"""What `trt-ptq calibrate` checks and says, with text and with other data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trt_ptq._internal.files import check_writable
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.errors import UsageError


def check_outputs(out: Path, checkpoint: Path | None, inputs: Sequence[Path]) -> None:
    """Make sure that the statistics and the checkpoint can be written, and replace no input.

    Raises:
        UsageError, OutputError: one of them cannot, or both are one file.
    """
    check_writable(out, *inputs)
    if checkpoint is None:
        return
    if checkpoint.resolve() == out.resolve():
        raise UsageError(f"--checkpoint and --out are the same file, {out}: choose two paths")
    check_writable(checkpoint, *inputs)


def skipped_values(statistics: Statistics) -> list[str]:
    """A sentence for each tensor that had NaN or infinite values."""
    return [
        f"tensor {name!r}: {tensor.nonfinite} NaN or infinite values skipped"
        for name, tensor in statistics.tensors.items()
        if tensor.nonfinite
    ]
