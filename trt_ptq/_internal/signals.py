"""Ctrl-C and SIGTERM, which must not leave a batch half counted, nor be lost in TensorRT."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Ctrl-C, or what does as it, takes effect as the block ends.

    Only the main thread can tell Python so; others are never interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        for number in came:  # also where the block fails: it may be caught as a failure of a batch
            signal.raise_signal(number)


def deferred_interrupts_unless_handled() -> AbstractContextManager[None]:
    """`deferred_interrupts`, but where somebody else handles Ctrl-C: a calibrator that keeps it, say.

    For calls into TensorRT: a KeyboardInterrupt that is raised in one of its callbacks, the logger's, is lost, and the
    process may crash as it ends.
    """
    unclaimed = signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_IGN)
    return deferred_interrupts() if unclaimed else nullcontext()


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM, by which batch schedulers and containers end a process, does as Ctrl-C: nothing stays behind.

    Also where Ctrl-C is ignored, as by what a script starts in the background. Forked children end as they would.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # by who started this process
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
