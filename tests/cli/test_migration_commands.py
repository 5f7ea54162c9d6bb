"""`trt-ptq qdq`, `cache extract` and `cache convert` as a user meets them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import write_calibration_table
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.table_file import load_table, save_table
from trt_ptq.calibrators.table.tensorrt_cache import ALGORITHMS, TensorRTCache
from trt_ptq.cli import main

DATA = Path(__file__).parents[1] / "files"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run trt-ptq in a folder with tiny.onnx; gives exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(DATA / "qdq" / "tiny.onnx", "tiny.onnx")

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["trt-ptq", *arguments])
        status: object = 0
        try:
            main.main()
        except SystemExit as end:
            status = end.code or 0
        assert isinstance(status, int)
        return status, *capsys.readouterr()

    return command


def write_cache(name: str, **amax: float) -> None:
    save_table(CalibrationTable(amax), Path(name))


def test_qdq_reports_what_matched_what_was_derived_and_what_is_unknown(run: Run) -> None:
    write_cache("old.cache", r1=2.0, r2=3.0, other=1.0)
    status, out, _ = run("qdq", "tiny.onnx", "--table", "old.cache", "-o", "int8.onnx")
    assert status == 0
    assert "old.cache: 2 names matched, 1 derived, 1 not in the model" in out
    assert "MaxPool output from its input" in out


def test_qdq_uses_the_derived_range_in_the_model(run: Run) -> None:
    write_cache("old.cache", r1=2.0, r2=3.0)
    run("qdq", "tiny.onnx", "--table", "old.cache", "-o", "int8.onnx")
    scales = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load("int8.onnx").graph.initializer}
    assert scales["p1.qdq.scale"] == np.float32(2.0 / 127)


def test_qdq_gives_the_report_to_programs(run: Run) -> None:
    write_cache("old.cache", r1=127 / 64)
    _, out, _ = run("qdq", "tiny.onnx", "--table", "old.cache", "-o", "int8.onnx", "--json")
    ranges = json.loads(out)["ranges"]
    assert ranges["inferred"] == [
        {"name": "p1", "amax": 127 / 64, "source": "r1", "rule": "MaxPool output from its input"}
    ]
    assert ranges["missing"] == [{"name": "r2", "similar": []}]


def test_qdq_names_the_node_that_stays_float_for_lack_of_a_range(run: Run) -> None:
    write_cache("old.cache", r1=2.0)
    _, out, _ = run("qdq", "tiny.onnx", "--table", "old.cache", "-o", "int8.onnx")
    assert "'r2' has no range in the table" in out


@pytest.mark.parametrize("cache", sorted((DATA / "caches").glob("*.cache")), ids=lambda path: path.stem)
def test_qdq_refuses_every_published_cache_for_a_model_it_was_not_made_for(run: Run, cache: Path) -> None:
    status, out, err = run("qdq", "tiny.onnx", "--table", str(cache), "-o", "int8.onnx")
    assert (status, out) == (2, "")
    assert f"{cache}: none of its" in err
    assert not Path("int8.onnx").exists()


def test_qdq_names_the_line_of_a_corrupt_cache(run: Run) -> None:
    Path("bad.cache").write_text("TRT-8601-EntropyCalibration2\nr1: 3c010a14\nr2: 3c01zz14\n")
    status, _, err = run("qdq", "tiny.onnx", "--table", "bad.cache")
    assert status == 2
    assert "bad.cache, line 3:" in err


def test_qdq_refuses_an_empty_table(run: Run) -> None:
    Path("empty.cache").write_text("TRT-8601-EntropyCalibration2\n")
    status, _, err = run("qdq", "tiny.onnx", "--table", "empty.cache")
    assert status == 2
    assert err == "error: empty.cache: the table is empty: calibrate again\n"


def test_table_to_qdq_and_back_gives_the_same_scale_bits(run: Run) -> None:
    write_cache("old.cache", p1=1 / 3, r2=np.pi)
    run("qdq", "tiny.onnx", "--table", "old.cache", "-o", "int8.onnx")
    status, out, _ = run("cache", "extract", "int8.onnx", "new.cache", "--trt-version", "8.6.1")
    assert (status, out) == (0, "new.cache: 3 ranges; 0 weights skipped\n")
    old, new = TensorRTCache.read(Path("old.cache")), TensorRTCache.read(Path("new.cache"))
    scales = dict(old.entries)
    assert dict(new.entries) == scales | {"r1": scales["p1"]}  # r1 -> MaxPool -> p1
    assert new.header == "TRT-8601-EntropyCalibration2"


def test_a_placeholder_for_the_version_can_be_retargeted(run: Run) -> None:
    Path("a.cache").write_text("TRT-8XXX-EntropyCalibration2\nx: 3c010a14\n")
    status, out, _ = run("cache", "retarget", "a.cache", "b.cache", "--trt-version", "8.6.1")
    assert status == 0
    assert "TRT-8XXX-EntropyCalibration2 -> TRT-8601-EntropyCalibration2" in " ".join(out.split())


def test_diff_tells_a_zero_scale_from_a_missing_one(run: Run) -> None:
    Path("a.cache").write_text("TRT-8601-EntropyCalibration2\nx: 3c010a14\ny: 3c010a14\n")
    Path("b.cache").write_text("TRT-8601-EntropyCalibration2\nx: 00000000\n")
    difference = json.loads(run("cache", "diff", "a.cache", "b.cache", "--json")[1])
    assert (difference["unusable_after"], difference["only_before"]) == (["x"], ["y"])
    assert "no usable scale" in run("cache", "diff", "a.cache", "b.cache")[1]


def test_extract_refuses_a_float_model_and_writes_nothing(run: Run) -> None:
    status, _, err = run("cache", "extract", "tiny.onnx", "new.cache")
    assert status == 2
    assert "tiny.onnx: none of its activations is quantized" in err
    assert not Path("new.cache").exists()


def test_extract_refuses_what_is_no_model(run: Run) -> None:
    Path("text.onnx").write_text("TRT-8601-EntropyCalibration2\n")
    status, _, err = run("cache", "extract", "text.onnx", "new.cache")
    assert status == 2
    assert err.startswith("error: text.onnx: not an ONNX model")


def test_extract_works_on_a_model_of_modelopt(run: Run) -> None:
    model = DATA / "qdq" / "tiny.modelopt-0.47.0.fp32.onnx"
    status, out, _ = run("cache", "extract", str(model), "new.json")
    assert (status, out) == (0, "new.json: 4 ranges; 3 weights skipped\n")
    assert run("qdq", "tiny.onnx", "--table", "new.json")[0] == 0


def test_convert_goes_through_every_form_without_loss(run: Run) -> None:
    write_cache("a.cache", **{"input:0": 1 / 3, "y": 2.5})
    for source, target in [
        ("a.cache", "a.flatbuffers"),
        ("a.flatbuffers", "a.ort.json"),
        ("a.ort.json", "a.json"),
        ("a.json", "b.cache"),
    ]:
        assert run("cache", "convert", source, target)[0] == 0
    assert sorted(TensorRTCache.read(Path("b.cache")).entries) == sorted(TensorRTCache.read(Path("a.cache")).entries)


def test_a_table_of_onnxruntime_is_read_with_a_warning_where_it_lost_one_end(run: Run) -> None:
    write_calibration_table(TensorsData(CalibrationMethod.MinMax, {"r1": (np.float32(-3), np.float32(2))}), ".")
    status, _, err = run("cache", "convert", "calibration.flatbuffers", "a.json")
    assert status == 0
    assert "warning: calibration.flatbuffers: ONNX Runtime's write_calibration_table drops the negative end" in err
    assert run("cache", "convert", "calibration.json", "b.json")[2] == ""
    assert dict(load_table(Path("b.json")).amax) == {"r1": 3.0}


def test_show_takes_a_table_without_provenance(run: Run) -> None:
    write_cache("a.cache", x=1.0)
    run("cache", "convert", "a.cache", "a.ort.json")
    status, out, _ = run("cache", "show", "a.ort.json")
    assert status == 0
    assert "no provenance, 1 ranges" in " ".join(out.split())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_convert_keeps_the_header_through_json_unless_a_version_is_given(run: Run, algorithm: str) -> None:
    header = f"TRT-8601-{algorithm}"
    Path("a.cache").write_text(f"{header}\nimages: 3c010a14\nconv: 3d010a14\n")
    run("cache", "convert", "a.cache", "a.json")
    assert header in run("cache", "show", "a.json")[1]
    assert run("cache", "convert", "a.json", "b.cache")[1] == f"b.cache: 2 ranges, header {header}\n"
    assert Path("b.cache").read_bytes() == Path("a.cache").read_bytes()
    result = run("cache", "convert", "a.cache", "c.cache", "--trt-version", "10.3.0")[1]
    assert result == f"c.cache: 2 ranges, header TRT-100300-{algorithm}, was {header}\n"
    assert TensorRTCache.read(Path("c.cache")).header == f"TRT-100300-{algorithm}"


@pytest.mark.parametrize("name", ["a.flatbuffers", "a.json", "a.ort.json"])
def test_a_damaged_table_gives_one_line_with_its_name(run: Run, name: str) -> None:
    Path(name).write_bytes(b"\x10\x00\x00\x00nonsense")
    status, out, err = run("cache", "convert", name, "b.cache")
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {name}: not a")
    assert err.count("\n") == 1


def test_qdq_explains_every_candidate_and_how_much_of_the_arithmetic_runs_in_int8(run: Run) -> None:
    write_cache("old.cache", r1=2.0, r2=3.0)
    _, out, _ = run("qdq", "tiny.onnx", "--table", "old.cache", "-o", "int8.onnx", "--explain")
    _, text, _ = run("qdq", "tiny.onnx", "--table", "old.cache", "-o", "int8.onnx", "--json")
    result = json.loads(text)
    macs = {node["output"]: node["macs"] for node in result["nodes"] if node["macs"] is not None}
    in_int8 = sum(macs.get(node["output"], 0) for node in result["nodes"] if node["is_int8"])
    assert result["int8_fraction_of_macs"] == in_int8 / sum(macs.values())
    assert f"{result['int8_fraction_of_macs']:.1%} of the MACs" in out
    for node in result["nodes"]:
        assert node["op_type"] in out
    for count in macs.values():
        assert f"{count:,}" in out
