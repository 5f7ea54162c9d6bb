"""Collecting against plain inference of the same batches.

Counted is what further batches cost, after a first one that pays for cold caches on both sides. Plain inference runs
a session as trt_ptq makes it, with the model's own outputs. Collecting is `collect` over all batches less `collect`
over the first alone, which takes off the making of its session, whatever the collector does in which order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import onnx

from benchmarks.speed import models
from benchmarks.speed.models import Feeds
from benchmarks.speed.row import Row
from benchmarks.speed.turns import ROUNDS, Seconds, in_turn, timed
from trt_ptq.collect.collector import collect
from trt_ptq.collect.session import create_session
from trt_ptq.data.sources import Loader
from trt_ptq.graph.model import Model, load_model
from trt_ptq.graph.taps import choose_taps

OPERATORS = ("Conv", "Gemm", "MatMul", "Add")
_BATCH = 8


Tensors = Callable[[Model], Sequence[str]]


def resnet50_fused() -> Row:
    batches = _batches(models.images, 8)
    return against_inference("ResNet-50, fused tensors", 1.25, models.resnet50(), fused, batches)


def resnet50_operators() -> Row:
    batches = _batches(models.images, 8)
    what = "ResNet-50, inputs and outputs of Conv, Gemm, MatMul, Add"
    return against_inference(what, 1.5, models.resnet50(), operator_tensors, batches)


def bert_fused() -> Row:
    batches = _batches(models.texts, 8)
    return against_inference("BERT-base, sequence 128, fused tensors", 1.2, models.bert(), fused, batches)


def mobilenet_v2_fused() -> Row:
    batches = _batches(models.images, 32)
    return against_inference("MobileNetV2, fused tensors", 2.0, models.mobilenet_v2(), fused, batches)


def against_inference(
    what: str, reach: float, path: Path, tensors: Tensors, batches: Sequence[Feeds], rounds: int = ROUNDS
) -> Row:
    """The ratio of collecting `tensors` to plain inference; `batches` beyond the first are counted."""
    model = load_model(path)
    taps = choose_taps(model, tensors(model))
    session = create_session(model.proto, path.parent, str(path))

    def infer(part: Sequence[Feeds]) -> None:
        for feeds in part:
            session.run(None, feeds)

    def measure(part: Sequence[Feeds]) -> None:
        collect(model, in_memory(part), taps)

    seconds = in_turn(
        {
            "inference": timed(partial(infer, batches[1:]), prepare=partial(infer, batches[:1])),
            "collect_first": timed(partial(measure, batches[:1])),
            "collect": timed(partial(measure, batches)),
        },
        rounds,
    )
    ratios = [whole / plain for whole, plain in zip(beyond_first(seconds), seconds["inference"], strict=True)]
    ratio = median(ratios)
    counted = sum(len(next(iter(feeds.values()))) for feeds in batches[1:])
    return Row(
        what=f"{what} ({len(taps.tensors)}): collecting / inference",
        reach=f"<= {reach:g}",
        measured=f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        met=ratio <= reach,
        figures={"ratio": ratio, "samples": counted, "tensors": len(taps.tensors), "seconds": seconds},
    )


def beyond_first(seconds: Seconds) -> list[float]:
    """Seconds of `collect` without the session and the first batch, whose median is taken: it is the same each time."""
    first = median(seconds["collect_first"])
    return [whole - first for whole in seconds["collect"]]


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


def in_memory(batches: Iterable[Feeds]) -> Loader:
    """A source of batches that lie ready."""
    return Loader("in memory", lambda: batches)


def _batches(make: Callable[[int, int], Feeds], counted: int) -> list[Feeds]:
    """`counted` batches and one before them, all different."""
    return [make(_BATCH, seed) for seed in range(counted + 1)]
