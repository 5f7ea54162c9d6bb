"""What a search has measured, in a file: the same search in the same folder goes on where an earlier one ended."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from trt_ptq._internal.files import write_atomic
from trt_ptq.errors import OutputError
from trt_ptq.recipe import Recipe

_logger = logging.getLogger("trt_ptq.tuning")
Measurement = Literal["score", "output error", "first look", "layer ranking"]


class KeptTrials:
    """Measurements by recipe: JSON lines, appended one at a time, so that a killed run loses at most the last.

    The first line names the search. Measurements of another search, with other data for instance, are dropped.

    Args:
        file: where they are kept; None to keep them in memory only.
        search: identifies everything beside the recipe that the measurements depend on.
    """

    def __init__(self, file: Path | None = None, search: str = "") -> None:
        self._file = file
        self._measured: dict[str, Any] = {}
        self._head = json.dumps({"search": search}) + "\n"
        if file is not None:
            self._measured = self._read(file)
        if self._measured:
            _logger.info("%d measurements of an earlier run are reused from %s", len(self._measured), file)

    def find(self, what: Measurement, recipe: Recipe, detail: str = "") -> Any:
        """What was kept: numbers, text, lists and dicts; None if nothing was."""
        return self._measured.get(_key(what, recipe, detail))

    def keep(self, value: Any, what: Measurement, recipe: Recipe, detail: str = "") -> None:
        """Keep `value`, in which NaN and infinity become text that `float` reads.

        Raises:
            OutputError: the file cannot be written.
        """
        key = _key(what, recipe, detail)
        self._measured[key] = value
        if self._file is None:
            return
        line = json.dumps({"key": key, "value": _without_nonfinite(value)}, allow_nan=False) + "\n"
        try:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(descriptor, line.encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise OutputError(f"cannot write {self._file}: {error.strerror}") from error

    def _read(self, file: Path) -> dict[str, Any]:
        """The measurements in `file`, which is written anew unless every line of it belongs to this search."""
        try:
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, UnicodeDecodeError):  # there is none, or it is no such file
            lines = []
        whole = [line for line in lines[1:] if lines[0] == self._head and _parsed(line)]
        if [self._head, *whole] != lines:
            write_atomic(file, "".join([self._head, *whole]))
        return {record["key"]: record["value"] for record in map(_parsed, whole) if record}


def _key(what: Measurement, recipe: Recipe, detail: str) -> str:
    fields = recipe.model_dump(mode="json", exclude={"model", "version", "high_precision"})  # the rest is FP32
    fields |= {"nodes_to_exclude": sorted(recipe.nodes_to_exclude), "weight_only": sorted(recipe.weight_only)}
    return json.dumps([what, detail, fields], sort_keys=True)


def _parsed(line: str) -> dict[str, Any] | None:
    """The measurement of a line; None for one that a killed run did not finish."""
    try:
        record = json.loads(line) if line.endswith("\n") else None
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.keys() == {"key", "value"} else None


def _without_nonfinite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nonfinite(item) for name, item in value.items()}
    return str(float(value)) if isinstance(value, float) and not math.isfinite(value) else value
