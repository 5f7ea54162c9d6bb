"""Observers see each batch once, however often the source is read."""

from __future__ import annotations

from itertools import islice

from tests.data.opened import Stream, origins
from trt_ptq.data.observation import observe
from trt_ptq.types import Batch


class Recorder:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def observe(self, batch: Batch) -> None:
        self.seen.append(batch.origin)


def test_every_observer_sees_every_batch() -> None:
    first, second = Recorder(), Recorder()
    passed = origins(observe(Stream(3), first, second))
    assert first.seen == second.seen == passed == ["batch 0", "batch 1", "batch 2"]


def test_the_total_is_that_of_the_source() -> None:
    assert (observe(Stream(3, 3)).total, observe(Stream(3)).total) == (3, None)


def test_a_second_pass_is_not_observed() -> None:
    recorder = Recorder()
    source = observe(Stream(3), recorder)
    assert origins(source) == origins(source) == recorder.seen


def test_after_a_look_at_the_first_batch_the_rest_is_observed_in_the_next_pass() -> None:
    recorder = Recorder()
    source = observe(Stream(3), recorder)
    list(islice(source, 1))
    list(source)
    assert recorder.seen == ["batch 0", "batch 1", "batch 2"]
