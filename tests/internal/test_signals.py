"""Ctrl-C and SIGTERM wait where they would do harm, and only there."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from trt_ptq._internal.signals import deferred_interrupts, deferred_interrupts_unless_handled, sigterm_as_interrupt
from trt_ptq.calibrators.tensorrt.deferred_error import DeferredError, Interrupts


@pytest.mark.parametrize("waiting", [deferred_interrupts, deferred_interrupts_unless_handled])
def test_the_block_is_finished_first(waiting) -> None:  # type: ignore[no-untyped-def]
    done = []

    def work() -> None:
        with waiting():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN], ids=["heard", "ignored"])
@pytest.mark.parametrize("waiting", [deferred_interrupts, deferred_interrupts_unless_handled])
def test_sigterm_is_deferred_too_and_works_where_ctrl_c_is_ignored(waiting, ctrl_c) -> None:  # type: ignore[no-untyped-def]
    done = []

    def work() -> None:
        with sigterm_as_interrupt(), waiting():
            signal.raise_signal(signal.SIGTERM)
            done.append("the rest")

    outside = signal.getsignal(signal.SIGTERM)
    before = signal.signal(signal.SIGINT, ctrl_c)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGTERM) is outside


def test_a_failing_block_does_not_swallow_an_interrupt() -> None:
    def fail() -> None:
        with deferred_interrupts():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("a batch that fails")

    with pytest.raises(KeyboardInterrupt):
        fail()


def test_an_ignored_sigterm_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with sigterm_as_interrupt():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_tensorrt_sigterm_works_where_ctrl_c_is_ignored() -> None:
    kept = DeferredError()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with sigterm_as_interrupt(), Interrupts(kept):
            signal.raise_signal(signal.SIGINT)
            kept.raise_deferred()  # nothing
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(KeyboardInterrupt):
        kept.raise_deferred()


def test_a_forked_child_is_terminated_as_usual() -> None:
    with sigterm_as_interrupt():
        child = os.fork()
        if not child:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM


def test_an_existing_handler_of_ctrl_c_is_called_at_once() -> None:
    received: list[str] = []
    before = signal.signal(signal.SIGINT, lambda *_: received.append("Ctrl-C"))
    try:
        with deferred_interrupts_unless_handled():
            signal.raise_signal(signal.SIGINT)
            assert received == ["Ctrl-C"]
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_other_threads_nothing_is_done() -> None:
    handlers = []

    def run() -> None:
        with deferred_interrupts():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
