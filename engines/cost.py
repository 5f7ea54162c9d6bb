"""Estimates the time of an engine by a roofline: no kernel is faster than the memory and the arithmetic of its GPU.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model", CACM 2009. It is an estimate, for
machines without the GPU: `LEFT_OUT` names what it leaves out.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trt_ptq.engines.plans.engine_plan import RTX, EnginePlan
from trt_ptq.engines.plans.kernel import Kernel
from trt_ptq.errors import EngineError, UsageError

Bound = Literal["memory", "compute", "launch"]

# NVIDIA, TensorRT for RTX support matrix.
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
LEFT_OUT = (
    "caches (L2 may hold small tensors)",
    "how close each kernel comes to the peak rates",
    "kernels that run side by side",
    "arithmetic other than matrix products and convolutions",
    "clocks under load",
    "copies from and to the host",
)
_TABLE = Path(__file__).with_name("gpus.yaml")


class Gpu(BaseModel):
    """Peak rates of a GPU, from its data sheet: dense, and as the tensor cores do them.

    An operation is a multiplication or an addition: a multiply-accumulate is two. `launch_us` is the time between two
    kernels in microseconds, the least that one takes; data sheets do not have it. `device` is what CUDA calls the GPU,
    empty if others have the same name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    compute_capability: str
    bandwidth_gb_s: float = Field(gt=0)
    fp16_tflops: float = Field(gt=0)
    int8_tops: float = Field(gt=0)
    fp32_tflops: float = Field(gt=0)
    launch_us: float = Field(default=2.0, ge=0)
    source: str
    device: str = ""

    @property
    def rtx(self) -> bool:
        """Whether TensorRT-RTX runs on it."""
        return self.compute_capability in RTX_CAPABILITIES

    def operations_per_second(self, precision: str | None) -> float:
        """Peak rate of matrix products in a type; that of FP32 for types without tensor cores."""
        if precision in ("int8", "float8", "int4"):
            return self.int8_tops * 1e12
        return (self.fp16_tflops if precision in ("float16", "bfloat16") else self.fp32_tflops) * 1e12


DEFAULT_GPU = "rtx4090"
GPUS: dict[str, Gpu] = {
    name: Gpu(name=name, **figures) for name, figures in yaml.safe_load(_TABLE.read_text(encoding="utf-8")).items()
}
"""The table of data sheets, by name."""


@dataclass(frozen=True)
class KernelCost:
    """Estimated seconds of one kernel, and what bounds it."""

    kernel: Kernel
    seconds: float
    bound: Bound


@dataclass(frozen=True)
class Cost:
    """Estimated time of an engine on `gpu`: kernels in execution order, those that do nothing left out."""

    gpu: Gpu
    kernels: tuple[KernelCost, ...]

    @property
    def seconds(self) -> float:
        """Estimated seconds of one run: the sum over its kernels."""
        return sum(cost.seconds for cost in self.kernels)

    def with_seconds(self, seconds: Mapping[str, float]) -> Cost:
        """The same with other seconds, such as measured ones, for the kernels that these name."""
        kernels = (replace(cost, seconds=seconds.get(cost.kernel.name, cost.seconds)) for cost in self.kernels)
        return Cost(self.gpu, tuple(kernels))

    def bounds(self) -> dict[Bound, int]:
        """Number of kernels by what bounds them."""
        return dict(Counter(cost.bound for cost in self.kernels))


def estimate(plan: EnginePlan, gpu: Gpu) -> Cost:
    """Estimate the time of an engine: for each kernel, a launch and the longer of memory traffic and arithmetic.

    Raises:
        EngineError: the sizes of the plan's tensors are not known.
        UsageError: `gpu` is one that the plan's TensorRT-RTX does not run on.
    """
    if plan.dynamic:
        raise EngineError("a plan with dynamic shapes has no estimate: give the model and a shape for each input")
    if not has_estimate(plan, gpu):
        usable = ", ".join(sorted(name for name, known in GPUS.items() if known.rtx))
        raise UsageError(
            f"`gpu`: TensorRT-RTX does not run on {gpu.name} (compute capability {gpu.compute_capability}), and its "
            f"plans say nothing about TensorRT's: choose one of {usable}"
        )
    return Cost(gpu, tuple(estimate_kernel(kernel, gpu) for kernel in plan.kernels if kernel.works))


def has_estimate(plan: EnginePlan, gpu: Gpu) -> bool:
    """Whether a plan says anything about a GPU: TensorRT-RTX, which may have made it, does not run on all."""
    return plan.source != RTX or gpu.rtx


def find_gpu(device: str) -> Gpu | None:
    """The GPU of the table that CUDA calls `device`, such as "NVIDIA GeForce RTX 4090"; None if it has none.

    Cards with a longer name ("... Ti", "... Laptop GPU", "A100-SXM4-40GB") have other figures.
    """
    return next((gpu for gpu in GPUS.values() if gpu.device and gpu.device == device), None)


def load_gpu(name: str | os.PathLike[str]) -> Gpu:
    """A GPU of the table by its name, or one whose figures a YAML file gives.

    Args:
        name: such as "rtx4090"; or the path of a file with the fields of `Gpu` (`name` may be left out).

    Raises:
        UsageError: there is no such GPU, or the file has other fields.
    """
    key = os.fspath(name)
    if key.lower() in GPUS:
        return GPUS[key.lower()]
    path = Path(key)
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(
            f"`gpu`: {key!r} is not in the table ({', '.join(sorted(GPUS))}): name one of these, or a YAML file with "
            "the figures of its data sheet"
        )
    return _read(path)


def _read(path: Path) -> Gpu:
    try:
        figures: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Gpu.model_validate({"name": path.stem, "source": str(path), **figures})
    except OSError as error:
        raise UsageError(f"`gpu`: cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"`gpu`: {path}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from error
    except (yaml.YAMLError, TypeError, UnicodeDecodeError) as error:
        raise UsageError(f"`gpu`: {path} is not a YAML file with the figures of a GPU") from error


def estimate_kernel(kernel: Kernel, gpu: Gpu) -> KernelCost:
    """Estimate the time of one kernel; see `estimate`."""
    memory = kernel.bytes_moved / (gpu.bandwidth_gb_s * 1e9)
    compute = 2 * (kernel.macs or 0) / gpu.operations_per_second(kernel.precision)
    launch = gpu.launch_us * 1e-6
    times: dict[Bound, float] = {"memory": memory, "compute": compute, "launch": launch}
    return KernelCost(kernel, max(memory, compute) + launch, max(times, key=times.__getitem__))
