"""Holds the exception of a TensorRT callback, which TensorRT would swallow, until it can be raised."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from trt_ptq.calibrators.tensorrt.calibration_warning import CalibrationFailedWarning

logger = logging.getLogger(__name__)


class DeferredError:
    """A block that holds its exception, KeyboardInterrupt included; the first exception counts.

    TensorRT's bindings print an exception of a callback and treat it as the end of the data. So it is also reported
    at once, by a warning and in the log, and once more by `report_unraised` if nobody has raised it.
    """

    def __init__(self) -> None:
        self.failed = False
        self._error: BaseException | None = None  # until it is raised

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is not None and traceback is not None and not self.failed:
            message = (
                f"calibration failed ({_describe(error)}), but TensorRT finishes the build with the batches it has: "
                "do not use this engine; no cache was written"
            )
            logger.error(message, exc_info=(type(error), error, traceback))
            _drop_frames_from(traceback.tb_frame, error)
            self.keep(error)
            _warn(message)
        return True

    def keep(self, error: BaseException) -> None:
        """Hold `error`, unless there was an earlier one."""
        if not self.failed:
            self.failed, self._error = True, error

    def raise_deferred(self) -> None:
        """Raise the exception, if there is one that was not raised yet."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def report_unraised(self) -> None:
        """Report an exception that was never raised, once."""
        error, self._error = self._error, None
        if error is not None:
            message = (
                f"calibration failed ({_describe(error)}), and the exception was never raised: the engine was built "
                "from incomplete data; do not use it. Build inside `with calibrator:`, or call "
                "calibrator.raise_deferred() after the build"
            )
            logger.error(message)
            _warn(message)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _warn(message: str) -> None:
    with suppress(CalibrationFailedWarning):  # with filter "error": an exception here would be lost in TensorRT
        warnings.warn(message, CalibrationFailedWarning, stacklevel=4)  # the line that builds, closes or deletes


def _drop_frames_from(callback: FrameType, error: BaseException | None) -> None:
    """Remove the frames of the callback, and those called by it in its thread, from the tracebacks of `error`.

    They hold the calibrator and, through its callers, TensorRT's objects, which Python's garbage collector cannot look
    into: the calibrator would never be deleted. Frames of the thread that loads the data stay.
    """
    while error is not None:
        entry = error.__traceback__
        while entry is not None and _is_called_by(callback, entry.tb_frame):
            entry = entry.tb_next
        error.__traceback__ = entry
        error = error.__cause__ or error.__context__


def _is_called_by(callback: FrameType, frame: FrameType | None) -> bool:
    while frame is not None and frame is not callback:
        frame = frame.f_back
    return frame is callback


class Interrupts:
    """Turns the first Ctrl-C in a block into a deferred KeyboardInterrupt.

    While TensorRT works, a signal waits for Python to run again: that is the first instruction of the next callback,
    before any `try` of ours, so KeyboardInterrupt would escape into TensorRT and be lost. A second Ctrl-C acts as
    usual. SIGTERM that acts as Ctrl-C counts, too, where Ctrl-C is ignored. Only in the main thread, and only where no
    other code handles the signal.
    """

    def __init__(self, deferred: DeferredError) -> None:
        self._deferred = deferred
        self._before: Callable[[int, FrameType | None], Any] | signal.Handlers | None = None  # nothing is installed

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGINT)
        if before is signal.default_int_handler or before is signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._defer)
            self._before = before

    def __exit__(self, *_: Any) -> None:
        self._restore()

    def _defer(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._before is signal.SIG_IGN:
            return
        self._restore()
        self._deferred.keep(KeyboardInterrupt())

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
