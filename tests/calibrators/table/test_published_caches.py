"""Caches that TensorRT wrote and their authors published: read, and written back byte for byte."""

from __future__ import annotations

import csv
import hashlib
import math
from pathlib import Path

import pytest

from trt_ptq.calibrators.table.cache_lint import lint_cache
from trt_ptq.calibrators.table.tensorrt_cache import TensorRTCache

FOLDER = Path(__file__).parents[2] / "files" / "caches"
MANIFEST = list(csv.DictReader((FOLDER / "manifest.tsv").read_text().splitlines(), delimiter="\t"))

published = pytest.mark.parametrize("row", MANIFEST, ids=lambda row: row["file"])


def test_every_file_is_in_the_manifest() -> None:
    assert len(MANIFEST) == 8
    assert {row["file"] for row in MANIFEST} == {file.name for file in FOLDER.glob("*.cache")}


@published
def test_the_file_is_the_one_that_was_published(row: dict[str, str]) -> None:
    assert hashlib.sha256((FOLDER / row["file"]).read_bytes()).hexdigest().startswith(row["sha256_16"])


@published
def test_is_written_back_byte_for_byte(row: dict[str, str]) -> None:
    content = (FOLDER / row["file"]).read_bytes()
    cache = TensorRTCache.parse(content, row["file"])
    assert cache.to_bytes() == content
    assert cache.header == row["header"]
    assert len(cache.entries) == int(row["entries"])


@published
def test_survives_with_crlf_line_ends(row: dict[str, str]) -> None:
    unix = (FOLDER / row["file"]).read_bytes()
    windows = unix.replace(b"\n", b"\r\n")
    cache = TensorRTCache.parse(windows, row["file"])
    assert cache.to_bytes() == windows
    assert cache.entries == TensorRTCache.parse(unix, row["file"]).entries
    assert "line-ending" in {finding.rule for finding in lint_cache(cache)}


@published
def test_every_usable_scale_survives_the_way_through_a_table(row: dict[str, str]) -> None:
    cache = TensorRTCache.read(FOLDER / row["file"])
    table = cache.to_table()
    again = TensorRTCache.from_table(table, cache.version, cache.algorithm)
    assert again.entries == tuple(entry for entry in cache.entries if entry[0] not in table.tensors_without_range)
    assert set(table.tensors_without_range) == {
        name for name, scale in cache.scales().items() if not (math.isfinite(scale) and scale >= 2**-126)
    }


def test_infinite_scales_of_the_gnmt_cache_are_reported_and_get_no_range() -> None:
    cache = TensorRTCache.read(FOLDER / "mlperf05_gnmt_minmax_trt6001.cache")
    infinite = [name for name, digits in cache.entries if digits == "7f800000"]
    assert len(infinite) == 3
    assert cache.to_table().tensors_without_range == tuple(sorted(infinite))
    assert {finding.subject for finding in lint_cache(cache) if finding.rule == "scale"} == set(infinite)


def test_a_published_scale_is_amax_over_127() -> None:
    cache = TensorRTCache.read(FOLDER / "tao_detectnet_v2.cache")
    assert cache.entries[0] == ("input_1", "3c010a14")
    assert cache.to_table().amax["input_1"] == pytest.approx(2048.5 / 2048, rel=1e-7)
