"""Stand-in: a builder that has no implementation for a layer."""

from __future__ import annotations

from pathlib import Path

from tests.engines.building.run_build import AMAX, build_on
from tests.engines.on_standins import outcome_of
from tests.standins.libraries import Standins
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.engines.manifest import read_manifest
from trt_ptq.onnx_io.load import Model
from trt_ptq.qdq.insert import insert_qdq


def test_a_layer_without_an_implementation_is_named(standins: Standins, cnn: Model, tmp_path: Path, out: Path) -> None:
    path = tmp_path / "int8.onnx"
    insert_qdq(cnn, CalibrationTable(AMAX)).save(path)
    failed = build_on(standins, path, out, refused_layers=("node_of_c2",))
    assert failed["error"].startswith("UnsupportedLayerError: ")
    assert "Could not find any implementation for node node_of_c2" in failed["error"]
    assert failed["layer"] == "node_of_c2"
    insert_qdq(cnn, CalibrationTable(AMAX), ["c2"]).save(path)
    assert build_on(standins, path, out, refused_layers=("node_of_c2",))["error"] is None


BUILD_BY_TABLE = """
import json, trt_ptq
table = trt_ptq.CalibrationTable({table!r})
manifest = trt_ptq.build_engine({model!r}, {engine!r}, table=table, shapes={{"x": "4x16x8x8"}}, backend="trt")
print(json.dumps(manifest.refused_nodes))
"""


def test_a_node_that_the_builder_refuses_is_excluded_and_the_engine_built(
    standins: Standins, cnn_path: Path, out: Path
) -> None:
    code = BUILD_BY_TABLE.format(table=AMAX, model=str(cnn_path), engine=str(out))
    refused_layers = ("node_of_c2", "node_of_y")
    assert outcome_of(standins, ["-c", code], refused_layers=refused_layers) == ["c2", "y"]
    assert read_manifest(out).refused_nodes == ("c2", "y")
