"""Runs that start from the statistics of an earlier one."""

from __future__ import annotations

from pathlib import Path

import pytest

import trt_ptq
from tests.networks import images, residual_cnn
from tests.pipeline.quantizing import chain_path, quantized, source
from trt_ptq.calibrators.table.table_file import load_table
from trt_ptq.data.sources import ArraySource
from trt_ptq.errors import StatisticsError, UsageError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.pipeline.kept_statistics import OTHER_DATA, StatisticsLike


def resumed(model: Model, out: Path, stats: StatisticsLike, **config: object) -> trt_ptq.QuantizeResult:
    fields = trt_ptq.QuantizeConfig(**{"method": "minmax", "backend": "none", **config})  # type: ignore[arg-type]
    return trt_ptq.quantize(model, source(), stats=stats, output_dir=out, config=fields)


def test_kept_statistics_lead_to_the_same_model_without_calibration(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantized(cnn, tmp_path / "first")

    def calibrate(*_arguments: object, **_options: object) -> None:
        raise AssertionError("calibrated again")

    monkeypatch.setattr("trt_ptq.pipeline.calibration_step.collect_statistics", calibrate)
    path = tmp_path / "first" / "stats.safetensors"
    forms: dict[str, StatisticsLike] = {"path": path, "loaded": trt_ptq.load_statistics(path)}
    for name, stats in forms.items():
        result = resumed(cnn, tmp_path / name, stats)
        assert OTHER_DATA not in result.warnings
        assert result.report.passes == 0
        assert "statistics of an earlier run" in (tmp_path / name / "report.html").read_text()
        for file in ("stats.safetensors", "calibration.json", "model.int8.onnx", "model.fp16.onnx"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "first" / file).read_bytes()


def test_an_interrupted_run_can_be_resumed_in_its_folder(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("trt_ptq.pipeline.tune_recipe", interrupt)
        with pytest.raises(KeyboardInterrupt):
            quantized(cnn, tmp_path)
    assert resumed(cnn, tmp_path, tmp_path / "stats.safetensors").passed


def test_statistics_of_samples_that_are_compared_on_are_warned_of(cnn: Model, tmp_path: Path) -> None:
    statistics = trt_ptq.calibrate(cnn, source())
    assert OTHER_DATA in resumed(cnn, tmp_path / "out", statistics).warnings


def test_techniques_are_applied_with_all_data_where_the_statistics_are_of_other_data(tmp_path: Path) -> None:
    model, out = load_model(chain_path(tmp_path)), tmp_path / "out"
    few = trt_ptq.calibrate(model, ArraySource("other.npz", {"x": images(4, seed=9)}, 4))
    report = resumed(model, out, few, techniques=("equalization",), search=False).report
    assert report.fingerprint.samples > few.data.samples
    assert report.fingerprint == quantized(model, tmp_path / "new", techniques=("equalization",)).report.fingerprint


def test_statistics_of_another_model_are_refused(cnn: Model, tmp_path: Path) -> None:
    statistics = trt_ptq.calibrate(load_model(residual_cnn(tmp_path / "other.onnx", seed=1)), source())
    with pytest.raises(StatisticsError, match="another model"):
        resumed(cnn, tmp_path / "out", statistics)
    assert not (tmp_path / "out").exists()


def test_statistics_of_the_transformed_model_of_a_run_that_ended_are_refused(tmp_path: Path) -> None:
    model, out = load_model(chain_path(tmp_path)), tmp_path / "out"
    quantized(model, out, techniques=("equalization",), search=False)
    assert (out / "model.transformed.onnx").is_file()
    with pytest.raises(StatisticsError, match=r"stats\.safetensors: statistics of .*model\.transformed\.onnx, which"):
        trt_ptq.quantize(model, source(), output_dir=tmp_path / "again", stats=out / "stats.safetensors")


def test_statistics_that_lack_a_tensor_are_refused(cnn: Model, tmp_path: Path) -> None:
    statistics = trt_ptq.calibrate(cnn, source(), tensors=["x"])
    with pytest.raises(StatisticsError, match=r"e\.g\. 'r1'"):
        resumed(cnn, tmp_path / "out", statistics)


def test_until_stable_has_nothing_to_end(cnn: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`until_stable`"):
        resumed(cnn, tmp_path / "out", trt_ptq.calibrate(cnn, source()), until_stable=0.1)


def test_something_else_is_refused(cnn: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`stats`.*int"):
        resumed(cnn, tmp_path / "out", 3)  # type: ignore[arg-type]


def test_a_technique_does_not_mix_the_ranges_of_two_data_sets(tmp_path: Path) -> None:
    model = load_model(chain_path(tmp_path))
    others = ArraySource("others.npz", {"x": 3 * images(40)}, 4)
    statistics = trt_ptq.calibrate(model, others)
    data, test = source(), source(8, seed=1)
    quantized(model, tmp_path / "anew", data, test_data=test, techniques=("equalization",), search=False)
    config = trt_ptq.QuantizeConfig(method="minmax", backend="none", techniques=("equalization",), search=False)
    kept = tmp_path / "kept"
    result = trt_ptq.quantize(model, data, test_data=test, stats=statistics, output_dir=kept, config=config)
    assert result.report.calibration_data == "40 samples"  # of this run
    tables = [load_table(tmp_path / name / "calibration.json") for name in ("kept", "anew")]
    assert tables[0].amax == pytest.approx(dict(tables[1].amax), rel=1e-5)
    assert tables[0].provenance == tables[1].provenance


def test_trials_with_other_data_are_not_reused_with_kept_statistics(tmp_path: Path) -> None:
    model = load_model(chain_path(tmp_path))
    statistics = trt_ptq.calibrate(model, source(160))
    heads = []
    for scale in (1, 100):
        pictures = images(160)
        pictures[4:8] *= scale  # a batch that output errors are not measured on
        data = ArraySource("images.npz", {"x": pictures}, 4)
        config = trt_ptq.QuantizeConfig(method="minmax", backend="none", techniques=(), search=False)
        options = {"test_data": source(8, seed=1), "stats": statistics, "config": config}
        trt_ptq.quantize(model, data, output_dir=tmp_path / "out", **options)  # type: ignore[arg-type]
        heads.append((tmp_path / "out" / "trials.jsonl").read_text().splitlines()[0])
    assert heads[0] != heads[1]
