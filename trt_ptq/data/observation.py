"""Observers look at the batches that others read: data is checked in the pass that uses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from trt_ptq.types import Batch, BatchSource


class Observer(Protocol):
    """Looks at every batch once."""

    def observe(self, batch: Batch) -> None: ...


@runtime_checkable
class RepeatObserver(Observer, Protocol):
    """Looks at the batches of later passes too, which may differ where a loader shuffles."""

    def observe_again(self, batch: Batch) -> None: ...


class ObservedSource:
    """Yields the batches of `source` and shows each one to the observers, only the first time that it is read.

    A `RepeatObserver` is shown later passes separately.
    """

    def __init__(self, source: BatchSource, observers: tuple[Observer, ...]) -> None:
        self._source = source
        self._observers = observers
        self._observed = 0

    @property
    def total(self) -> int | None:
        return self._source.total

    def __iter__(self) -> Iterator[Batch]:
        for index, batch in enumerate(self._source):
            if index >= self._observed:
                for observer in self._observers:
                    observer.observe(batch)
                self._observed = index + 1
            else:
                for observer in self._observers:
                    if isinstance(observer, RepeatObserver):
                        observer.observe_again(batch)
            yield batch


def observe(source: BatchSource, *observers: Observer) -> ObservedSource:
    """`source`, whose batches the observers see while something else reads them, each batch once in all passes."""
    return ObservedSource(source, observers)
