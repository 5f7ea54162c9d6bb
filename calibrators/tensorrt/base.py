"""The contract of every calibrator with TensorRT, whatever its ranges come from."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from trt_ptq._internal.packages.optional_packages import require
from trt_ptq.calibrators.table.tensorrt_cache import TensorRTVersion
from trt_ptq.calibrators.tensorrt.deferred_error import DeferredError, Interrupts
from trt_ptq.errors import EngineError

if TYPE_CHECKING:
    from typing_extensions import Self


class Calibrator:
    """The callbacks that TensorRT calls, and the methods for the code around a build.

    Instances are real instances of `trt.<interface>`. Use a calibrator as a context manager around the build, and keep
    it alive until the build ends, because TensorRT's config holds a bare pointer to it:

        with EntropyCalibrator(data, "model.cache", network=network, profile=profile) as calibrator:
            config.int8_calibrator = calibrator
            for _ in calibrator.passes():  # one build; PercentileCalibrator may need two
                plan = builder.build_serialized_network(network, config)

    TensorRT swallows an exception in a callback, Ctrl-C included, and finishes the build with the batches it has. A
    calibrator reports it at once (CalibrationFailedWarning, and the log), writes no cache, and raises it from `passes`,
    from `raise_deferred`, and at the end of the `with` block. Code that uses none of these gets a second warning when
    the calibrator is closed or deleted.

    Subclasses define where the ranges come from: `pointers`, `cache_to_serve`, `accept_cache`, `release`.
    """

    interface: ClassVar[str]
    algorithm: ClassVar[str]

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return _subclass_instance(cls, cls.interface)  # type: ignore[no-any-return]

    def __init__(self) -> None:
        getattr(tensorrt_with_calibrators(), self.interface).__init__(self)
        self._deferred = DeferredError()
        self._interrupts = Interrupts(self._deferred)

    # For subclasses. Exceptions are deferred.

    def pointers(self, names: Sequence[str]) -> list[int] | None:
        """Device pointers of the next batch in the order of `names`; None ends the data."""
        raise NotImplementedError

    def cache_to_serve(self) -> bytes | None:
        """A calibration cache for TensorRT to use instead of batches, or None."""
        raise NotImplementedError

    def accept_cache(self, content: bytes) -> None:
        """Receive the cache that TensorRT computed from the batches."""
        raise NotImplementedError

    def release(self) -> None:
        """Free the device buffers. Safe to call twice."""

    # Called by TensorRT.

    def get_batch_size(self) -> int:
        """1: the batch axis of an ONNX network is part of its shapes."""
        return 1

    def get_batch(self, names: Sequence[str]) -> list[int] | None:
        """Device pointers in the order of `names`; None at the end, and after an exception."""
        with self._deferred:
            pointers = None if self._deferred.failed else self.pointers(names)
            if pointers is not None:
                return _checked_pointers(pointers, names)
        with self._deferred:
            self.release()  # at the end, or after an exception: TensorRT can use the memory from here on
        return None

    def read_calibration_cache(self) -> bytes | None:
        """The cache to use instead of batches; None without one, and after an exception."""
        with self._deferred:
            return None if self._deferred.failed else self.cache_to_serve()
        return None

    def write_calibration_cache(self, cache: memoryview) -> None:
        """Accept a copy of TensorRT's memory, unless a callback failed."""
        with self._deferred:
            if not self._deferred.failed:
                self.accept_cache(bytes(cache))

    # Called by the code around the build.

    def passes(self) -> Iterator[None]:
        """Iterate once for each build that is needed; raises the exception of a callback after each build."""
        yield
        self.raise_deferred()

    def raise_deferred(self) -> None:
        """Raise the first exception of a callback, if there was one; call it after the build."""
        self._deferred.raise_deferred()

    def close(self) -> None:
        """Free the device buffers, and warn of an exception that was never raised. Safe to call twice."""
        self.release()
        self._deferred.report_unraised()

    def __del__(self) -> None:
        deferred = getattr(self, "_deferred", None)  # missing if __init__ failed
        if deferred is not None:
            deferred.report_unraised()

    def __enter__(self) -> Self:
        self._interrupts.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._interrupts.__exit__()
        with self._deferred:
            self.release()
        self.raise_deferred()


def tensorrt_with_calibrators() -> Any:
    """The `tensorrt` module of a version that still has calibrators.

    Raises:
        MissingPackageError: TensorRT is not installed.
        EngineError: it is TensorRT 11 or later.
    """
    trt = require("tensorrt", extra="trt10")
    if not hasattr(trt, "IInt8EntropyCalibrator2"):
        raise EngineError(
            f"TensorRT {trt.__version__} has no calibrators (10.16 was the last version with them): put the ranges "
            "into the model (trt-ptq qdq MODEL --table TABLE) and build that (trt-ptq build), "
            'or pip install "trt-ptq[trt10]"'
        )
    return trt


def running_version() -> TensorRTVersion:
    """Version of the installed TensorRT, as its calibration caches write it."""
    return TensorRTVersion.parse(".".join(tensorrt_with_calibrators().__version__.split(".")[:3]))


@functools.cache
def _tensorrt_subclass(calibrator: type, interface: str) -> type:
    """A subclass of both `calibrator` and TensorRT's `interface`, under the name of the former.

    TensorRT's base classes exist only where TensorRT can be imported, so no class statement can name them.
    """
    bases = (calibrator, getattr(tensorrt_with_calibrators(), interface))
    return type(calibrator.__name__, bases, {"__doc__": calibrator.__doc__, "__module__": calibrator.__module__})


def _subclass_instance(calibrator: type, interface: str) -> Any:
    """A new, uninitialized instance of the TensorRT subclass of `calibrator`."""
    base = getattr(tensorrt_with_calibrators(), interface)
    return base.__new__(calibrator if issubclass(calibrator, base) else _tensorrt_subclass(calibrator, interface))


def _checked_pointers(pointers: Any, names: Sequence[str]) -> list[int]:
    """The binding copies `len(names)` pointers unchecked: a shorter list would be read beyond its end."""
    if not isinstance(pointers, (list, tuple)) or len(pointers) != len(names):
        raise EngineError(f"get_batch needs {len(names)} device pointers, for {', '.join(names)}; got {pointers!r}")
    checked = []
    for name, pointer in zip(names, pointers, strict=True):
        if not hasattr(pointer, "__index__") or isinstance(pointer, bool) or operator.index(pointer) <= 0:
            raise EngineError(f"get_batch needs a device pointer (an int) for input {name!r}, got {pointer!r}")
        checked.append(operator.index(pointer))
    return checked
