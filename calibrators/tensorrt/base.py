"""The contract that every calibrator keeps with TensorRT, whatever it serves."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from trt_ptq.calibrators.tensorrt.deferred_error import DeferredError, Interrupts
from trt_ptq.calibrators.tensorrt.tensorrt_subclass import subclass_instance, tensorrt_with_calibrators
from trt_ptq.errors import EngineError

if TYPE_CHECKING:
    from typing_extensions import Self


class Calibrator:
    """What TensorRT calls, and what a builder's code calls around it. Subclasses say where the ranges come from.

    Instances are real instances of `trt.<interface>`. Use one as a context manager around the build, and keep it alive
    so long, because TensorRT's config holds a bare pointer to it:

        with EntropyCalibrator(batches, "model.cache", network=network, profile=profile) as calibrator:
            config.int8_calibrator = calibrator
            for _ in calibrator.passes():  # one build; PercentileCalibrator may need two
                plan = builder.build_serialized_network(network, config)

    An exception in a callback, Ctrl-C included, would be swallowed by TensorRT, which goes on with the batches it had.
    Here it is kept, no cache is written, and it is raised by `passes`, by `raise_deferred`, and by leaving the block.
    """

    interface: ClassVar[str]
    algorithm: ClassVar[str]

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return subclass_instance(cls, cls.interface)  # type: ignore[no-any-return]

    def __init__(self) -> None:
        getattr(tensorrt_with_calibrators(), self.interface).__init__(self)
        self._kept = DeferredError()
        self._interrupts = Interrupts(self._kept)

    # What a subclass says. Exceptions are kept.

    def pointers(self, names: Sequence[str]) -> list[int] | None:
        """Device pointers of the next batch in the order of `names`; None ends the data."""
        raise NotImplementedError

    def cache_to_serve(self) -> bytes | None:
        """A calibration cache for TensorRT to use instead of batches, or None."""
        raise NotImplementedError

    def accept_cache(self, content: bytes) -> None:
        """Take the cache that TensorRT made of the batches."""
        raise NotImplementedError

    # What TensorRT calls.

    def get_batch_size(self) -> int:
        """1: the batch axis of an ONNX network is part of its shapes."""
        return 1

    def get_batch(self, names: Sequence[str]) -> list[int] | None:
        """Device pointers in the order of `names`; None at the end, and after an exception."""
        with self._kept:
            self._kept.raise_deferred()
            pointers = self.pointers(names)
            if pointers is not None:
                return _checked(pointers, names)
        with self._kept:
            self.close()  # at the end, or after an exception: TensorRT can use the memory from here on
        return None

    def read_calibration_cache(self) -> bytes | None:
        """What to use instead of batches; None after an exception."""
        with self._kept:
            self._kept.raise_deferred()
            return self.cache_to_serve()
        return None

    def write_calibration_cache(self, cache: memoryview) -> None:
        """Keep a copy of TensorRT's memory, unless something was kept."""
        with self._kept:
            self._kept.raise_deferred()
            self.accept_cache(bytes(cache))

    # What the builder's code calls.

    def passes(self) -> Iterator[None]:
        """One turn for each build that is needed; raises what was kept, after each."""
        yield
        self.raise_deferred()

    def raise_deferred(self) -> None:
        """Raise the first exception of a callback, if there was one; to be called after a build."""
        self._kept.raise_deferred()

    def close(self) -> None:
        """Free the device buffers. Safe to call twice."""

    def __enter__(self) -> Self:
        self._interrupts.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._interrupts.__exit__()
        with self._kept:
            self.close()
        self.raise_deferred()


def _checked(pointers: Any, names: Sequence[str]) -> list[int]:
    """The binding copies `len(names)` pointers without looking: fewer would make it read what is not there."""
    if not isinstance(pointers, (list, tuple)) or len(pointers) != len(names):
        raise EngineError(f"get_batch needs {len(names)} device pointers, for {', '.join(names)}; got {pointers!r}")
    checked = []
    for name, pointer in zip(names, pointers, strict=True):
        if not hasattr(pointer, "__index__") or isinstance(pointer, bool) or operator.index(pointer) <= 0:
            raise EngineError(f"get_batch needs a device pointer (an int) for input {name!r}, got {pointer!r}")
        checked.append(operator.index(pointer))
    return checked
