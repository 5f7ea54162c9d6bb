"""Does INT8 pay? The INT8 engine against the FP16 one: size, bytes moved, kernels, and time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from trt_ptq.engines.cost import Cost, Gpu
from trt_ptq.engines.plans.plan_comparison import PlanComparison
from trt_ptq.engines.spec import Precision

_SHOWN = 3  # layers that are named
_TIED = 0.02  # speedups this close to 1 are no difference


class EngineFigures(BaseModel):
    """What is known of one engine; None where it is not.

    `constant_bytes` are weights, scales and other constants; the rest of the file is code.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_bytes: int
    milliseconds: float
    bytes_moved: int | None = None
    kernels: int | None = None
    constant_bytes: int | None = None


class SpeedComparison(BaseModel):
    """The INT8 engine against the FP16 engine.

    `basis` says whether times were measured on `gpu`, or estimated for it by the roofline of the kernels. `slow_layers`
    are those that INT8 makes slower, with the reason, the costliest first. `warnings` say by what else
    they differ.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    basis: Literal["measured", "estimated"]
    builder: str
    gpu: str
    int8: EngineFigures
    fp16: EngineFigures
    slow_layers: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def speedup(self) -> float:
        """Time of the FP16 engine over that of the INT8 engine: above 1, INT8 is faster."""
        return self.fp16.milliseconds / self.int8.milliseconds

    @property
    def sentence(self) -> str:
        """Whether INT8 pays, in one line."""
        verb = "runs" if self.basis == "measured" else "is estimated to run"
        text = f"INT8 {verb} at {self.speedup:.2f} x the speed of FP16 on {self.gpu}"
        if self.int8.bytes_moved is not None and self.fp16.bytes_moved:
            text += f", moving {self.int8.bytes_moved / self.fp16.bytes_moved:.2f} x the bytes with {self.builder}"
        return f"{text}: {self.judgement}"

    def judged(self, required: float | None) -> str:
        """Whether INT8 pays and, if a speedup is `required`, whether it is reached, in one line."""
        if required is None:
            return self.sentence
        return f"{self.sentence}; required {required:g} x: {'passed' if self.speedup >= required else 'FAILED'}"

    @property
    def judgement(self) -> str:
        """ "faster", "slower" or "no faster"."""
        if abs(self.speedup - 1) <= _TIED:
            return "no faster"
        return "faster" if self.speedup > 1 else "slower"

    @property
    def findings(self) -> tuple[str, ...]:
        """What is slower or larger than in FP16, and why, and what to make of the times, a sentence each."""
        found = list(self.warnings)
        if self.judgement != "faster" and self.slow_layers:
            more = len(self.slow_layers) - _SHOWN
            shown = "; ".join(self.slow_layers[:_SHOWN]) + (f"; and {more} more layers" if more > 0 else "")
            found.append(f"slower in INT8 than in FP16: {shown}")
        if self.int8.size_bytes > self.fp16.size_bytes:
            found.append(self._size_finding())
        return tuple(found)

    def _size_finding(self) -> str:
        sizes = f"{self.int8.size_bytes / 1e6:.2f} MB, FP16 {self.fp16.size_bytes / 1e6:.2f} MB"
        text = f"the INT8 engine is larger than the FP16 engine: {sizes}"
        if self.int8.constant_bytes is None or self.fp16.constant_bytes is None:
            return text
        parts = (f"INT8 {self.int8.constant_bytes / 1e6:.2f} MB", f"FP16 {self.fp16.constant_bytes / 1e6:.2f} MB")
        return f"{text}; of weights and other constants {', '.join(parts)}, the rest is kernel code"


def compare_estimates(plans: PlanComparison, sizes: Mapping[Precision, int], gpu: Gpu, builder: str) -> SpeedComparison:
    """Compare two engines by the estimates of their plans.

    Args:
        plans: the plan of the INT8 engine against that of the FP16 engine.
        sizes: bytes of the engine files, by precision.
        gpu: the GPU of the estimates.
        builder: what built the engines.
    """
    sides: dict[Precision, Cost] = {"int8": plans.cost, "fp16": plans.reference}
    figures = {
        name: EngineFigures(
            size_bytes=sizes[name],
            milliseconds=cost.seconds * 1e3,
            bytes_moved=sum(found.kernel.bytes_moved for found in cost.kernels),
            kernels=len(cost.kernels),
            constant_bytes=sum(
                {tensor.name: tensor.nbytes for found in cost.kernels for tensor in found.kernel.constants}.values()
            ),
        )
        for name, cost in sides.items()
    }
    slow = tuple(
        f"{', '.join(layer.nodes[:1]) or 'kernels of no layer'} (+{layer.lost_seconds * 1e6:.1f} us"
        + (f": {layer.reasons[0]})" if layer.reasons else ")")
        for layer in plans.slow_layers
        if layer.lost_seconds > 0
    )
    return SpeedComparison(
        basis="estimated",
        builder=builder,
        gpu=gpu.name,
        int8=figures["int8"],
        fp16=figures["fp16"],
        slow_layers=slow,
        warnings=plans.warnings,
    )
