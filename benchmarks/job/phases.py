"""Time and peak memory of this process by phase of a run, as the log of `trt_ptq.pipeline` names them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_SECONDS_BETWEEN_LOOKS = 0.02
_BEFORE = "resolving"


@dataclass
class Phases:
    """By phase: `seconds`, and `peak_bytes`, the largest resident memory that was seen."""

    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    current: str = _BEFORE
    _since: float = field(default_factory=time.perf_counter)

    def look(self) -> None:
        """Take the memory that is resident now into account."""
        phase = self.current
        self.peak_bytes[phase] = max(self.peak_bytes.get(phase, 0), _resident_bytes())

    def start(self, phase: str) -> None:
        """End the current phase, and start `phase`."""
        self.look()
        now = time.perf_counter()
        self.seconds[self.current] = self.seconds.get(self.current, 0.0) + now - self._since
        self.current, self._since = phase, now


@contextmanager
def phases_of_run() -> Iterator[Phases]:
    """Observe the run in the block; the process's memory is read every 20 ms."""
    phases, done = Phases(), threading.Event()

    def watch() -> None:
        while not done.wait(_SECONDS_BETWEEN_LOOKS):
            phases.look()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            phases.start(record.getMessage())

    logger, handler, watcher = logging.getLogger("trt_ptq.pipeline"), Handler(), threading.Thread(target=watch)
    handler.addFilter(lambda record: record.name == logger.name)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    watcher.start()
    try:
        yield phases
    finally:
        done.set()
        watcher.join()
        logger.removeHandler(handler)
        logger.setLevel(level)
        phases.start(_BEFORE)


def _resident_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024
