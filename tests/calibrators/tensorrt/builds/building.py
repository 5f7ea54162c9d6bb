"""For scripts on the stand-ins: a small network, batches for it, and builds with our calibrators."""

from __future__ import annotations

import dataclasses
import importlib
import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Feeds = dict[str, npt.NDArray[Any]]

BATCH_SIZE = 4
SAMPLE_SHAPES = {"image": (3, 2, 2), "mask": (5,)}
IDENTITY_OUTPUT = "(Unnamed Layer* 0) [Identity]_output"


def batches(count: int, size: int = BATCH_SIZE, first: int = 0) -> list[Feeds]:
    """Feed dicts of two float32 inputs, the same ones for the same numbers."""
    return [batch(index, size) for index in range(first, first + count)]


def batch(index: int, size: int = BATCH_SIZE) -> Feeds:
    generator = np.random.default_rng(index)
    return {name: generator.standard_normal((size, *shape)).astype(np.float32) for name, shape in SAMPLE_SHAPES.items()}


class Build:
    """A network with dynamic inputs, and the config of its INT8 build. TensorRT is imported here only."""

    def __init__(self, types: dict[str, str] | None = None, inputs: Sequence[str] = tuple(SAMPLE_SHAPES)) -> None:
        warnings.simplefilter("ignore", DeprecationWarning)
        self.trt: Any = importlib.import_module("tensorrt")
        self._logger = self.trt.Logger(self.trt.Logger.WARNING)
        self.builder = self.trt.Builder(self._logger)
        self.network = self.builder.create_network(0)
        self.profile = self.builder.create_optimization_profile()
        for name in inputs:
            shape = SAMPLE_SHAPES[name]
            self.network.add_input(name, getattr(self.trt, (types or {}).get(name, "float32")), (-1, *shape))
            self.profile.set_shape(name, (1, *shape), (BATCH_SIZE, *shape), (2 * BATCH_SIZE, *shape))
        self.network.mark_output(self.network.add_identity(self.network.get_input(0)).get_output(0))
        self.config = self.builder.create_builder_config()
        self.config.set_flag(self.trt.BuilderFlag.INT8)
        self.config.set_flag(self.trt.BuilderFlag.FP16)
        self.config.add_optimization_profile(self.profile)
        self.config.set_calibration_profile(self.profile)

    @property
    def known(self) -> dict[str, Any]:
        """What a calibrator takes to check batches against the network."""
        return {"network": self.network, "profile": self.profile}

    def run(self, calibrator: Any) -> dict[str, Any] | None:
        """What the stand-in plan says; None when the build failed."""
        self.config.int8_calibrator = calibrator
        plan = self.builder.build_serialized_network(self.network, self.config)
        return None if plan is None else dataclasses.asdict(importlib.import_module("standin").read_plan(bytes(plan)))


def raised_by(action: Callable[[], Any]) -> str | None:
    """Type and message of what `action` raises."""
    try:
        action()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return None


def build_with(calibrator: Any, build: Build) -> dict[str, Any]:
    """Build as a user does: in one block, once for each pass. The plans, and the exception that was raised."""
    plans: list[Any] = []

    def block() -> None:
        with calibrator:
            for _ in calibrator.passes():
                plans.append(build.run(calibrator))

    return {"raised": raised_by(block), "plans": plans}


def after(fail_at: int, error: BaseException, source: Sequence[Feeds]) -> Any:
    """The first batches of `source`, and then `error`."""
    yield from source[:fail_at]
    raise error


def tell(**facts: Any) -> None:
    """Print the outcome as the last line of the script, with the counters of the stand-in device."""
    counters = importlib.import_module("standin").counters()._asdict()
    print(json.dumps({**facts, "counters": counters}))
