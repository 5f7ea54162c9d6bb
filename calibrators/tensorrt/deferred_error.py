"""Keeps what was raised in a callback, because TensorRT would swallow it and go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class DeferredError:
    """A block whose exception, Ctrl-C included, is kept: the first one counts.

    TensorRT's bindings print an exception of a callback and take it as "end of data".
    """

    def __init__(self) -> None:
        self._error: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.keep(error)
        return True

    def keep(self, error: BaseException | None) -> None:
        """Keep `error`, unless there is an earlier one."""
        if self._error is None:
            self._error = error

    def raise_deferred(self) -> None:
        """Raise what was kept, if anything was."""
        if self._error is not None:
            raise self._error


class Interrupts:
    """Notes the first Ctrl-C in a block, for callbacks to raise it where it can be kept.

    While TensorRT works, a signal waits for Python to run again: that is the first instruction of the next callback,
    before any `try` of ours, so that KeyboardInterrupt would escape into TensorRT and be lost. A second Ctrl-C
    does what it always does. SIGTERM that does as Ctrl-C is noted, too, where Ctrl-C is ignored. Only in the main
    thread, and only where nobody else handles the signal.
    """

    def __init__(self, kept: DeferredError) -> None:
        self._kept = kept
        self._before: Callable[[int, FrameType | None], Any] | signal.Handlers | None = None  # nothing is installed

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGINT)
        if before is signal.default_int_handler or before is signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._note)
            self._before = before

    def __exit__(self, *_: Any) -> None:
        self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._before is signal.SIG_IGN:
            return
        self._restore()
        self._kept.keep(KeyboardInterrupt())

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
