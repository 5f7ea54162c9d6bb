"""The TensorRT that builds and runs engines: which one it is, what it says, and what it can do."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from trt_ptq._internal.optional_packages import require
from trt_ptq.errors import EngineError


@dataclass(frozen=True)
class TensorRTLibrary:
    """`name` is what manifests say, `title` what messages say, `module` the Python package.

    `without_effect` names settings of `BuilderSettings` that the library takes and ignores.
    """

    name: str
    title: str
    module: Any
    without_effect: frozenset[str] = frozenset()

    @property
    def version(self) -> str:
        """As the package gives it, such as 10.16.1.11."""
        return str(self.module.__version__)

    def require(self, capable: bool, what: str) -> None:
        """Make sure that this library can do `what`.

        Raises:
            EngineError: it cannot.
        """
        if not capable:
            raise EngineError(f"{self.title} {self.version} has no {what}: leave that out, or use another backend")


def tensorrt(extra: str = "trt11") -> TensorRTLibrary:
    """TensorRT; `extra` is what to install where it is missing: "trt10" for calibrators.

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
    """Whether TensorRT is installed; it is not imported for that."""
    return importlib.util.find_spec("tensorrt") is not None


class BuilderLog:
    """A TensorRT logger that keeps what it is told, for messages of ours; it prints nothing."""

    def __init__(self, library: TensorRTLibrary) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.logger = _logger(library.module, self.errors, self.warnings)

    def first(self) -> str:
        """The first error: what follows is mostly its consequence."""
        return self.errors[0] if self.errors else "no reason given"


def _logger(trt: Any, errors: list[str], warnings: list[str]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            # Without a driver the builder tries CUDA after each complaint and complains of that too.
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR) and "CudaError" not in message:
                errors.append(message.strip())
            elif severity == trt.ILogger.WARNING:
                warnings.append(message.strip())

    return Logger()
