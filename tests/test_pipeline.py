"""The whole job on a small network."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from tests.networks import images
from trt_ptq.calibrators.methods import AUTO_CANDIDATES, METHODS
from trt_ptq.calibrators.statistics.statistics_file import load_statistics
from trt_ptq.calibrators.table.table_file import load_table
from trt_ptq.calibrators.table.tensorrt_cache import TensorRTCache
from trt_ptq.config import QuantizeJob
from trt_ptq.data.sources import ArraySource
from trt_ptq.engines.manifest import read_manifest
from trt_ptq.errors import DataError, ModelError, OutputError, UsageError
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.pipeline import quantize


def source(samples: int = 40, batch_size: int = 4, seed: int = 0) -> ArraySource:
    return ArraySource("images.npz", {"x": images(samples, seed)}, batch_size)


def test_everything_is_left_in_one_folder(cnn: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = quantize(QuantizeJob(cnn, source(), "images", METHODS["minmax"], out))
    statistics = load_statistics(out / "stats.safetensors")
    assert load_table(out / "calibration.json").amax["r1"] == statistics.tensors["r1"].amax
    assert TensorRTCache.read(out / "calibration.cache").algorithm == "MinMaxCalibration"
    assert ort.InferenceSession(out / "model.int8.onnx").run(None, {"x": images(2)})[0].shape == (2, 32)
    assert {path.name for path in out.iterdir()} == {
        "stats.safetensors",
        "calibration.cache",
        "calibration.json",
        "model.int8.onnx",
        "model.fp16.onnx",
        "model.int8.engine",
        "model.int8.engine.json",
        "model.fp16.engine",
        "model.fp16.engine.json",
        "report.json",
        "report.html",
        "recipe.yaml",
    }
    assert result.report.num_int8_nodes == 5
    assert result.report.int8_fraction_of_macs == 1
    assert result.engine_error is None


def test_held_out_batches_are_not_calibrated_with(cnn: Model, tmp_path: Path) -> None:
    report = quantize(QuantizeJob(cnn, source(), "images", METHODS["minmax"], tmp_path)).report
    assert (report.fingerprint.samples, report.held_out_samples) == (32, 8)


def test_test_data_are_compared_on_instead(cnn: Model, tmp_path: Path) -> None:
    job = QuantizeJob(cnn, source(), "images", METHODS["minmax"], tmp_path, test=source(12, seed=9))
    report = quantize(job).report
    assert (report.fingerprint.samples, report.held_out_samples) == (40, 12)


def test_one_single_batch_cannot_be_split(cnn: Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="single batch"):
        quantize(QuantizeJob(cnn, source(4), "images", METHODS["minmax"], tmp_path))


def test_shapes_are_taken_from_the_data(cnn: Model, tmp_path: Path) -> None:
    quantize(QuantizeJob(cnn, source(41), "images", METHODS["minmax"], tmp_path))
    assert read_manifest(tmp_path / "model.int8.engine").profiles == {"x": "1x16x8x8:4x16x8x8:4x16x8x8"}


def test_the_users_metric_decides(cnn: Model, tmp_path: Path) -> None:
    exact = ort.InferenceSession(cnn.path)
    feeds = {"x": images(64, seed=5)}
    labels = exact.run(None, feeds)[0].argmax(1)

    def accuracy(run) -> dict[str, float]:  # type: ignore[no-untyped-def]
        return {"accuracy": float((run(feeds)["y"].argmax(1) == labels).mean())}

    job = QuantizeJob(cnn, source(), "images", METHODS["minmax"], tmp_path, evaluate=accuracy, max_drop=0.5)
    report = quantize(job).report
    metrics = {one.precision: one.metrics["accuracy"] for one in report.models}
    assert metrics["fp32"] == 1
    assert report.verdict.metric == "accuracy"
    assert report.verdict.loss == pytest.approx(1 - metrics["int8"])


def test_a_gate_that_is_missed_is_told(cnn: Model, tmp_path: Path) -> None:
    report = quantize(QuantizeJob(cnn, source(), "images", METHODS["minmax"], tmp_path, max_drop=0.0)).report
    assert report.verdict.loss > 0
    assert not report.verdict.passed


def test_the_same_job_leaves_the_same_bytes(cnn: Model, tmp_path: Path) -> None:
    names = ("stats.safetensors", "calibration.cache", "calibration.json", "model.int8.onnx", "model.fp16.onnx")
    for run in ("a", "b"):
        quantize(QuantizeJob(cnn, source(), "images", METHODS["entropy"], tmp_path / run))
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_without_a_builder_all_else_is_done_and_the_remedy_told(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    result = quantize(QuantizeJob(cnn, source(), "images", METHODS["minmax"], tmp_path))
    assert any('pip install "trt-ptq[rtx]"' in warning for warning in result.report.warnings)
    assert (tmp_path / "report.html").is_file()
    assert not (tmp_path / "model.int8.engine").exists()


def test_an_unwritable_folder_is_found_before_any_work(cnn: Model, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")

    class Untouched(ArraySource):
        def __iter__(self):  # type: ignore[no-untyped-def]
            raise AssertionError("the data was read")

    untouched = Untouched("images.npz", {"x": images(8)}, 4)
    with pytest.raises(OutputError, match="cannot write"):
        quantize(QuantizeJob(cnn, untouched, "images", METHODS["minmax"], file / "out"))


def test_a_dead_tensor_is_warned_of_by_name(tmp_path: Path) -> None:
    from onnx import helper

    from tests.networks import CHANNELS, image_input, weight, write
    from trt_ptq.onnx_io.load import load_model

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"]),
        helper.make_node("Sub", ["c", "c"], ["dead"]),
        helper.make_node("Conv", ["dead", "w2"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    weights = [weight("w1", CHANNELS, CHANNELS, 1, 1), weight("w2", CHANNELS, CHANNELS, 1, 1)]
    model = load_model(write(tmp_path / "m.onnx", nodes, weights, [image_input()], ["y"]))
    report = quantize(QuantizeJob(model, source(), "images", METHODS["minmax"], tmp_path / "out")).report
    assert any("always zero: dead" in warning for warning in report.warnings)
    assert next(node.reason for node in report.nodes if node.output == "d") == (
        "'dead' has no usable scale (always zero, or not finite)"
    )


def test_random_noise_is_warned_of(cnn: Model, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(40, 16, 8, 8)).astype(np.float32)
    job = QuantizeJob(cnn, ArraySource("n.npz", {"x": noise}, 4), "noise", METHODS["minmax"], tmp_path)
    assert any("looks like random noise" in warning for warning in quantize(job).report.warnings)


def test_nothing_of_an_earlier_run_stays_beside_the_new_results(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize(QuantizeJob(cnn, source(), "images", METHODS["minmax"], tmp_path / "out"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    quantize(QuantizeJob(cnn, source(), "images", METHODS["minmax"], tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.engine*"))


def test_the_model_itself_is_never_replaced(cnn: Model, tmp_path: Path) -> None:
    taken = cnn.path.rename(tmp_path / "model.fp16.onnx")
    with pytest.raises(UsageError, match="would replace the model"):
        quantize(QuantizeJob(load_model(taken), source(), "images", METHODS["minmax"], tmp_path))


def test_a_comparison_on_calibration_data_is_told(cnn: Model, tmp_path: Path) -> None:
    job = QuantizeJob(cnn, source(), "images", METHODS["minmax"], tmp_path, test=source())
    told = [warning for warning in quantize(job).report.warnings if "were also used for calibration" in warning]
    assert told[0].startswith("10 batches of the comparison")


def test_external_weights_count_in_the_reported_size(cnn_path: Path, tmp_path: Path) -> None:
    inline = cnn_path.stat().st_size
    onnx.save(onnx.load(cnn_path), cnn_path, save_as_external_data=True, location="w.bin", size_threshold=0)
    report = quantize(QuantizeJob(load_model(cnn_path), source(), "i", METHODS["minmax"], tmp_path / "out")).report
    sizes = {one.precision: one.size_bytes for one in report.models}
    assert sizes["fp32"] == pytest.approx(inline, rel=0.05)
    assert sizes["int8"] < sizes["fp16"] < sizes["fp32"]


def test_a_float16_model_without_a_metric_does_not_undo_the_rest(cnn: Model, tmp_path: Path) -> None:
    calls: list[str] = []

    def accuracy(infer) -> dict[str, float]:  # type: ignore[no-untyped-def]
        infer({"x": images(4)})
        calls.append("")
        return {"accuracy": float("nan") if len(calls) == 5 else 1.0}

    job = QuantizeJob(cnn, source(), "images", METHODS["minmax"], tmp_path, evaluate=accuracy, eval_name="accuracy")
    report = quantize(job).report
    assert [one.metrics for one in report.models] == [{"accuracy": 1.0}, {}, {"accuracy": 1.0}]
    assert any("float16 was not judged by the metric" in warning for warning in report.warnings)


def test_a_float16_model_that_cannot_be_loaded_does_not_undo_the_rest(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trt_ptq.pipeline.to_float16", lambda _model, _amax: ir.from_proto(no_kernel()))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    report = quantize(QuantizeJob(cnn, source(), "images", METHODS["minmax"], tmp_path)).report
    assert any(warning.startswith("float16 was not judged: ") for warning in report.warnings)
    assert report.verdict.passed


def test_nodes_that_overflow_float16_are_named_and_judged_unspoilt(cnn: Model, tmp_path: Path) -> None:
    large = ArraySource("images.npz", {"x": images(40) * 1e5}, 4)
    report = quantize(QuantizeJob(cnn, large, "images", METHODS["minmax"], tmp_path)).report
    assert {"c1", "r1", "c2", "a", "r2"} <= {one.output for one in report.fp32_nodes}
    assert any("nodes stay in FP32, beyond float16's range: Conv 'c1' (" in warning for warning in report.warnings)
    assert all(one.fidelity["y"].cosine > 0.99 for one in report.models if one.fidelity)


def test_a_model_whose_opset_cannot_be_raised_keeps_an_fp32_rest_and_says_so(
    cnn: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_model: ir.Model, _opset: int) -> ir.Model:
        raise ModelError("the model cannot be converted from opset 17 to 19 (no adapter)")

    monkeypatch.setattr("trt_ptq.fp16.convert.raise_opset", refuse)
    report = quantize(QuantizeJob(cnn, source(), "images", METHODS["minmax"], tmp_path)).report
    assert report.high_precision == "fp32"
    assert "what is not INT8 stays in FP32: the model cannot be converted from opset 17 to 19" in "".join(
        report.warnings
    )
    assert ort.InferenceSession(tmp_path / "model.int8.onnx").run(None, {"x": images(2)})[0].shape == (2, 32)


def no_kernel() -> onnx.ModelProto:
    """A model of an operator that ONNX Runtime does not know."""
    named = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    node = onnx.helper.make_node("Unheard", ["x"], ["y"], domain="elsewhere")
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("elsewhere", 1)]
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", named[:1], named[1:]), opset_imports=imports)


def test_a_metric_that_fails_does_so_before_the_calibration_and_leaves_the_last_run(cnn: Model, tmp_path: Path) -> None:
    quantize(QuantizeJob(cnn, source(), "images", METHODS["minmax"], tmp_path / "out"))
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def broken(_run: object) -> dict[str, float]:
        raise ZeroDivisionError("no labels")

    with pytest.raises(DataError, match="no labels"):
        quantize(QuantizeJob(cnn, source(20), "images", METHODS["mse"], tmp_path / "out", evaluate=broken))
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_ranges_that_until_stable_did_not_watch_are_warned_of(cnn: Model, tmp_path: Path) -> None:
    many = ArraySource("images.npz", {"x": images(400)}, 4)
    job = QuantizeJob(cnn, many, "images", AUTO_CANDIDATES[0], tmp_path, until_stable=0.9)
    assert not any("`until_stable` checked" in one for one in quantize(job).report.warnings)
    report = quantize(replace(job, alternatives=AUTO_CANDIDATES[1:])).report
    assert report.method != AUTO_CANDIDATES[0].name
    assert any(f"`until_stable` checked the ranges of {AUTO_CANDIDATES[0].name}" in one for one in report.warnings)


@pytest.mark.parametrize(
    ("method", "left"), [("mse", {"stats.safetensors"}), ("minmax", {"stats.safetensors", "recipe.yaml"})]
)
def test_a_run_that_is_interrupted_leaves_no_recipe_but_the_one_it_does_again(
    cnn: Model, tmp_path: Path, method: str, left: set[str]
) -> None:
    def interrupt(_text: str) -> None:
        raise KeyboardInterrupt

    job = QuantizeJob(cnn, source(), "images", METHODS["minmax"], tmp_path / "out")
    quantize(job)
    with pytest.raises(KeyboardInterrupt):
        quantize(replace(job, method=METHODS[method], tell=interrupt))
    assert {file.name for file in (tmp_path / "out").iterdir()} == left


def test_an_int8_model_without_int8_is_warned_of(cnn: Model, tmp_path: Path) -> None:
    job = QuantizeJob(cnn, source(), "images", METHODS["minmax"], tmp_path)
    every = tuple(one.output for one in quantize(job).report.nodes)
    assert any("no node runs in INT8" in one for one in quantize(replace(job, nodes_to_exclude=every)).report.warnings)
    assert not any("no node runs in INT8" in one for one in quantize(job).report.warnings)
