"""Collecting against plain inference of the same batches.

Counted is what further batches cost. Plain inference runs ONNX Runtime as it is by default, after
batches that do not count. For collecting the clock starts as `collect_statistics` asks for its second batch and
stops as it returns; what a run over two batches takes by that clock is taken off. So neither making the session nor the
first batches count, and what a collector that reads ahead has read before the clock started is in both runs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import onnx
import onnxruntime as ort

from benchmarks.models import smollm2_135m
from benchmarks.speed import models
from benchmarks.speed.models import Feeds
from benchmarks.speed.speed_row import Row
from benchmarks.speed.turns import ROUNDS, Job, Seconds, in_turn, timed
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.data.open import open_data
from trt_ptq.language_models.batches import DecoderBatches
from trt_ptq.language_models.decoder import decoder_layout
from trt_ptq.language_models.text.samples import TokenSample
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.types import BatchSource

OPERATORS = ("Conv", "Gemm", "MatMul", "Add")
_BATCH = 8
_UNCOUNTED = 2
_TEXTS = 32


Tensors = Callable[[Model], Sequence[str]]


def resnet50_fused() -> Row:
    batches = _batches(models.images, 8)
    return against_inference("ResNet-50, fused tensors", 1.25, models.resnet50(), fused, batches)


def resnet50_operators() -> Row:
    batches = _batches(models.images, 8)
    what = "ResNet-50, inputs and outputs of Conv, Gemm, MatMul, Add"
    return against_inference(what, 1.5, models.resnet50(), operator_tensors, batches)


def bert_fused() -> Row:
    batches = _batches(models.texts, 6)
    return against_inference("BERT-base, sequence 128, fused tensors", 1.2, models.bert(), fused, batches)


def mobilenet_v2_fused() -> Row:
    batches = _batches(models.images, 32)
    return against_inference("MobileNetV2, fused tensors", 2.0, models.mobilenet_v2(), fused, batches)


def smollm2_text() -> Row:
    """Prefills of 256 tokens, and decode steps, as `quantize` makes them of text."""
    model = load_model(smollm2_135m.decoder())
    samples = [TokenSample(feeds["input_ids"][0], "tales") for feeds in smollm2_135m.calibration(samples=_TEXTS)]
    with tempfile.TemporaryDirectory() as folder:
        made = DecoderBatches(model.path, decoder_layout(model), samples, Path(folder))
        batches = [dict(batch.feeds) for batch in made]
    return against_inference("SmolLM2-135M, texts of 256 tokens, fused tensors", 1.5, model.path, fused, batches)


def against_inference(
    what: str, target: float, path: Path, tensors: Tensors, batches: Sequence[Feeds], rounds: int = ROUNDS
) -> Row:
    """The ratio of collecting `tensors` to plain inference; `batches` beyond the first two are counted."""
    model = load_model(path)
    calibration_tensors = select_calibration_tensors(model, tensors(model))
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def infer(part: Sequence[Feeds]) -> None:
        for feeds in part:
            session.run(None, feeds)

    seconds = in_turn(
        {
            "inference": timed(partial(infer, batches[_UNCOUNTED:]), prepare=partial(infer, batches[:_UNCOUNTED])),
            "collect_two": _from_second_batch(
                partial(collect_statistics, model, calibration_tensors=calibration_tensors), batches[:_UNCOUNTED]
            ),
            "collect": _from_second_batch(
                partial(collect_statistics, model, calibration_tensors=calibration_tensors), batches
            ),
        },
        rounds,
    )
    ratios = [whole / plain for whole, plain in zip(beyond_two(seconds), seconds["inference"], strict=True)]
    ratio = median(ratios)
    counted = sum(len(next(iter(feeds.values()))) for feeds in batches[_UNCOUNTED:])
    return Row(
        what=f"{what} ({len(calibration_tensors.tensors)}): collecting / inference",
        target=f"<= {target:g}",
        measured=f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        met=ratio <= target,
        figures={"ratio": ratio, "samples": counted, "tensors": len(calibration_tensors.tensors), "seconds": seconds},
    )


def beyond_two(seconds: Seconds) -> list[float]:
    """Seconds of `collect_statistics` without those of its run over two batches, whose median is taken."""
    two = median(seconds["collect_two"])
    return [whole - two for whole in seconds["collect"]]


def _from_second_batch(measure: Callable[[BatchSource], object], part: Sequence[Feeds]) -> Job:
    """Seconds from the request for the second batch until `measure` returns."""
    started = 0.0

    def batches() -> Iterator[Feeds]:
        nonlocal started
        for index, feeds in enumerate(part):
            if index == 1:
                started = time.perf_counter()
            yield feeds

    def job() -> float:
        measure(open_data(batches, ()))
        return time.perf_counter() - started

    return job


def fused(_model: Model) -> Sequence[str]:
    """What a backend that fuses quantizes."""
    return ("fused",)


def operator_tensors(model: Model) -> list[str]:
    """Float inputs and outputs of Conv, Gemm, MatMul and Add: what ONNX Runtime's calibrators take for these."""
    graph = model.proto.graph
    floats = {
        value.name
        for value in [*graph.input, *graph.value_info, *graph.output]
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    } - {tensor.name for tensor in graph.initializer}
    used = [name for node in graph.node if node.op_type in OPERATORS for name in (*node.input, *node.output)]
    return [name for name in dict.fromkeys(used) if name in floats]


def in_memory(batches: Iterable[Feeds]) -> BatchSource:
    """A source of batches that lie ready."""
    return open_data(batches, ())


def _batches(make: Callable[[int, int], Feeds], counted: int) -> list[Feeds]:
    """`counted` batches and two before them, all different."""
    return [make(_BATCH, seed) for seed in range(counted + _UNCOUNTED)]
