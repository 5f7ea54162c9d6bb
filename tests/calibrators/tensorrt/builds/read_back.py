"""For scripts on the stand-in libnvinfer: a build whose batches it copies back from the device pointers that it gets.

python -m tests.calibrators.tensorrt.builds.read_back BUFFERS CACHE

BUFFERS is a class of trt_ptq.calibrators, or "default".
"""

from __future__ import annotations

import json
import sys
from typing import Any

import trt_ptq.calibrators
from tests.calibrators.tensorrt.builds.building import Build, batches, build_with

NUM_BATCHES = 40  # both slots of the double buffer, many times


def read_back(buffers: str, cache: str) -> dict[str, Any]:
    """Calibrate with the MinMax calibrator; its table has the maxima that the stand-in found in what it copied."""
    build = Build()
    options = {} if buffers == "default" else {"open_buffers": getattr(trt_ptq.calibrators, buffers)}
    calibrator = trt_ptq.calibrators.MinMaxCalibrator(batches(NUM_BATCHES), cache, **options, **build.known)
    return build_with(calibrator, build)


if __name__ == "__main__":
    print(json.dumps(read_back(sys.argv[1], sys.argv[2])))
