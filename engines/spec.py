"""The inputs of an engine build: model, precision, shape profiles, calibrated ranges and builder configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.choices import Target
from trt_ptq.errors import UsageError
from trt_ptq.provenance import ModelIdentity
from trt_ptq.types import ShapeProfile

Precision = Literal["fp32", "fp16", "int8"]
HardwareCompatibility = Literal["none", "ampere+", "same-compute-capability"]


class Int8Calibrator(Protocol):
    """One of TensorRT's IInt8 calibrators that defers the exception of a callback until after the build.

    TensorRT treats an exception in a callback as the end of the data, so the build has to ask afterwards.
    """

    def get_algorithm(self) -> Any:
        """The `CalibrationAlgoType`; implemented by TensorRT's own base classes."""

    def passes(self) -> Iterator[None]:
        """Iterate once for each build that is needed; raises the exception of a callback after each build."""


# Creates a calibrator for a network and its optimization profile (None where all shapes are fixed), e.g.
# lambda network, profile: EntropyCalibrator(data, "model.cache", network=network, profile=profile)
MakeCalibrator = Callable[[Any, Any], AbstractContextManager[Int8Calibrator]]


@dataclass(frozen=True)
class DynamicRanges:
    """A table whose ranges are set on the network's tensors, without a calibrator or cache."""

    table: CalibrationTable


ImplicitRanges = CalibrationTable | DynamicRanges | MakeCalibrator


@dataclass(frozen=True)
class BuilderConfig:
    """Options of the builder. An option that a backend does not support is an error, never ignored.

    Args:
        timing_cache: file with the timings of kernels: read if it exists, written after the build.
        workspace_bytes: limit on scratch memory, in bytes.
        dla_core: DLA core for the layers that it can run; the GPU runs the rest.
        hardware_compatibility: other GPUs that have to run the engine: "none", "ampere+" or
            "same-compute-capability". Costs speed.
        version_compatible: whether later minor versions of TensorRT have to run the engine. Costs speed.

    Raises:
        UsageError: an option is out of range; names it.
    """

    timing_cache: Path | None = None
    workspace_bytes: int | None = None
    dla_core: int | None = None
    hardware_compatibility: HardwareCompatibility = "none"
    version_compatible: bool = False

    def __post_init__(self) -> None:
        if self.hardware_compatibility not in get_args(HardwareCompatibility):
            levels = ", ".join(get_args(HardwareCompatibility))
            raise UsageError(f"`hardware_compatibility` must be one of {levels}, not {self.hardware_compatibility!r}")
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise UsageError(f"`workspace_bytes` must be at least 1, not {self.workspace_bytes}")


@dataclass(frozen=True)
class EngineSpec:
    """One engine to build.

    Args:
        onnx: the model to build: float, float16 or Q/DQ.
        engine: the engine file to write; its manifest goes beside it, as `<engine>.json`.
        precision: precision of the model in `onnx`; "int8" for implicit quantization.
        source: identity of the float model that `onnx` was converted from.
        profiles: shapes by input name; required for every input with dynamic dimensions.
        builder_config: options of the builder.
        implicit: ranges for implicit quantization by TensorRT 10 or older: a table served as a calibration cache, a
            table set as dynamic ranges, or a function that creates a calibrator. `onnx` is the float model then, and
            the builder chooses INT8 or FP16 for each layer.
        debug_tensors: tensors whose values the engine reports while it runs; see `EngineSession.debug`.
        target: the builder that a Q/DQ model is meant for, for the manifest; None if unknown.
        refused_nodes: nodes that are not quantized in `onnx` because the builder refused them, for the manifest.

    Raises:
        UsageError: `implicit` is given for another precision than "int8".
    """

    onnx: Path
    engine: Path
    precision: Precision
    source: ModelIdentity
    profiles: Mapping[str, ShapeProfile] = field(default_factory=dict)
    builder_config: BuilderConfig = BuilderConfig()
    implicit: ImplicitRanges | None = None
    debug_tensors: tuple[str, ...] = ()
    target: Target | None = None
    refused_nodes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.implicit is not None and self.precision != "int8":
            raise UsageError(f"implicit quantization needs `precision=int8`, not {self.precision!r}")


def parse_profiles(options: Sequence[str]) -> dict[str, ShapeProfile]:
    """Shape profiles by input name.

    Args:
        options: "name=MIN:OPT:MAX" each, or "name=SHAPE" for a fixed shape; a shape is written 8x3x224x224.

    Raises:
        UsageError: an option has another form, or MIN <= OPT <= MAX does not hold.
    """
    profiles: dict[str, ShapeProfile] = {}
    for option in options:
        name, _, text = option.rpartition("=")
        if not name:
            raise UsageError(
                f"`shapes`: write name=MIN:OPT:MAX, such as x=1x3x224x224:8x3x224x224:16x3x224x224, not {option!r}"
            )
        if name in profiles:
            raise UsageError(f"`shapes` names input {name!r} twice")
        profiles[name] = ShapeProfile.parse(text)
    return profiles
