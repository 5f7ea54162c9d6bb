"""modelopt's ONNX `quantize`, run by the Python of `.venv-peers`: imports nothing of trt_ptq, which that Python lacks.

    python modelopt_once.py MODEL FOLDER METHOD RESULT

FOLDER has the calibration batches, `0.npz`, `1.npz`, … Leaves the model RESULT and, beside it, RESULT.seconds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


class Reader:
    """Batches in the form that ONNX Runtime's calibrators, which modelopt uses, ask for; can be read again."""

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.glob("*.npz"), key=lambda path: int(path.stem))
        self.rewind()

    def rewind(self) -> None:
        self._left = iter(self._paths)

    def get_next(self) -> dict[str, Any] | None:
        path = next(self._left, None)
        if path is None:
            return None
        with np.load(path) as file:
            return dict(file)

    def get_first(self) -> dict[str, Any] | None:
        self.rewind()
        first = self.get_next()
        self.rewind()
        return first


def main(model: str, folder: str, method: str, result: str) -> None:
    from modelopt.onnx.quantization import quantize

    start = time.perf_counter()
    quantize(
        model,
        quantize_mode="int8",
        calibration_method=method,
        calibration_data_reader=Reader(Path(folder)),
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",  # that of the other rows
        output_path=result,
        log_level="ERROR",
    )
    Path(f"{result}.seconds").write_text(str(time.perf_counter() - start))


if __name__ == "__main__":
    main(*sys.argv[1:])
