"""ONNX Runtime's tables: against what ONNX Runtime itself writes and reads."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.quantization import write_calibration_table
from onnxruntime.quantization.calibrate import (
    CalibrationMethod,
    TensorData,
    TensorsData,
    load_tensors_data,
    save_tensors_data,
)
from onnxruntime.quantization.CalTableFlatBuffers.TrtTable import TrtTable

from trt_ptq.calibrators.table import ort_table
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.table_file import load_table, save_table, table_warning
from trt_ptq.errors import TableError

AMAX = {"input:0": 3.5, "a name, with blanks": 2 / 3, "größe": 1e-30}


def onnxruntime_ranges(**ranges: tuple[float, float]) -> TensorsData:
    ends = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    return TensorsData(CalibrationMethod.MinMax, ends)


@pytest.mark.parametrize("name", ["table.flatbuffers", "table.ort.json"])
@given(
    amax=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.floats(1e-30, 1e30), min_size=1
    )
)
def test_any_table_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, name: str, amax: dict[str, float]
) -> None:
    path = tmp_path_factory.mktemp("table") / name
    save_table(CalibrationTable(amax), path)
    assert dict(load_table(path).amax) == amax


def test_onnxruntimes_own_classes_read_our_flatbuffers() -> None:
    table = TrtTable.GetRootAs(ort_table.to_flatbuffers(CalibrationTable(AMAX)), 0)
    entries = [table.Dict(index) for index in range(table.DictLength())]
    assert {entry.Key().decode(): float(entry.Value()) for entry in entries} == AMAX


def test_onnxruntime_reads_our_json(tmp_path: Path) -> None:
    save_table(CalibrationTable({"x": 3.5}), tmp_path / "calibration.ort.json")
    low, high = load_tensors_data(tmp_path / "calibration.ort.json")["x"].range_value
    assert (low, high) == (-3.5, 3.5)


@pytest.mark.parametrize("whole", [True, False], ids=["TensorsData", "its dictionary"])
def test_onnxruntimes_json_gives_the_larger_end_of_each_range(tmp_path: Path, whole: bool) -> None:
    ranges = onnxruntime_ranges(below=(-3.5, 1.25), above=(-1.0, 2.0))
    write_calibration_table(ranges if whole else ranges.data, str(tmp_path))
    assert dict(load_table(tmp_path / "calibration.json").amax) == {"below": 3.5, "above": 2.0}


def test_the_json_of_a_histogram_calibrator_is_read(tmp_path: Path) -> None:
    counts, edges = np.histogram([1.0, 2.0], bins=4)
    data = TensorData(
        lowest=np.array(-3.0, np.float32), highest=np.array(2.0, np.float32), hist=counts, hist_edges=np.float32(edges)
    )
    save_tensors_data(TensorsData(CalibrationMethod.Entropy, {"x": data}), tmp_path / "ranges.json")
    assert dict(load_table(tmp_path / "ranges.json").amax) == {"x": 3.0}


def test_onnxruntimes_flatbuffers_come_with_a_warning_that_ranges_may_be_too_small(tmp_path: Path) -> None:
    write_calibration_table(onnxruntime_ranges(x=(-3.5, 1.25)), str(tmp_path))
    path = tmp_path / "calibration.flatbuffers"
    assert dict(load_table(path).amax) == {"x": 1.25}
    assert "clipped" in (table_warning(path) or "")


def test_our_flatbuffers_need_no_warning(tmp_path: Path) -> None:
    save_table(CalibrationTable(AMAX), tmp_path / "t.flatbuffers")
    assert table_warning(tmp_path / "t.flatbuffers") is None


def test_a_range_that_onnxruntime_lost_is_refused(tmp_path: Path) -> None:
    write_calibration_table(onnxruntime_ranges(x=(-3.5, -1.25)), str(tmp_path))
    with pytest.raises(TableError, match=r"'x' is -1\.25: .* lost the other"):
        load_table(tmp_path / "calibration.flatbuffers")


def test_a_dead_tensor_has_no_scale(tmp_path: Path) -> None:
    write_calibration_table(onnxruntime_ranges(x=(0, 0), y=(0, 1)), str(tmp_path))
    for name in ("calibration.flatbuffers", "calibration.json"):
        assert load_table(tmp_path / name).tensors_without_range == ("x",)


def test_one_range_a_channel_is_refused_by_name(tmp_path: Path) -> None:
    ends = {"lowest": np.zeros(3, np.float32), "highest": np.ones(3, np.float32)}
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, {"x": TensorData(**ends)}), tmp_path / "t.json")
    with pytest.raises(TableError, match=r"t\.json: tensor 'x' has 3 ranges"):
        load_table(tmp_path / "t.json")


def test_a_record_without_both_ends_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"x": {"lowest": 0, "CLS": "TensorData"}}')
    with pytest.raises(TableError, match=r"tensor 'x' has no number for \"highest\""):
        load_table(tmp_path / "t.json")


def test_a_flatbuffer_cut_anywhere_is_refused_or_whole() -> None:
    content = ort_table.to_flatbuffers(CalibrationTable(AMAX))
    accepted = []
    for length in range(len(content)):
        try:
            accepted.append(ort_table.from_flatbuffers(content[:length]))
        except TableError:
            continue
    assert all(dict(table.amax) == AMAX for table in accepted)
    assert len(accepted) < 4  # only the padding at the end may be missed


@given(st.data())
def test_a_damaged_flatbuffer_raises_nothing_but_a_table_error(data: st.DataObject) -> None:
    content = bytearray(ort_table.to_flatbuffers(CalibrationTable(AMAX)))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(TableError):  # a changed digit cannot be noticed
        ort_table.from_flatbuffers(bytes(content))


def test_a_file_that_is_no_flatbuffer_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.flatbuffers").write_bytes(b"TRT-8601-EntropyCalibration2\nx: 3c010a14\n")
    with pytest.raises(TableError, match=r"t\.flatbuffers: not a flatbuffers calibration table"):
        load_table(tmp_path / "t.flatbuffers")


@pytest.mark.parametrize(
    "content",
    [
        '{"\\ud800": {"lowest": 0, "highest": 1, "CLS": "TensorData"}}',
        '{"x": {"lowest": 0, "highest": 1' + "0" * 400 + ', "CLS": "TensorData"}}',
        '{"CLS": "TensorsData", "data": [1]}',
        '{"CLS": "TensorsData"}',
        "[" * 100_000,
        "{}",
    ],
    ids=["surrogate", "too large a number", "no dictionary", "no data", "nested", "empty"],
)
def test_json_that_is_no_table_is_refused_with_its_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(TableError, match=r"t\.json: "):
        load_table(tmp_path / "t.json")
