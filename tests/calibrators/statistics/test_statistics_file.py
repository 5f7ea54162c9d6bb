"""Statistics on disk: the same bytes for the same statistics, and damage is always detected."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from tests.calibrators.measured import measure
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.statistics.statistics_file import load_statistics, save_statistics
from trt_ptq.calibrators.table.calibration_table import derive_table
from trt_ptq.errors import OutputError, StatisticsError
from trt_ptq.provenance import DataFingerprint, ModelIdentity
from trt_ptq.types import Array


def example(batches: int = 1) -> Statistics:
    normal = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    return Statistics(
        model=ModelIdentity("g" * 64, "w" * 64),
        data=DataFingerprint(batches, "0" * 31 + "7"),
        tools=("onnxruntime 1.2", "trt_ptq 0.1"),
        tensors={
            "x": measure(np.tile(normal, batches)),
            "a name: with (spaces) ü": measure(np.array([-1e30, np.nan, 0, 5], np.float32)),
            "dead": measure(np.zeros(9, np.float32)),
        },
        shares_range={"view": "x", "a": "dead"},
    )


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A valid file."""
    path = tmp_path_factory.mktemp("statistics") / "s.safetensors"
    save_statistics(example(), path)
    return path.read_bytes()


def rewritten(content: bytes, header: Any = None, **changed: Array) -> bytes:
    """The file with another header or other arrays, as safetensors of its own."""
    size = int.from_bytes(content[:8], "little")
    text = json.loads(content[8 : 8 + size])["__metadata__"]["trt_ptq"]
    return save({**load(content), **changed}, {"trt_ptq": text if header is None else json.dumps(header)})


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    save_statistics(example(), tmp_path / "s")
    assert load_statistics(tmp_path / "s") == example()


def test_the_method_saves_the_same_bytes_at_a_path_of_any_type(tmp_path: Path) -> None:
    save_statistics(example(), tmp_path / "s")
    example().save(str(tmp_path / "t"))
    assert (tmp_path / "s").read_bytes() == (tmp_path / "t").read_bytes()
    assert load_statistics(str(tmp_path / "t")) == example()


def test_no_tensors_are_read_back_too(tmp_path: Path) -> None:
    empty = replace(example(), tensors={}, shares_range={})
    save_statistics(empty, tmp_path / "s")
    assert load_statistics(tmp_path / "s") == empty


def test_the_same_statistics_give_the_same_bytes(tmp_path: Path, content: bytes) -> None:
    statistics = example()
    reordered = replace(
        statistics,
        tools=tuple(reversed(statistics.tools)),
        tensors=dict(reversed(list(statistics.tensors.items()))),
        shares_range=dict(reversed(list(statistics.shares_range.items()))),
    )
    save_statistics(reordered, tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == content


def test_every_method_gives_the_same_table_before_and_after_saving(tmp_path: Path) -> None:
    save_statistics(example(), tmp_path / "s")
    loaded = load_statistics(tmp_path / "s")
    for method in METHODS.values():
        assert derive_table(loaded, method) == derive_table(example(), method)


def test_the_size_of_a_file_does_not_depend_on_the_number_of_samples(tmp_path: Path) -> None:
    save_statistics(example(batches=1), tmp_path / "few")
    save_statistics(example(batches=9), tmp_path / "many")
    assert (tmp_path / "few").stat().st_size == (tmp_path / "many").stat().st_size


def test_a_missing_file_is_named_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(StatisticsError, match=r"absent: no such statistics file; create it with `trt-ptq calibrate`"):
        load_statistics(tmp_path / "absent")


def test_a_folder_and_an_impossible_name_are_statistics_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / ("n" * 300)):
        with pytest.raises(StatisticsError):
            load_statistics(path)


def test_an_unwritable_path_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_statistics(example(), tmp_path / "file" / "s")


@pytest.mark.parametrize(
    "other",
    [
        b"",
        b"\x80\x04]q\x00.",
        b"TRT-8601-EntropyCalibration2\nx: 3c010a14\n",
        b"\xff" * 64,
        save({"x": np.zeros(3, np.float32)}),
        save({"x": np.zeros(3, np.float32)}, {"trt_ptq": '{"format": "trt_ptq statistics 2"}'}),
        save({"x": np.zeros(3, np.float32)}, {"trt_ptq": "[1]"}),
        save({"x": np.zeros(3, np.float32)}, {"trt_ptq": "not JSON"}),
        save({"x": np.zeros(3, np.float32)}, {"trt_ptq": "[" * 100_000}),
    ],
    ids=["empty", "pickle", "cache", "noise", "other", "version 2", "list", "no JSON", "deep JSON"],
)
def test_a_file_of_another_kind_is_one_line_that_names_it(tmp_path: Path, other: bytes) -> None:
    refuse(tmp_path / "other.safetensors", other)


def refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StatisticsError) as caught:
        load_statistics(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, content: bytes) -> None:
    header = int.from_bytes(content[:8], "little") + 8
    for size in [*range(0, header, 37), *range(header, len(content), 4001), len(content) - 1]:
        refuse(tmp_path / "cut", content[:size])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.data())
def test_any_flipped_bit_is_found(tmp_path: Path, content: bytes, data: st.DataObject) -> None:
    header = int.from_bytes(content[:8], "little") + 8
    position = data.draw(st.one_of(st.integers(0, header + 200), st.integers(0, len(content) - 1)))
    damaged = bytearray(content)
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    refuse(tmp_path / "damaged", bytes(damaged))


@pytest.mark.parametrize(
    "changed",
    [
        {"minimum": np.zeros(3, np.float64)},
        {"count": np.zeros(2, np.int64)},
        {"histogram": np.zeros((3, 4095), np.int64)},
        {"exponent": np.full(3, 5, np.int32)},
        {"digest": np.zeros(16, np.uint8)},
    ],
    ids=lambda changed: str(next(iter(changed))),
)
def test_arrays_that_do_not_belong_to_the_header_are_refused(
    tmp_path: Path, content: bytes, changed: dict[str, Array]
) -> None:
    refuse(tmp_path / "edited", rewritten(content, **changed))


def test_an_edited_header_is_refused(tmp_path: Path, content: bytes) -> None:
    size = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["trt_ptq"])
    header["model"]["graph"] = "h" * 64
    refuse(tmp_path / "edited", rewritten(content, header))


def test_statistics_of_1000_tensors_open_in_under_a_second(tmp_path: Path) -> None:
    tensor = measure(np.random.default_rng(0).standard_normal(5000).astype(np.float32))
    save_statistics(replace(example(), tensors={f"t{i}": tensor for i in range(1000)}), tmp_path / "s")
    started = time.perf_counter()
    assert len(load_statistics(tmp_path / "s").tensors) == 1000
    assert time.perf_counter() - started < 1
