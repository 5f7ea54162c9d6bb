"""Ctrl-C and SIGTERM, which must not interrupt the counting of a batch, nor get lost in TensorRT."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Defer Ctrl-C until the block ends.

    Python interrupts the main thread only, so in other threads there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        for number in received:  # also if the block fails: the error may be handled as the failure of a batch
            signal.raise_signal(number)


def deferred_interrupts_unless_handled() -> AbstractContextManager[None]:
    """Defer Ctrl-C, unless there is a handler for it, such as that of a calibrator.

    For calls into TensorRT: a KeyboardInterrupt raised in one of its callbacks (the logger) is lost, and the process
    may crash at its end.
    """
    has_handler = signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, signal.SIG_IGN)
    return nullcontext() if has_handler else deferred_interrupts()


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM, which batch schedulers and containers send to end a process, like Ctrl-C, to clean up.

    This works even if Ctrl-C is ignored, as in the background jobs of a script. Forked children end as usual.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # ignored by the parent process
    ):
        yield
        return
    process = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):
            raise KeyboardInterrupt
        handler(number, frame)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
