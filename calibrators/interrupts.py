"""Ctrl-C, which must not leave a batch half counted, nor be lost in TensorRT."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Ctrl-C takes effect as the block ends. Only the main thread can tell Python so; others are never interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)


def unclaimed_interrupts_wait() -> AbstractContextManager[None]:
    """`interrupts_wait`, but where somebody else handles Ctrl-C: a calibrator that keeps it, say.

    For calls into TensorRT: a KeyboardInterrupt that is raised in one of its callbacks, the logger's, is lost, and the
    process may crash as it ends.
    """
    return interrupts_wait() if signal.getsignal(signal.SIGINT) is signal.default_int_handler else nullcontext()
