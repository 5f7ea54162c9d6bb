"""Measured times of the kernels of an engine, and how well the estimate of its plan meets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trt_ptq.engines.cost import Cost
from trt_ptq.engines.running.runtime import EngineSession


@dataclass(frozen=True)
class MeasuredKernels:
    """Measured seconds of kernels, by name, on the GPU `gpu`."""

    gpu: str
    seconds: Mapping[str, float]

    def judge(self, cost: Cost) -> JudgedEstimate:
        """Compare an estimate with the measured times of the same kernels."""
        estimated = {found.kernel.name: found.seconds for found in cost.kernels}
        known = [name for name in self.seconds if name in estimated]
        return JudgedEstimate(
            measured=sum(self.seconds[name] for name in known),
            estimated=sum(estimated[name] for name in known),
            unknown=tuple(name for name in self.seconds if name not in estimated),
            unmeasured=tuple(name for name in estimated if name not in self.seconds),
        )


@dataclass(frozen=True)
class JudgedEstimate:
    """An estimate beside measured times: seconds of all kernels that have both.

    `unknown` names the measured kernels that are not in the plan, `unmeasured` those of the plan that have no time.
    """

    measured: float
    estimated: float
    unknown: tuple[str, ...]
    unmeasured: tuple[str, ...]


def measure_kernels(path: Path) -> MeasuredKernels:
    """Time the kernels of an engine on the GPU here, with random inputs of the shapes that it is optimized for.

    Raises:
        EngineError, MissingPackageError: see `load_engine`; or the engine fails.
    """
    with EngineSession(path) as session:
        return MeasuredKernels(session.gpu, session.kernel_times(session.example_feeds({})))
