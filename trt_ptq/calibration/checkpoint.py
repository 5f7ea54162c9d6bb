"""A file from which a calibration that was cut off goes on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from time import monotonic

from trt_ptq.calibration.state import CalibrationState
from trt_ptq.calibrators.statistics.statistics_file import load_unfinished, save_statistics
from trt_ptq.errors import StatisticsError
from trt_ptq.provenance import DataFingerprint

SAVE_EVERY = 120.0  # seconds


class Checkpoint:
    """Keeps the progress of a calibration in the file `path`, written in one step `every` so many seconds."""

    def __init__(self, path: Path, every: float = SAVE_EVERY, memory_limit: int | None = None) -> None:
        self.path = path
        self._memory_limit = memory_limit  # what passes are planned by; another one may need more of them
        self.found: CalibrationState | None = None  # by `resume`
        self._every = every
        self._saved = monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to `save`."""
        return monotonic() - self._saved >= self._every

    def save(self, state: CalibrationState) -> None:
        """Replace what was saved before.

        Raises:
            OutputError: the file cannot be written; what was saved before is untouched.
        """
        note = {
            "passes": state.passes,
            "settings": dict(state.settings),
            "whole": asdict(state.full_data),
            "current": state.current,
            "batches": state.batches,
            "ranges": state.ranges,
            "memory_limit": self._memory_limit,
        }
        save_statistics(state.statistics, self.path, unfinished=note)
        self._saved = monotonic()

    def resume(self, start: CalibrationState) -> CalibrationState:
        """What an earlier run left of the calibration that begins with `start`; `start` itself if there is nothing.

        Raises:
            StatisticsError: it is of another model, other tensors, versions or settings; or damaged.
        """
        if not self.path.exists():
            return start
        found, limit = self._load()
        difference = found.difference(start)
        if difference:
            raise StatisticsError(
                f"{self.path}: a checkpoint {difference}: repeat the command that was cut off, name another file, or "
                "remove this one to start anew"
            )
        if limit != self._memory_limit:
            found = found.regrouped(start.passes)
        self.found = found
        return found

    def _load(self) -> tuple[CalibrationState, int | None]:
        """What was saved, and the memory limit of that run."""
        statistics, note = load_unfinished(self.path)
        try:
            state = CalibrationState(
                statistics,
                passes=tuple(map(tuple, note["passes"])),
                settings=note["settings"],
                full_data=DataFingerprint(**note["whole"]),
                current=note["current"],
                batches=note["batches"],
                ranges=note["ranges"],
                where=str(self.path),
            )
            return state, note["memory_limit"]
        except (KeyError, TypeError) as error:
            raise StatisticsError(f"{self.path}: not a checkpoint of this version; remove it to start anew") from error

    def remove(self) -> None:
        """To be called when the statistics of the whole calibration are saved."""
        self.path.unlink(missing_ok=True)
