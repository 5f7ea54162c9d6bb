"""What `quantize` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trt_ptq.calibration.calibration_pass import Nonfinite
from trt_ptq.calibration.devices import Device, HostDevice
from trt_ptq.calibrators.methods import RangeMethod
from trt_ptq.evaluation.metrics import Evaluate
from trt_ptq.evaluation.verdict import EXCELLENT_BELOW
from trt_ptq.fp16.convert import HighPrecision
from trt_ptq.onnx_io.load import Model
from trt_ptq.recipe import Recipe, Technique
from trt_ptq.types import BatchSource, ProgressCallback, ShapeProfile, Tell, no_progress, untold


@dataclass(frozen=True)
class QuantizeJob:
    """What to quantize, with what, and how to judge it.

    `test` is compared on; without it, one batch in five of `source` is held out for that. `data_name` is what the
    report calls the data. `evaluate(run)` returns metrics, `eval_name` names it in messages; without it, fidelity is
    judged. With `alternatives`, the range method of all these with the smallest output error is used for the whole
    model instead of `method`. `attention` puts attention's MatMuls into INT8 too. `profiles` are taken from
    the data when empty. With `until_stable`, calibration ends when no range has moved by more (0.01: 1 %) since half as
    many samples. `high_precision` is that of what is not INT8.

    `techniques` are always applied, and nodes in `nodes_to_exclude` stay in float. Where the loss is above `max_drop`,
    the other repairs are tried with `repair`, and layers to leave in float are searched for with `search`.
    """

    model: Model
    source: BatchSource
    data_name: str
    method: RangeMethod
    out: Path
    test: BatchSource | None = None
    alternatives: tuple[RangeMethod, ...] = ()
    tensors: tuple[str, ...] = ("fused",)
    attention: bool = False
    nonfinite: Nonfinite = "refuse"
    device: Device = field(default_factory=HostDevice)
    memory_limit: int | None = None  # bytes
    until_stable: float | None = None
    profiles: dict[str, ShapeProfile] = field(default_factory=dict)
    backend: str = "auto"
    high_precision: HighPrecision = "fp16"
    evaluate: Evaluate | None = None
    eval_name: str = ""
    max_drop: float = EXCELLENT_BELOW
    techniques: tuple[Technique, ...] = ()
    nodes_to_exclude: tuple[str, ...] = ()
    repair: bool = True
    search: bool = True
    progress: ProgressCallback = no_progress
    tell: Tell = untold

    @property
    def recipe(self) -> Recipe:
        """What the job asks for, before anything is found out."""
        return Recipe(
            model=self.model.identity,
            method=self.method.name,
            techniques=self.techniques,
            attention=self.attention,
            nodes_to_exclude=self.nodes_to_exclude,
            high_precision=self.high_precision,
        )
