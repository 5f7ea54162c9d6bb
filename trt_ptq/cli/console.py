"""What the commands share in talking to people and to programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from trt_ptq.cli.option_names import with_options

T = TypeVar("T")

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
_TABLE_WIDTH = 100  # where there is no terminal to ask


class Interrupted(Exception):  # noqa: N818 -- no error
    """Ctrl-C, where there is more to say than that."""


def progress(batches: Iterable[T], description: str, total: int | None, unit: str = "batches") -> Iterator[T]:
    """Show progress with the time left on standard error, if that is a terminal."""
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        for batch in batches:
            yield batch
            progress.advance(task)


def print_json(value: Any) -> None:
    """One JSON document on standard output, nothing else; NaN and infinity, which JSON lacks, as text."""
    value = json.loads(json.dumps(value), parse_constant=str)
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """A table no wider than the terminal; a first column that is too long loses its middle part last."""
    table = Table(title=escape(title) or None, title_justify="left")
    for index, name in enumerate(head):
        table.add_column(escape(name), overflow="fold", justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*map(escape, row))  # [brackets] in a tensor's name are no markup
    Console(highlight=False, emoji=False, width=None if out.is_terminal else _TABLE_WIDTH).print(table)


def say(text: str) -> None:
    """A line for people, on standard output."""
    out.print(text, markup=False)


def tell(text: str) -> None:
    """A line of progress, on standard error, if that is a terminal."""
    if err.is_terminal:
        err.print(text, markup=False)


def warn(text: str) -> None:
    """A warning, on standard error."""
    err.print("warning: ", style="yellow", end="")
    err.print(with_options(text), markup=False)


def fail(text: str) -> None:
    """An error, on standard error, as one line."""
    err.print("error: ", style="bold red", end="")
    err.print(" ".join(with_options(text).split()), markup=False)
