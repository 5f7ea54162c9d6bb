"""Makes a calibrator of ours a real subclass of TensorRT's, once TensorRT is there."""

from __future__ import annotations

import functools
from typing import Any

from trt_ptq._internal.optional_packages import require
from trt_ptq.calibrators.table.tensorrt_cache import TensorRTVersion
from trt_ptq.errors import EngineError


def tensorrt_with_calibrators() -> Any:
    """The `tensorrt` module, of a version that still has calibrators.

    Raises:
        MissingPackageError: TensorRT is not installed.
        EngineError: it is TensorRT 11 or later.
    """
    trt = require("tensorrt", extra="trt10")
    if not hasattr(trt, "IInt8EntropyCalibrator2"):
        raise EngineError(
            f"TensorRT {trt.__version__} has no calibrators (10.16 was the last with them): put the ranges into "
            "the model (trt-ptq qdq MODEL --table TABLE) and build that (trt-ptq build), "
            'or pip install "trt-ptq[trt10]"'
        )
    return trt


def running_version() -> TensorRTVersion:
    """Version of the TensorRT that is installed here, as its cache headers have it."""
    return TensorRTVersion.parse(".".join(tensorrt_with_calibrators().__version__.split(".")[:3]))


@functools.cache
def tensorrt_subclass(calibrator: type, interface: str) -> type:
    """The subclass of both `calibrator` and TensorRT's `interface`, under the name of the former.

    TensorRT's base classes exist only where TensorRT can be imported, so they cannot stand in a class statement.
    """
    bases = (calibrator, getattr(tensorrt_with_calibrators(), interface))
    return type(calibrator.__name__, bases, {"__doc__": calibrator.__doc__, "__module__": calibrator.__module__})


def subclass_instance(calibrator: type, interface: str) -> Any:
    """An instance, not initialised yet, of the native class of `calibrator`."""
    base = getattr(tensorrt_with_calibrators(), interface)
    return base.__new__(calibrator if issubclass(calibrator, base) else tensorrt_subclass(calibrator, interface))
