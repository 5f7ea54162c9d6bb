"""What calibration of SmolLM2-135M costs: time beside plain inference, and memory beside the weights."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.language_models import prepared
from benchmarks.results_file import Figures
from benchmarks.speed.peak import peak_bytes
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.evaluation.runners.onnx_runner import onnx_runner
from trt_ptq.language_models.batches import DecoderBatches
from trt_ptq.language_models.decoder import decoder_layout
from trt_ptq.language_models.text.samples import TokenSample

_TEXTS, _TOKENS = 16, 256
_ROUNDS = 3


def cost(_rows: Mapping[str, Figures]) -> Figures:
    """Core-seconds of a calibration and of plain inference of the same batches, and the peak of the first calibration.

    They take turns, as other work on the machine slows down both; the times are medians.
    """
    model = prepared.plain()
    texts = [TokenSample(ids, "") for ids in prepared.windows("calibration", _TEXTS, _TOKENS)]
    layout = decoder_layout(model)
    tensors = select_calibration_tensors(model)
    with tempfile.TemporaryDirectory() as folder:
        batches = DecoderBatches(model.path, layout, texts, Path(folder), batch_size=4)

        def calibrate() -> None:
            collect_statistics(model, batches, tensors)

        feeds = [batch.feeds for batch in batches]  # fills the caches of decode steps, with a session of its own
        calibrations, inferences = [_core_seconds(calibrate)], list[float]()
        peak = peak_bytes()
        with onnx_runner(model.path) as runner:

            def infer() -> None:
                for batch in feeds:
                    runner.infer(batch, "")

            for _ in range(_ROUNDS):
                inferences.append(_core_seconds(infer))
                calibrations.append(_core_seconds(calibrate))
    return {
        "tokens": _TEXTS * _TOKENS,
        "parameters": sum(math.prod(tensor.dims) for tensor in model.proto.graph.initializer),
        "model_bytes": model.path.stat().st_size,
        "peak_bytes": peak,
        "inference_core_s": statistics.median(inferences),
        "calibration_core_s": statistics.median(calibrations),
    }


def _core_seconds(function: Callable[[], None]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start
