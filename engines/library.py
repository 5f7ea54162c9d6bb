"""The TensorRT library that builds and runs engines: version, capabilities and log."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq.engines.plans.rtx_log import KERNELS
from trt_ptq.errors import EngineError


@dataclass(frozen=True)
class TensorRTLibrary:
    """TensorRT or TensorRT for RTX.

    `name` is for manifests, `title` for messages, `module` is the Python package. `without_effect` names the options
    of `BuilderConfig` that the library accepts and ignores.
    """

    name: str
    title: str
    module: Any
    without_effect: frozenset[str] = frozenset()

    @property
    def version(self) -> str:
        """Version of the package, such as 10.16.1.11."""
        return str(self.module.__version__)

    def require(self, supported: bool, feature: str) -> None:
        """Check that this library supports a feature.

        Raises:
            EngineError: it does not.
        """
        if not supported:
            raise EngineError(f"{self.title} {self.version} has no {feature}: omit it, or use another backend")


def tensorrt(extra: str = "trt11") -> TensorRTLibrary:
    """TensorRT; `extra` is the extra to install if it is missing: "trt10" for calibrators.

    Raises:
        MissingPackageError: it is not installed.
    """
    return TensorRTLibrary("tensorrt", "TensorRT", require("tensorrt", extra))


def tensorrt_rtx() -> TensorRTLibrary:
    """TensorRT for RTX.

    Raises:
        MissingPackageError: it is not installed.
    """
    module = require("tensorrt_rtx", extra="rtx")
    return TensorRTLibrary(
        "tensorrt-rtx", "TensorRT-RTX", module, frozenset({"timing_cache", "hardware_compatibility"})
    )


def has_tensorrt() -> bool:
    """Whether TensorRT is installed; does not import it."""
    return importlib.util.find_spec("tensorrt") is not None


def has_tensorrt_rtx() -> bool:
    """Whether TensorRT for RTX is installed; does not import it."""
    return importlib.util.find_spec("tensorrt_rtx") is not None


class BuilderLog:
    """A TensorRT logger that collects errors and warnings for our messages, and prints nothing.

    `kernels` has the lists of kernels that TensorRT-RTX logs, one for each engine that was built.
    """

    def __init__(self, library: TensorRTLibrary) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.kernels: list[str] = []
        self.logger = _logger(library.module, self)

    def first(self) -> str:
        """The first error: later errors are mostly its consequences."""
        return self.errors[0] if self.errors else "no reason given"


def _logger(trt: Any, collected: BuilderLog) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            # Without a driver the builder tries CUDA after each error, and logs that failure, too.
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR) and "CudaError" not in message:
                collected.errors.append(message.strip())
            elif severity == trt.ILogger.WARNING:
                collected.warnings.append(message.strip())
            elif message.startswith(KERNELS):
                collected.kernels.append(message)

    return Logger()
