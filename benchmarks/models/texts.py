"""Short lines of English-looking text: words, names, prices, dates, codes and addresses."""

from __future__ import annotations

import random
import zlib
from functools import cache
from typing import Literal

Split = Literal["calibration", "validation", "test"]

_WORDS = """
able account after again annual answer around autumn balance basket before better between bright broken
business camera candle careful castle change clever coffee common company corner country current daily
danger delivery different discount early engine evening every express family figure final flight forest
former garden general gentle golden ground harbour health heavy history holiday hundred important island
journey kitchen language large letter library light limited little machine market matter meeting middle
minute modern morning mountain museum music natural network never night north number object office often
open orange order other oxygen paper parcel people perfect picture planet please pocket policy price private
problem public quality quarter question quick quiet railway ready receipt record regular report return river
road safety sample school season second secret service seven ship silver simple single sister small south
special spring square station storm street strong student summer sunday supply surface system table ticket
today tower traffic travel under unique until valley various village visit walk warm water weekly welcome
window winter wonder world yellow young zebra
""".split()
_CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_KEPT_FROM_VALIDATION = 8192
_DOMAINS = ("mail.com", "post.net", "shop.org", "city.edu", "work.io")


def line_texts(split: Split, count: int) -> list[str]:
    """`count` different lines, always the same ones; no line is in two splits.

    That holds for calibration and test whatever their counts, and for validation up to 8192 lines of those two.
    """
    rng = random.Random(f"trt-ptq {split}")
    taken = _first_of_the_others() if split == "validation" else frozenset()
    found: dict[str, None] = {}
    while len(found) < count:
        text = rng.choice(_KINDS)(rng)
        if text not in taken and (split == "validation" or _half(text) == split):
            found[text] = None
    return list(found)


def _half(text: str) -> Split:
    return "test" if zlib.crc32(text.encode()) % 2 else "calibration"


@cache
def _first_of_the_others() -> frozenset[str]:
    return frozenset(line_texts("calibration", _KEPT_FROM_VALIDATION) + line_texts("test", _KEPT_FROM_VALIDATION))


def _phrase(rng: random.Random) -> str:
    words = rng.choices(_WORDS, k=rng.randint(1, 5))
    style = rng.choice((str.capitalize, str.lower, str.title, str.upper))
    separator = rng.choice((" ", " ", " ", ", ", "-"))
    return style(separator.join(words)) + rng.choice(("", "", ".", "!", "?", ":"))


def _price(rng: random.Random) -> str:
    amount = f"{rng.randint(1, 9999):,}.{rng.randint(0, 99):02d}"
    return f"{rng.choice(_WORDS).capitalize()} ${amount}"


def _date(rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1950, 2030)
    time = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    iso = f"{year}-{month:02d}-{day:02d} {time}"
    return rng.choice((iso, f"{day:02d}/{month:02d}/{year}", f"{day}.{month}.{year}"))


def _email(rng: random.Random) -> str:
    first, second = rng.sample(_WORDS, 2)
    return f"{first}.{second}{rng.randint(1, 99)}@{rng.choice(_DOMAINS)}"


def _address(rng: random.Random) -> str:
    street = f"{rng.choice(_WORDS).capitalize()} {rng.choice(('Road', 'Street', 'Lane'))}"
    return f"{rng.randint(1, 250)} {street}, {rng.randint(10000, 99999)}"


def _code(rng: random.Random) -> str:
    kind = rng.choice(("No.", "Ref:", "Order", "Lot"))
    letters = "".join(rng.choices(_CODE_LETTERS, k=rng.randint(2, 4)))
    return f"{kind} {letters}-{rng.randint(100, 99999)}/{rng.randint(1, 99)}"


def _share(rng: random.Random) -> str:
    return f"{rng.choice(_WORDS)} (+{rng.randint(0, 99)}.{rng.randint(0, 9)}) {rng.randint(1, 500)}%"


_KINDS = (_phrase, _phrase, _phrase, _price, _date, _email, _address, _code, _share)
