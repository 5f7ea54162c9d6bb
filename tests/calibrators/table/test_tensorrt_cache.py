"""TensorRT's cache text: what is accepted, what is written, and where an error is."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.tensorrt_cache import ALGORITHMS, TensorRTCache, TensorRTVersion
from trt_ptq.errors import TableError

HEADER = "TRT-101601-EntropyCalibration2"

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), min_size=1, max_size=20)
scales = st.integers(0x00800000, 0x7F7FFFFF).map(lambda bits: struct.unpack(">f", bits.to_bytes(4, "big"))[0])


def parse(text: str | bytes) -> TensorRTCache:
    return TensorRTCache.parse(text if isinstance(text, bytes) else text.encode(), "some.cache")


@given(
    st.dictionaries(names, scales, max_size=8),
    st.sampled_from(ALGORITHMS),
    st.builds(TensorRTVersion, st.integers(10, 99), st.integers(0, 99), st.integers(0, 99)),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\n", "\r\n", "\n\n\n", "\r\n\r\n"]),
)
def test_anything_written_is_read_back_the_same(
    amax: dict[str, float], algorithm: str, version: TensorRTVersion, newline: str, ending: str
) -> None:
    table = CalibrationTable({name: scale * 127 for name, scale in amax.items()})
    cache = replace(TensorRTCache.from_table(table, version, algorithm), newline=newline)
    if amax:  # a file of one line has no newline but its ending
        cache = replace(cache, ending=ending)
    assert parse(cache.to_bytes()).to_bytes() == cache.to_bytes()
    assert parse(cache.to_bytes()).entries == cache.entries
    assert parse(cache.to_bytes()).to_table() == replace(table, tensorrt_header=cache.header)


@given(scales)
def test_a_scale_survives_bit_for_bit(scale: float) -> None:
    digits = struct.pack(">f", scale).hex()
    table = parse(f"{HEADER}\nx: {digits}\n").to_table()
    assert table.scale("x") == np.float32(scale)
    assert TensorRTCache.from_table(table).entries == (("x", digits),)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_back_or_refused_in_one_line(content: bytes) -> None:
    check_read_or_refused(content)


@given(st.data())
def test_any_damage_to_a_cache_is_read_back_or_refused_in_one_line(data: st.DataObject) -> None:
    content = bytearray(f"{HEADER}\ninput: 3c010a14\nconv (1): 3caa54fc\n".encode())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    check_read_or_refused(bytes(content))


def check_read_or_refused(content: bytes) -> None:
    refused = ""
    try:
        written = parse(content).to_bytes()
    except TableError as error:
        refused = str(error)
        written = content
    assert written == content
    assert not refused or (refused.startswith("some.cache, line ") and "\n" not in refused)


@pytest.mark.parametrize(
    "name",
    [
        "input_tensor:0",
        "a: b: c",
        "(Unnamed Layer* 22) [Convolution]_output",
        " lead and trail ",
        "/conv/ü",
        "x: 00000000",
    ],
)
def test_names_may_hold_spaces_colons_and_brackets(name: str) -> None:
    assert parse(f"{HEADER}\n{name}: 3c010a14\n").entries == ((name, "3c010a14"),)


def test_upper_case_digits_are_kept() -> None:
    content = f"{HEADER}\nx: 3C010A14\n".encode()
    assert parse(content).to_bytes() == content


def test_a_placeholder_for_the_version_is_read_only_with_another_version() -> None:
    content = b"TRT-8XXX-EntropyCalibration2\nx: 3c010a14\n"
    cache = TensorRTCache.parse(content, "some.cache", TensorRTVersion(8, 6, 1))
    assert cache.to_bytes() == content.replace(b"8XXX", b"8601")
    with pytest.raises(TableError, match=r"line 1: .*`trt-ptq cache retarget --trt-version`"):
        parse(content)


def test_a_header_alone_is_a_cache_without_entries() -> None:
    for content in (HEADER, HEADER + "\n", HEADER + "\r\n"):
        assert parse(content).entries == ()
        assert parse(content).to_bytes() == content.encode()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("\n", 1),
        ("x: 3c010a14\n", 1),
        ("TRT-x-EntropyCalibration2\n", 1),
        ("TRT-08601-EntropyCalibration2\n", 1),
        (f"TRT-{'9' * 5000}-EntropyCalibration2\n", 1),
        ("TRT-٨٦٠١-EntropyCalibration2\n", 1),
        ("\ufeff" + HEADER + "\n", 1),
        (f"{HEADER}\nx: 3c010a14\nno hex\n", 3),
        (f"{HEADER}\nx: 3c010a1\n", 2),
        (f"{HEADER}\nx: 3c010a140\n", 2),
        (f"{HEADER}\nx:3c010a14\n", 2),
        (f"{HEADER}\n: 3c010a14\n", 2),
        (f"{HEADER}\nx: 3c010a14 \n", 2),
        (f"{HEADER}\nx: 3c010a14\n\ny: 3c010a14\n", 3),
        (f"{HEADER}\nx: 3c010a14\r\ny: 3c010a14\n", 2),
        (f"{HEADER}\r\nx: 3c010a14\ny: 3c010a14\r\n", 2),
        (f"{HEADER}\nx\ry: 3c010a14\n", 2),
    ],
)
def test_an_error_names_the_line(text: str, line: int) -> None:
    with pytest.raises(TableError, match=f"^some.cache, line {line}: ") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_name_the_line() -> None:
    with pytest.raises(TableError, match="line 2: not UTF-8 text"):
        parse(HEADER.encode() + b"\nx\xff: 3c010a14\n")


def test_a_missing_cache_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"cannot read calibration cache .*absent: No such file"):
        TensorRTCache.read(tmp_path / "absent")


@pytest.mark.parametrize(
    ("version", "number"),
    [("10.16.1", 101601), ("10.1.0", 100100), ("10.0.1", 100001), ("8.6.1", 8601), ("7.2.3", 7203), ("6.0.1", 6001)],
)
def test_version_numbers_of_the_header(version: str, number: int) -> None:
    assert TensorRTVersion.parse(version).number == number
    assert TensorRTVersion.from_number(number) == TensorRTVersion.parse(version)
    assert str(TensorRTVersion.from_number(number)) == version


def test_a_fourth_number_of_a_version_is_ignored() -> None:
    assert TensorRTVersion.parse("10.16.1.11") == TensorRTVersion(10, 16, 1)


@pytest.mark.parametrize("text", ["", "10", "10.16", "10.16.x", "v10.16.1", "10.100.1", "8.16.1", "10.16.1 "])
def test_another_form_of_version_is_refused(text: str) -> None:
    with pytest.raises(TableError, match="is not a TensorRT version"):
        TensorRTVersion.parse(text)


def test_retargeting_changes_the_header_only() -> None:
    old = parse("TRT-8601-EntropyCalibration2\nx: 3c010a14\n")
    new = replace(old, version=TensorRTVersion.parse("10.16.1"), algorithm="MinMaxCalibration")
    assert new.to_bytes() == b"TRT-101601-MinMaxCalibration\nx: 3c010a14\n"
    back = replace(new, version=TensorRTVersion.parse("8.6.1"), algorithm="EntropyCalibration2")
    assert back.to_bytes() == old.to_bytes()


def test_a_table_keeps_the_header_of_its_cache() -> None:
    table = parse("TRT-8601-MinMaxCalibration\nx: 3c010a14\n").to_table()
    assert TensorRTCache.from_table(table).header == "TRT-8601-MinMaxCalibration"
    assert TensorRTCache.from_table(table, TensorRTVersion(10, 3, 0)).header == "TRT-100300-MinMaxCalibration"
    assert TensorRTCache.from_table(table, algorithm="LegacyCalibration").header == "TRT-8601-LegacyCalibration"


def test_a_table_without_a_header_gets_the_last_version_with_calibrators() -> None:
    assert TensorRTCache.from_table(CalibrationTable({"x": 1.0})).header == HEADER


def test_an_unknown_algorithm_is_not_written() -> None:
    with pytest.raises(TableError, match="unknown algorithm 'Kl': choose one of EntropyCalibration2"):
        TensorRTCache.from_table(CalibrationTable({}), algorithm="Kl")


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb"])
def test_a_name_that_a_line_cannot_hold_is_not_written(name: str) -> None:
    with pytest.raises(TableError, match="cannot hold"):
        TensorRTCache.from_table(CalibrationTable({name: 1.0}))


@pytest.mark.parametrize(
    "digits", ["00000000", "80000000", "00000001", "007fffff", "7f800000", "ff800000", "7fc00000", "bc010a14"]
)
def test_an_unusable_scale_leaves_the_tensor_without_a_range(digits: str) -> None:
    table = parse(f"{HEADER}\nx: {digits}\ny: 3c010a14\n").to_table()
    assert table.tensors_without_range == ("x",)
    assert list(table.amax) == ["y"]


def test_two_scales_of_one_tensor_are_refused() -> None:
    with pytest.raises(TableError, match="'x' has two scales, 3c010a14 and 3caa54fc"):
        parse(f"{HEADER}\nx: 3c010a14\nx: 3caa54fc\n").to_table()


def test_the_same_scale_twice_is_one_range() -> None:
    assert len(parse(f"{HEADER}\nx: 3c010a14\nx: 3C010A14\n").to_table().amax) == 1


def test_a_version_that_reads_no_cache_is_refused() -> None:
    with pytest.raises(TableError, match=r"TensorRT 11 has no calibrators and reads no cache: create a Q/DQ model"):
        TensorRTVersion.parse("11.2.0")
