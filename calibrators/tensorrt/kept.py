"""Keeps what was raised in a callback, because TensorRT would swallow it and go on."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Kept:
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

    def raise_kept(self) -> None:
        """Raise what was kept, if anything was."""
        if self._error is not None:
            raise self._error


class Interrupts:
    """Notes the first Ctrl-C in a block, for callbacks to raise it where it can be kept.

    While TensorRT works, a signal waits for Python to run again: that is the first instruction of the next callback,
    before any `try` of ours, so that KeyboardInterrupt would escape into TensorRT and be lost. A second Ctrl-C
    does what it always does. Only in the main thread, and only where nobody else handles the signal.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._installed = False

    def __enter__(self) -> None:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._installed = True

    def __exit__(self, *_: Any) -> None:
        self._restore()

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self._restore()
        self._kept.keep(KeyboardInterrupt())

    def _restore(self) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._installed = False
