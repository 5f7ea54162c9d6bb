"""Stand-in: any calibration table, served to TensorRT."""

from __future__ import annotations

from tests.calibrators.tensorrt.builds.tables import header, scale_hex
from tests.calibrators.tensorrt.conftest import Play

TABLE = """
from trt_ptq.calibrators.table.calibration_table import CalibrationTable, TableProvenance
from trt_ptq.provenance import DataFingerprint, ModelIdentity
build = Build()
"""


def test_table_is_served_under_the_running_versions_header(play: Play, version: str) -> None:
    outcome = play(
        f"""{TABLE}
calibrator = TableCalibrator(CalibrationTable({{"image": 2.64, "mask": 1.0}}), network=build.network)
real = isinstance(calibrator, build.trt.IInt8EntropyCalibrator2)
tell(real=real, **build_with(calibrator, build))
""",
        version=version,
    )
    assert outcome["real"] is True
    assert outcome["raised"] is None
    assert outcome["plans"][0]["source"] == "cache"
    assert outcome["plans"][0]["table"] == f"{header(version)}\nimage: {scale_hex(2.64)}\nmask: {scale_hex(1.0)}\n"
    assert outcome["counters"]["peak_device_bytes"] == 0


def test_tensor_without_a_range_in_the_table_gets_tensorrts_warning(play: Play) -> None:
    outcome = play(
        f"{TABLE}\n"
        "calibrator = TableCalibrator(CalibrationTable({'image': 1.0}), network=build.network)\n"
        "tell(**build_with(calibrator, build))"
    )
    assert outcome["raised"] is None
    assert "Missing scale and zero-point for tensor mask" in outcome["log"]


def test_table_that_names_no_tensor_of_the_network_is_refused(play: Play) -> None:
    outcome = play(
        f"{TABLE}\n"
        "make = lambda: TableCalibrator(CalibrationTable({'pixels': 1.0}), network=build.network)\n"
        "tell(raised=raised_by(make))"
    )
    assert outcome["raised"].startswith("TableError: the calibration table has no range for any tensor of this network")


def test_table_of_another_model_is_refused_with_what_differs(play: Play) -> None:
    outcome = play(
        f"""{TABLE}
made_for = TableProvenance(ModelIdentity("g", "w"), DataFingerprint(), "entropy", ())
table = CalibrationTable({{"image": 1.0}}, made_for)
tell(raised=raised_by(lambda: TableCalibrator(table, model=ModelIdentity("g", "other"))))
"""
    )
    assert "made for another model: the graph is the same but the weights differ" in outcome["raised"]


def test_table_that_tensorrt_does_not_accept_fails_the_build(play: Play) -> None:
    outcome = play(
        f"""{TABLE}
class Old(TableCalibrator):
    def cache_to_serve(self):
        return super().cache_to_serve().replace(b"TRT-10", b"TRT-11", 1)

tell(**build_with(Old(CalibrationTable({{"image": 1.0}})), build))
"""
    )
    assert "TensorRT did not accept the calibration table" in outcome["raised"]
