"""TensorRT's calibration cache: a text file, read and written byte for byte.

    TRT-101601-EntropyCalibration2
    input: 3c010a14

One `name: hhhhhhhh` a line, the hex being the big-endian IEEE float32 of the scale (amax / 127). Names may hold
spaces and colons, so a line is split at its last ": ".
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from trt_ptq.calibrators.table.calibration_table import INT8_MAX, CalibrationTable
from trt_ptq.errors import TableError

ALGORITHMS = ("EntropyCalibration2", "MinMaxCalibration", "EntropyCalibration", "LegacyCalibration")
_HEADER = re.compile(r"TRT-(\d{1,9})-(\w+)")
_HEX = re.compile(r"[0-9a-fA-F]{8}")


@dataclass(frozen=True, order=True)
class TensorRTVersion:
    """A TensorRT version as a cache header writes it."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> TensorRTVersion:
        """From "10.16.1" (a fourth number is ignored).

        Raises:
            TableError: not three numbers, or numbers that a header cannot tell from another version's.
        """
        match = re.fullmatch(r"(\d+)\.(\d{1,2})\.(\d{1,2})(\.\d+)?", text)
        if not match:
            raise TableError(f"{text!r} is not a TensorRT version such as 10.16.1 or 8.6.1")
        version = cls(int(match[1]), int(match[2]), int(match[3]))
        if cls.from_number(version.number) != version:
            raise TableError(f"{text!r} is not a TensorRT version: a cache header would read {version.number}")
        return version

    @classmethod
    def from_number(cls, number: int) -> TensorRTVersion:
        """From 101601 (major * 10000 + ..., since TensorRT 10) or 8601 (major * 1000 + ..., before)."""
        unit = 10_000 if number >= 100_000 else 1_000
        return cls(number // unit, number % unit // 100, number % 100)

    @property
    def number(self) -> int:
        """As the header has it."""
        return self.major * (10_000 if self.major >= 10 else 1_000) + self.minor * 100 + self.patch

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


LAST_WITH_CALIBRATORS = TensorRTVersion(10, 16, 1)


@dataclass(frozen=True)
class TensorRTCache:
    """A cache file: header, entries in file order as (name, eight hex digits), line ending, blank lines at the end."""

    version: TensorRTVersion
    algorithm: str
    entries: tuple[tuple[str, str], ...]
    newline: str = "\n"
    ending: str = "\n"

    @property
    def header(self) -> str:
        return f"TRT-{self.version.number}-{self.algorithm}"

    def scales(self) -> dict[str, float]:
        """Scale by tensor name; a name that comes twice keeps its last scale."""
        return {name: struct.unpack(">f", bytes.fromhex(digits))[0] for name, digits in self.entries}

    def to_bytes(self) -> bytes:
        """The file's content."""
        lines = [self.header, *(f"{name}: {digits}" for name, digits in self.entries)]
        return (self.newline.join(lines) + self.ending).encode()

    def to_table(self) -> CalibrationTable:
        """The ranges alone; exact, since amax = 127 * scale fits a Python float.

        Entries with a zero, denormal, infinite or NaN scale (published caches have some) go to `tensors_without_range`.

        Raises:
            TableError: a tensor with two different scales.
        """
        kept = dict(self.entries)
        for name, digits in self.entries:
            if digits.lower() != kept[name].lower():
                raise TableError(
                    f"tensor {name!r} has two scales, {digits} and {kept[name]}: which one TensorRT takes is not "
                    "documented; keep one line of it"
                )
        return CalibrationTable.from_ranges({name: scale * INT8_MAX for name, scale in self.scales().items()})

    @classmethod
    def from_table(
        cls,
        table: CalibrationTable,
        version: TensorRTVersion = LAST_WITH_CALIBRATORS,
        algorithm: str = ALGORITHMS[0],
    ) -> TensorRTCache:
        """A cache that the TensorRT of that version and a calibrator of that algorithm accept.

        Raises:
            TableError: a tensor name that the format cannot hold, or an unknown algorithm.
        """
        if algorithm not in ALGORITHMS:
            raise TableError(f"unknown algorithm {algorithm!r}: choose one of {', '.join(ALGORITHMS)}")
        for name in table.amax:
            if not name or "\n" in name or "\r" in name:
                raise TableError(
                    f"tensor {name!r} has no name or a line break in it, which a TensorRT cache cannot hold"
                )
        return cls(
            version,
            algorithm,
            tuple((name, struct.pack(">f", table.scale(name)).hex()) for name in table.amax),
        )

    @classmethod
    def parse(cls, content: bytes, where: str) -> TensorRTCache:
        """Read a cache; `where` names it in messages.

        Raises:
            TableError: with the line number of what is wrong.
        """
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            bad_line = content[: error.start].count(b"\n") + 1
            raise TableError(
                f"{where}, line {bad_line}: not text (UTF-8), so not a TensorRT calibration cache"
            ) from None
        newline = "\r\n" if text.partition("\n")[0].endswith("\r") else "\n"
        body = text.rstrip("\r\n")
        lines = body.split(newline)
        header = _HEADER.fullmatch(lines[0])
        if not header or str(int(header[1])) != header[1]:
            raise TableError(
                f"{where}, line 1: expected a header such as TRT-101601-EntropyCalibration2, got {lines[0][:60]!r}"
            )
        entries = []
        for number, line in enumerate(lines[1:], start=2):
            name, separator, digits = line.rpartition(": ")
            if not separator or not name or not _HEX.fullmatch(digits) or "\n" in line or "\r" in line:
                raise TableError(
                    f"{where}, line {number}: expected 'tensor name: 8 hex digits' and one kind of line ending, "
                    f"got {line[:60]!r}"
                )
            entries.append((name, digits))
        cache = cls(TensorRTVersion.from_number(int(header[1])), header[2], tuple(entries), newline, text[len(body) :])
        if cache.to_bytes() != content:
            raise TableError(f"{where}, line 1: version number {header[1]} is not one that TensorRT writes")
        return cache

    @classmethod
    def read(cls, path: Path) -> TensorRTCache:
        """Read the cache file `path`.

        Raises:
            TableError: no such file, or not a cache; with the line number.
        """
        try:
            return cls.parse(path.read_bytes(), str(path))
        except OSError as error:
            raise TableError(f"cannot read calibration cache {path}: {error.strerror}") from error
