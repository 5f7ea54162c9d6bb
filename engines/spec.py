"""What an engine is built from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import UsageError
from trt_ptq.provenance import ModelIdentity
from trt_ptq.types import ShapeProfile

Precision = Literal["fp32", "fp16", "int8"]
HardwareCompatibility = Literal["none", "ampere+", "same-compute-capability"]
HARDWARE_COMPATIBILITY: tuple[HardwareCompatibility, ...] = ("none", "ampere+", "same-compute-capability")
_SHAPE = re.compile(r"[1-9]\d*(x[1-9]\d*)*")


class Int8Calibrator(Protocol):
    """One of TensorRT's IInt8 calibrators that keeps what goes wrong in a callback, instead of losing it.

    TensorRT takes an exception in a callback for the end of the data, so the build asks afterwards.
    """

    def get_algorithm(self) -> Any:
        """The `CalibrationAlgoType`; TensorRT's own base classes answer it."""

    def passes(self) -> Iterator[None]:
        """One turn for each build that is needed; raises what a callback raised, after each."""


# Makes a calibrator for a network and its optimization profile (None where all shapes are fixed), e.g.
# lambda network, profile: EntropyCalibrator(batches, "model.cache", network=network, profile=profile)
MakeCalibrator = Callable[[Any, Any], AbstractContextManager[Int8Calibrator]]


@dataclass(frozen=True)
class DynamicRanges:
    """A table whose ranges are set on the network's tensors, without any calibrator or cache."""

    table: CalibrationTable


ImplicitRanges = CalibrationTable | DynamicRanges | MakeCalibrator


@dataclass(frozen=True)
class BuilderSettings:
    """What the builder is told beyond the model. What a backend does not know is refused, never dropped.

    `timing_cache` is read if it exists and written after the build; `workspace_bytes` limits scratch memory;
    `dla_core` puts what it can on that DLA core, the rest on the GPU; `hardware_compatibility` and
    `version_compatible` let an engine run on other GPUs and TensorRT versions, at a cost in speed.
    """

    timing_cache: Path | None = None
    workspace_bytes: int | None = None
    dla_core: int | None = None
    hardware_compatibility: HardwareCompatibility = "none"
    version_compatible: bool = False


@dataclass(frozen=True)
class EngineSpec:
    """One engine to build: `onnx` is the model as the engine shall run it (float, float16 or Q/DQ).

    `precision` says what that is; `source` is the identity of the float model behind it. With `implicit`, `onnx` is
    the float model and TensorRT 10 or older quantizes it by itself, with these ranges, in INT8 and FP16.
    """

    onnx: Path
    engine: Path
    precision: Precision
    source: ModelIdentity
    profiles: Mapping[str, ShapeProfile] = field(default_factory=dict)
    settings: BuilderSettings = BuilderSettings()
    implicit: ImplicitRanges | None = None

    def __post_init__(self) -> None:
        if self.implicit is not None and self.precision != "int8":
            raise UsageError(f"calibrated ranges are for int8, not {self.precision}")


def parse_hardware_compatibility(text: str) -> HardwareCompatibility:
    """The level called `text`.

    Raises:
        UsageError: there is none.
    """
    for level in HARDWARE_COMPATIBILITY:
        if text == level:
            return level
    raise UsageError(f"--hardware-compatibility is {', '.join(HARDWARE_COMPATIBILITY)}, not {text!r}")


def parse_profiles(options: Sequence[str]) -> dict[str, ShapeProfile]:
    """Profiles by input name from "name=MIN:OPT:MAX", or "name=SHAPE" for one shape; a shape is 8x3x224x224.

    Raises:
        UsageError: another form, or MIN <= OPT <= MAX does not hold.
    """
    profiles: dict[str, ShapeProfile] = {}
    for option in options:
        name, _, text = option.rpartition("=")
        shapes = text.split(":")
        if not name or len(shapes) not in (1, 3) or not all(_SHAPE.fullmatch(shape) for shape in shapes):
            raise UsageError(
                f"--shape {option!r}: write name=MIN:OPT:MAX, such as x=1x3x224x224:8x3x224x224:16x3x224x224"
            )
        if name in profiles:
            raise UsageError(f"--shape names input {name!r} twice")
        parsed = [tuple(int(axis) for axis in shape.split("x")) for shape in shapes]
        profiles[name] = ShapeProfile(parsed[0], parsed[len(parsed) // 2], parsed[-1])
    return profiles
