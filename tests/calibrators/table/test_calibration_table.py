"""A CalibrationTable: derived from Statistics, tied to its model, kept as JSON or as a cache."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.calibrators.measured import measure
from trt_ptq.calibrators.methods import METHODS, MinMax, Percentile
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, derive_table
from trt_ptq.calibrators.table.diff import diff_tables
from trt_ptq.calibrators.table.table_file import load_table, save_table
from trt_ptq.calibrators.table.tensorrt_cache import TensorRTVersion
from trt_ptq.errors import OutputError, TableError, UsageError
from trt_ptq.provenance import DataFingerprint, ModelIdentity

MODEL = ModelIdentity("graph", "weights")


@pytest.fixture
def statistics() -> Statistics:
    normal = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    return Statistics(
        model=MODEL,
        data=DataFingerprint(8, "0" * 31 + "7"),
        tools=("onnxruntime 1", "trt_ptq 1"),
        tensors={"y: ü": measure(normal), "a": measure(np.array([-2, 1], np.float32)), "dead": measure(np.zeros(3))},
        shares_range={"view": "a", "dead view": "dead"},
    )


def test_statistics_are_told_from_a_table(tmp_path: Path, statistics: Statistics) -> None:
    statistics.save(tmp_path / "stats.safetensors")
    with pytest.raises(TableError, match=r"statistics, not a table: make one by `trt-ptq table .*stats\.safetensors"):
        load_table(tmp_path / "stats.safetensors")


def test_minmax_ranges_are_the_measured_ones(statistics: Statistics) -> None:
    table = derive_table(statistics, MinMax())
    assert table.amax == {"a": 2.0, "view": 2.0, "y: ü": statistics.tensors["y: ü"].amax}
    assert list(table.amax) == sorted(table.amax)


def test_dead_tensors_and_those_that_share_their_range_have_none(statistics: Statistics) -> None:
    for method in METHODS.values():
        assert derive_table(statistics, method).tensors_without_range == ("dead", "dead view")


def test_a_range_whose_scale_would_be_denormal_is_none(statistics: Statistics) -> None:
    tiny = replace(statistics, tensors={"t": measure(np.array([1e-37], np.float32))}, shares_range={})
    for method in METHODS.values():
        assert derive_table(tiny, method).tensors_without_range == ("t",)


def test_the_largest_float32_has_a_range(statistics: Statistics) -> None:
    huge = replace(statistics, tensors={"t": measure(np.array([3.4e38, 1], np.float32))}, shares_range={})
    for method in METHODS.values():
        assert np.isfinite(derive_table(huge, method).scale("t"))


def test_the_scale_is_amax_over_127_in_float32() -> None:
    assert CalibrationTable({"x": 1.0}).scale("x") == np.float32(1 / 127)
    assert CalibrationTable({"x": 1.0}).scale("x").dtype == np.float32


@pytest.mark.parametrize("amax", [0.0, -1.0, 1e-37, float("inf"), float("nan"), 1e300])
def test_a_table_never_holds_an_unusable_range(amax: float) -> None:
    with pytest.raises(TableError, match="'x'"):
        CalibrationTable({"x": amax})


def test_another_model_is_refused_with_what_differs(statistics: Statistics) -> None:
    table = derive_table(statistics, MinMax())
    table.check_model(MODEL, "t.json")
    with pytest.raises(TableError, match=r"^t\.json: made for another model: .* weights differ"):
        table.check_model(ModelIdentity("graph", "other"), "t.json")
    with pytest.raises(TableError, match="graph differs"):
        table.check_model(ModelIdentity("other", "weights"), "t.json")
    with pytest.raises(TableError, match="both graph and weights differ"):
        table.check_model(ModelIdentity("other", "other"), "t.json")


def test_a_table_without_provenance_passes_for_any_model() -> None:
    CalibrationTable({"x": 1.0}).check_model(MODEL, "t.cache")


def test_a_table_shows_how_many_ranges_of_what_it_has(statistics: Statistics) -> None:
    table = statistics.table("minmax")
    assert repr(table) == f"CalibrationTable({len(table.amax)} ranges, method minmax)"
    assert repr(CalibrationTable({"x": 1.0})) == "CalibrationTable(1 range)"


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_json_keeps_everything(tmp_path: Path, statistics: Statistics, method: Any) -> None:
    table = derive_table(statistics, method)
    save_table(table, tmp_path / "t.json")
    assert load_table(tmp_path / "t.json") == table


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_cache_keeps_every_scale(tmp_path: Path, statistics: Statistics, method: Any) -> None:
    table = derive_table(statistics, method)
    save_table(table, tmp_path / "t.cache")
    assert diff_tables(load_table(tmp_path / "t.cache"), table).identical


def test_the_header_is_of_the_version_and_method_asked_for(tmp_path: Path, statistics: Statistics) -> None:
    save_table(derive_table(statistics, MinMax()), tmp_path / "m", TensorRTVersion(8, 6, 1))
    assert (tmp_path / "m").read_text().splitlines()[0] == "TRT-8601-MinMaxCalibration"
    save_table(derive_table(statistics, Percentile()), tmp_path / "p")
    assert (tmp_path / "p").read_text().splitlines()[0] == "TRT-101601-EntropyCalibration2"


def test_a_cache_comes_back_byte_for_byte_through_json(tmp_path: Path) -> None:
    (tmp_path / "a.cache").write_text("TRT-8601-MinMaxCalibration\ny: 3c010a14\nx: 3d010a14\n")
    load_table(tmp_path / "a.cache").save(tmp_path / "a.json")
    load_table(str(tmp_path / "a.json")).save(str(tmp_path / "b.cache"))
    assert (tmp_path / "b.cache").read_bytes() == (tmp_path / "a.cache").read_bytes()


def test_saving_for_another_version_keeps_the_algorithm(tmp_path: Path) -> None:
    (tmp_path / "a.cache").write_text("TRT-8601-LegacyCalibration\ny: 3c010a14\n")
    load_table(tmp_path / "a.cache").save(tmp_path / "b.cache", tensorrt_version="10.3.0")
    assert (tmp_path / "b.cache").read_text().splitlines()[0] == "TRT-100300-LegacyCalibration"


def test_the_json_of_a_derived_table_names_no_header(tmp_path: Path, statistics: Statistics) -> None:
    statistics.table().save(tmp_path / "t.json")
    assert "tensorrt_header" not in json.loads((tmp_path / "t.json").read_text())


def test_statistics_give_a_table_by_the_name_of_a_method(statistics: Statistics) -> None:
    assert statistics.table() == derive_table(statistics, Percentile())
    assert statistics.table("minmax") == derive_table(statistics, MinMax())
    assert statistics.table("percentile", 99) == derive_table(statistics, Percentile(99))
    with pytest.raises(UsageError, match="unknown method 'max'"):
        statistics.table("max")


@pytest.mark.parametrize("name", ["t.json", "t.cache"])
def test_an_unwritable_path_is_an_output_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        save_table(CalibrationTable({"x": 1.0}), tmp_path / "file" / name)


VALID: dict[str, Any] = {
    "format": "trt_ptq calibration table 1",
    "provenance": None,
    "tensors_without_range": [],
    "amax": {"x": 1.0},
}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"{}",
        json.dumps({**VALID, "format": "trt_ptq calibration table 2"}).encode(),
        json.dumps({**VALID, "amax": {"x": "1"}}).encode(),
        json.dumps({**VALID, "amax": {"x": True}}).encode(),
        json.dumps({**VALID, "amax": {"x": None}}).encode(),
        json.dumps({**VALID, "amax": [1]}).encode(),
        json.dumps({**VALID, "amax": {"x": 0}}).encode(),
        json.dumps({**VALID, "amax": {"x": float("nan")}}).encode(),
        json.dumps({**VALID, "amax": {"x": 10**400}}).encode(),
        json.dumps({**VALID, "amax": {"x\ud800": 1}}).encode(),
        json.dumps({**VALID, "provenance": {"model": 1}}).encode(),
        json.dumps({**VALID, "tensors_without_range": None}).encode(),
        json.dumps({**VALID, "tensorrt_header": "TRT-8601"}).encode(),
        json.dumps({**VALID, "tensorrt_header": ""}).encode(),
        json.dumps({**VALID, "tensorrt_header": 8601}).encode(),
        json.dumps(VALID).encode()[:-9],
    ],
    ids=lambda content: content[-40:].decode(errors="replace") or "empty",
)
def test_a_damaged_table_is_one_line_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(TableError) as caught:
        load_table(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["absent.json", "absent.cache"])
def test_a_missing_table_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableError, match=name):
        load_table(tmp_path / name)


@pytest.mark.parametrize("name", ["folder.json", "folder.cache"])
def test_a_folder_is_no_table(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(TableError, match=name):
        load_table(tmp_path / name)


def test_a_cache_with_two_scales_of_one_tensor_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "t.cache").write_text("TRT-8601-EntropyCalibration2\nx: 3c010a14\nx: 3caa54fc\n")
    with pytest.raises(TableError, match=r"t\.cache: tensor 'x' has two scales"):
        load_table(tmp_path / "t.cache")


def test_a_diff_names_what_is_missing_and_sorts_changes_by_size() -> None:
    before = CalibrationTable({"same": 1.0, "up": 1.0, "down": 8.0, "gone": 1.0})
    after = CalibrationTable({"same": 1.0, "up": 2.0, "down": 1.0, "come": 1.0})
    difference = diff_tables(before, after)
    assert (difference.only_before, difference.only_after, difference.equal) == (("gone",), ("come",), 1)
    assert [(change.name, change.ratio) for change in difference.changed] == [("down", 1 / 8), ("up", 2.0)]
    assert not difference.identical


def test_ranges_that_round_to_one_scale_are_equal() -> None:
    difference = diff_tables(CalibrationTable({"x": 1.0}), CalibrationTable({"x": 1.0 + 1e-12}))
    assert difference.identical and difference.equal == 1
