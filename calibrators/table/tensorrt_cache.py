"""TensorRT's calibration cache, a text file that is read and written byte for byte.

    TRT-101601-EntropyCalibration2
    input: 3c010a14

Each line is `name: hhhhhhhh`, where the hex digits are the big-endian IEEE float32 of the scale (amax / 127). Names
may contain spaces and colons, so a line is split at its last ": ".
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from trt_ptq.calibrators.table.calibration_table import INT8_MAX, CalibrationTable
from trt_ptq.errors import TableError

Algorithm = Literal["EntropyCalibration2", "MinMaxCalibration", "EntropyCalibration", "LegacyCalibration"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)
_HEADER = re.compile(r"TRT-(\d{1,9})-(\w+)")
_ANY_VERSION = re.compile(r"TRT-\w{1,9}-(\w+)")  # TRT-8XXX-EntropyCalibration2, as some published caches have it
_HEX = re.compile(r"[0-9a-fA-F]{8}")


@dataclass(frozen=True, order=True)
class TensorRTVersion:
    """A TensorRT version as a cache header writes it."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> TensorRTVersion:
        """Parse a version such as "10.16.1"; a fourth number is ignored.

        Raises:
            TableError: Not three numbers, a version that a cache header cannot represent, or one that reads no cache.
        """
        match = re.fullmatch(r"(\d+)\.(\d{1,2})\.(\d{1,2})(\.\d+)?", text)
        if not match:
            raise TableError(f"{text!r} is not a TensorRT version such as 10.16.1 or 8.6.1")
        version = cls(int(match[1]), int(match[2]), int(match[3]))
        if cls.from_number(version.number) != version:
            raise TableError(f"{text!r} is not a TensorRT version: a cache header cannot represent it")
        if version.major > LAST_WITH_CALIBRATORS.major:
            raise TableError(
                f"TensorRT {version.major} has no calibrators and reads no cache: create a Q/DQ model from the table "
                "(trt-ptq qdq MODEL --table TABLE)"
            )
        return version

    @classmethod
    def from_number(cls, number: int) -> TensorRTVersion:
        """Decode 101601 (major * 10000 + ..., since TensorRT 10) or 8601 (major * 1000 + ..., before)."""
        unit = 10_000 if number >= 100_000 else 1_000
        return cls(number // unit, number % unit // 100, number % 100)

    @property
    def number(self) -> int:
        """The version as the header encodes it."""
        return self.major * (10_000 if self.major >= 10 else 1_000) + self.minor * 100 + self.patch

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


LAST_WITH_CALIBRATORS = TensorRTVersion(10, 16, 1)


def parse_header(text: str) -> tuple[TensorRTVersion, str]:
    """Split a cache header, such as "TRT-101601-EntropyCalibration2", into version and algorithm.

    Raises:
        TableError: Not such a header.
    """
    match = _HEADER.fullmatch(text)
    if not match or str(int(match[1])) != match[1]:
        raise TableError(f"expected a header such as TRT-101601-EntropyCalibration2, got {text[:60]!r}")
    version = TensorRTVersion.from_number(int(match[1]))
    if version.number != int(match[1]):
        raise TableError(f"version number {match[1]} is not one that TensorRT writes")
    return version, match[2]


@dataclass(frozen=True)
class TensorRTCache:
    """The content of a cache file.

    Attributes:
        version: TensorRT version in the header.
        algorithm: Calibration algorithm in the header.
        entries: (tensor name, eight hex digits of its scale), in file order.
        newline: Line ending, LF or CRLF.
        ending: Line endings after the last line.
    """

    version: TensorRTVersion
    algorithm: str
    entries: tuple[tuple[str, str], ...]
    newline: str = "\n"
    ending: str = "\n"

    @property
    def header(self) -> str:
        """The first line."""
        return f"TRT-{self.version.number}-{self.algorithm}"

    def scales(self) -> dict[str, float]:
        """Scale by tensor name; the last one if a name occurs twice."""
        return {name: struct.unpack(">f", bytes.fromhex(digits))[0] for name, digits in self.entries}

    def to_bytes(self) -> bytes:
        """The content of the file."""
        lines = [self.header, *(f"{name}: {digits}" for name, digits in self.entries)]
        return (self.newline.join(lines) + self.ending).encode()

    def to_table(self) -> CalibrationTable:
        """Return the ranges and the header as a table. It is exact: amax = 127 * scale fits a Python float.

        Entries with a zero, denormal, infinite or NaN scale (some published caches have them) are listed in
        `tensors_without_range`.

        Raises:
            TableError: A tensor has two different scales.
        """
        last = dict(self.entries)
        for name, digits in self.entries:
            if digits.lower() != last[name].lower():
                raise TableError(
                    f"tensor {name!r} has two scales, {digits} and {last[name]}: TensorRT does not document which one "
                    "it uses; remove one of the two lines"
                )
        return CalibrationTable.from_ranges(
            {name: scale * INT8_MAX for name, scale in self.scales().items()}, tensorrt_header=self.header
        )

    @classmethod
    def from_table(
        cls,
        table: CalibrationTable,
        version: TensorRTVersion | None = None,
        algorithm: str | None = None,
    ) -> TensorRTCache:
        """Create a cache that TensorRT of that version, with a calibrator of that algorithm, accepts.

        Args:
            table: The ranges.
            version: Default: the version in the header that the table was read with, else the last version that has
                calibrators.
            algorithm: One of `ALGORITHMS`. Default: the algorithm in the header that the table was read with, else
                MinMaxCalibration for tables of method "minmax" and EntropyCalibration2 for all others.

        Raises:
            TableError: A tensor name that the format cannot hold, or an unknown `algorithm`.
        """
        if algorithm is not None and algorithm not in ALGORITHMS:
            raise TableError(f"unknown algorithm {algorithm!r}: choose one of {', '.join(ALGORITHMS)}")
        for name in table.amax:
            if not name or "\n" in name or "\r" in name:
                raise TableError(
                    f"tensor name {name!r} is empty or contains a line break, which a TensorRT cache cannot hold"
                )
        source_version, source_algorithm = _source_header(table)
        return cls(
            version or source_version,
            algorithm or source_algorithm,
            tuple((name, struct.pack(">f", table.scale(name)).hex()) for name in table.amax),
        )

    @classmethod
    def parse(cls, content: bytes, where: str, version: TensorRTVersion | None = None) -> TensorRTCache:
        """Parse the content of a cache file.

        Args:
            content: The bytes of the file.
            where: Names the file in messages.
            version: Replaces the version in the header, which may then be a placeholder, such as 8XXX.

        Raises:
            TableError: Not a cache; with the line number.
        """
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            bad_line = content[: error.start].count(b"\n") + 1
            raise TableError(f"{where}, line {bad_line}: not UTF-8 text, so not a TensorRT calibration cache") from None
        newline = "\r\n" if text.partition("\n")[0].endswith("\r") else "\n"
        body = text.rstrip("\r\n")
        lines = body.split(newline)
        placeholder = _ANY_VERSION.fullmatch(lines[0])
        try:
            if version is not None and placeholder:
                algorithm = placeholder[1]
            else:
                version, algorithm = parse_header(lines[0])
        except TableError as error:
            remedy = ": set its version with `trt-ptq cache retarget --trt-version`" if placeholder else ""
            raise TableError(f"{where}, line 1: {error}{remedy}") from None
        entries = []
        for number, line in enumerate(lines[1:], start=2):
            name, separator, digits = line.rpartition(": ")
            if not separator or not name or not _HEX.fullmatch(digits) or "\n" in line or "\r" in line:
                raise TableError(
                    f"{where}, line {number}: expected 'tensor name: 8 hex digits' and one kind of line ending, "
                    f"got {line[:60]!r}"
                )
            entries.append((name, digits))
        return cls(version, algorithm, tuple(entries), newline, text[len(body) :])

    @classmethod
    def read(cls, path: Path, version: TensorRTVersion | None = None) -> TensorRTCache:
        """Read the cache file `path`; for `version` see `parse`.

        Raises:
            TableError: The file does not exist or is not a cache; with the line number.
        """
        try:
            return cls.parse(path.read_bytes(), str(path), version)
        except OSError as error:
            raise TableError(f"cannot read calibration cache {path}: {error.strerror}") from error


def _source_header(table: CalibrationTable) -> tuple[TensorRTVersion, str]:
    if table.tensorrt_header is not None:
        return parse_header(table.tensorrt_header)
    is_minmax = table.provenance is not None and table.provenance.method == "minmax"
    return LAST_WITH_CALIBRATORS, "MinMaxCalibration" if is_minmax else "EntropyCalibration2"
