"""modelopt's ONNX `quantize` on request, in a process of its own: run by the Python of `.venv-peers`.

    python -m benchmarks.speed.modelopt_server MODEL

Tells its versions, then answers each line `METHOD SAMPLES BATCH` of standard input with a line of JSON: the seconds
of the call alone, how many DequantizeLinear nodes its result has, and the largest memory that the process has had so
far. Imports nothing of trt_ptq, which that Python lacks.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.models import images
from benchmarks.speed.peak import peak_bytes


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the libraries print to standard output
    from modelopt.onnx.quantization import quantize

    names = ("nvidia-modelopt", "onnxruntime-gpu", "torch", "onnx", "numpy")
    print(json.dumps({name: version(name) for name in names}), file=answers, flush=True)
    for line in sys.stdin:
        method, samples, batch = line.split()
        answer = _answer(quantize, sys.argv[1], method, int(samples), int(batch))
        print(json.dumps(answer), file=answers, flush=True)


def _answer(quantize: Any, model: str, method: str, samples: int, batch: int) -> dict[str, float]:
    import onnx

    (given,) = onnx.load(model).graph.input
    shape = [axis.dim_value for axis in given.type.tensor_type.shape.dim[1:]]
    data = np.concatenate([images(batch, seed, shape)["x"] for seed in range(samples // batch)])
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "int8.onnx"
        start = time.perf_counter()
        quantize(
            model,
            quantize_mode="int8",
            calibration_method=method,
            calibration_data=data,
            calibration_shapes="x:" + "x".join(map(str, [batch, *shape])),
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",  # ours leaves the rest in FP32 too
            output_path=str(result),
            log_level="ERROR",
        )
        seconds = time.perf_counter() - start
        inserted = sum(node.op_type == "DequantizeLinear" for node in onnx.load(result).graph.node)
    return {"seconds": seconds, "dequantize_nodes": inserted, "peak_bytes": peak_bytes()}


if __name__ == "__main__":
    main()
