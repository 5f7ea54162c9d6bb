"""A file from which an interrupted calibration resumes."""

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
    """Saves the state of a calibration to a file from time to time.

    Args:
        path: The file. It is replaced atomically.
        every: Seconds between two saves.
        memory_limit: The limit in bytes that passes were planned with; another limit may require more passes.

    Attributes:
        resumed: The state that `resume` found; None if there was none.
    """

    def __init__(self, path: Path, every: float = SAVE_EVERY, memory_limit: int | None = None) -> None:
        self.path = path
        self.resumed: CalibrationState | None = None
        self._memory_limit = memory_limit
        self._every = every
        self._saved = monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to `save`."""
        return monotonic() - self._saved >= self._every

    def save(self, state: CalibrationState) -> None:
        """Replace the saved state.

        Raises:
            OutputError: The file cannot be written; the state saved before is untouched.
        """
        content = {
            "passes": state.passes,
            "settings": dict(state.settings),
            "whole": asdict(state.full_data),
            "current": state.pass_index,
            "batches": state.batches,
            "ranges": state.ranges,
            "memory_limit": self._memory_limit,
        }
        save_statistics(state.statistics, self.path, unfinished=content)
        self._saved = monotonic()

    def resume(self, start: CalibrationState) -> CalibrationState:
        """Return the saved state of the calibration that begins with `start`, or `start` if none was saved.

        Raises:
            StatisticsError: The saved state is of another model, other tensors, versions or settings, or damaged.
        """
        if not self.path.exists():
            return start
        state, limit = self._load()
        difference = state.difference(start)
        if difference:
            raise StatisticsError(
                f"{self.path}: a checkpoint {difference}: repeat the command that was interrupted, choose another "
                "path, or delete the checkpoint to start again"
            )
        if limit != self._memory_limit:
            state = state.regrouped(start.passes)
        self.resumed = state
        return state

    def _load(self) -> tuple[CalibrationState, int | None]:
        """The saved state, and the memory limit of its run."""
        statistics, content = load_unfinished(self.path)
        try:
            state = CalibrationState(
                statistics,
                passes=tuple(map(tuple, content["passes"])),
                settings=content["settings"],
                full_data=DataFingerprint(**content["whole"]),
                pass_index=content["current"],
                batches=content["batches"],
                ranges=content["ranges"],
                where=str(self.path),
            )
            return state, content["memory_limit"]
        except (KeyError, TypeError) as error:
            raise StatisticsError(f"{self.path}: not a checkpoint of this version; delete it to start again") from error

    def remove(self) -> None:
        """Delete the file. Call it once the statistics of the complete calibration are saved."""
        self.path.unlink(missing_ok=True)
