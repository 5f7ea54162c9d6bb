"""Output for people (text on standard output, messages on standard error) and for programs (JSON)."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rich.console import Console
from rich.markup import escape

from trt_ptq.report.option_names import with_options

if TYPE_CHECKING:
    from trt_ptq.evaluation.verdict import Verdict

T = TypeVar("T")
_NUMBER = re.compile(r"$|[-+]?\d|-?inf|nan", re.IGNORECASE)

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
_TABLE_WIDTH = 80  # without a terminal
_BORDER = 3  # characters of a column beside its text: padding and a line
_NARROW = 10  # characters: text columns are never folded to less


@dataclass
class _State:
    """What `--json` and `--quiet` change."""

    json: bool = False
    json_printed: bool = False
    quiet: bool = False


_state = _State()


class Interrupted(Exception):  # noqa: N818 -- not an error
    """Ctrl-C, with a message."""


@contextmanager
def resumable(saved: Path | None) -> Iterator[None]:
    """If the block is interrupted and the file `saved` is there, say that the command can go on from it."""
    try:
        yield
    except KeyboardInterrupt:
        if saved is None or not saved.exists():
            raise
        raise Interrupted(f"interrupted: progress is saved in {saved}; run the same command again to resume") from None


def start(json: bool) -> None:
    """Begin the output of a command; with `json`, errors are JSON as well."""
    _state.json, _state.json_printed, _state.quiet = json, False, False


def set_quiet(quiet: bool) -> None:
    """Print errors and JSON only."""
    _state.quiet = quiet


def progress(batches: Iterable[T], description: str, total: int | None, unit: str = "batches") -> Iterator[T]:
    """Show progress with the remaining time on standard error, if that is a terminal."""
    from rich import progress as rich_progress

    columns = [
        rich_progress.SpinnerColumn(),
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn(unit),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
    ]
    disable = _state.quiet or not err.is_terminal
    with rich_progress.Progress(*columns, console=err, transient=True, disable=disable) as bar:
        task = bar.add_task(description, total=total)
        for batch in batches:
            yield batch
            bar.advance(task)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output; NaN and infinity, which JSON lacks, become strings."""
    _state.json_printed = True
    value = json.loads(json.dumps(value), parse_constant=str)
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table no wider than the terminal, if it fits: long cells are folded, heads break at spaces only.

    Columns of numbers are aligned right, the others left.
    """
    from rich.table import Table

    if _state.quiet:
        return
    if title:
        say(title)
    rows = list(rows)
    console = Console(highlight=False, emoji=False, width=None if out.is_terminal else _TABLE_WIDTH)
    numeric = [index > 0 and all(_NUMBER.match(row[index]) for row in rows) for index in range(len(head))]
    widths = _column_widths(head, rows, numeric, console.width)
    table = Table()
    for name, width, is_number in zip(head, widths, numeric, strict=True):
        justify: Literal["left", "right"] = "right" if is_number else "left"
        table.add_column(escape(name), overflow="fold", justify=justify, width=width)
    for row in rows:
        table.add_row(*map(escape, row))  # [brackets] in a tensor's name are no markup
    console.width = max(console.width, sum(widths) + _BORDER * len(widths) + 1)  # Rich would cut the last columns off
    console.print(table)


def _column_widths(
    head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool], limit: int
) -> list[int]:
    """Narrow the widest columns until the table fits in `limit`, none below its numbers or the words of its head.

    Rich collapses columns without regard to their least widths, and then cuts the last ones off.
    """
    widths, least = [], []
    for index, name in enumerate(head):
        cell = max((len(row[index]) for row in rows), default=0)
        word = max(map(len, name.split()), default=0)
        widths.append(max(cell, len(name)))
        least.append(max(word, cell if numeric[index] else min(cell, _NARROW)))
    excess = sum(widths) + _BORDER * len(widths) + 1 - limit
    for _ in range(excess):
        wide = [index for index in range(len(widths)) if widths[index] > least[index]]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def say(text: str) -> None:
    """Print a line on standard output."""
    if not _state.quiet:
        out.print(text, markup=False)


def say_verdict(verdict: Verdict, reference: str = "FP32") -> None:
    """Print the verdict, which comes first in the output of a command."""
    say(f"verdict: {verdict.sentence(reference)}")


@contextmanager
def log_shown() -> Iterator[None]:
    """Show the log of the library on standard error."""
    logger, handler = logging.getLogger("trt_ptq"), _LogHandler()
    level, propagate = logger.level, logger.propagate
    # A failure of a calibrator is raised after the build.
    handler.addFilter(lambda record: not record.name.startswith("trt_ptq.calibrators."))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _LogHandler(logging.Handler):
    """Shows the library's log on standard error: warnings, and progress if that is a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            warn(record.getMessage())
        elif err.is_terminal and not _state.quiet:
            err.print(with_options(record.getMessage()), markup=False)


def warn(text: str) -> None:
    """Print a warning on standard error."""
    if not _state.quiet:
        err.print("warning: ", style="yellow", end="")
        err.print(with_options(text), markup=False)


def fail(text: str, exit_status: int | None = None) -> None:
    """Print an error as one line on standard error; with `--json` and an exit status, also as a JSON document."""
    message = " ".join(with_options(text).split())
    if exit_status is not None and _state.json and not _state.json_printed:
        print_json({"error": message, "exit_status": exit_status})
    err.print("error: ", style="bold red", end="")
    err.print(message, markup=False)
