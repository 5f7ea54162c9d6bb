"""Engines that TensorRT builds, runs, inspects and measures on a real GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

from tests.gpu.conftest import BATCH, BATCHES, EngineBuilder, Pictures
from tests.gpu.machine import EXPLICIT, ON_GPU, TENSORRT
from tests.networks import images
from trt_ptq._internal.hardware.cuda import Device, gpu_name
from trt_ptq.api.comparing import compare
from trt_ptq.cli.main import app
from trt_ptq.config import QuantizeConfig
from trt_ptq.engines.manifest import manifest_path, read_manifest
from trt_ptq.engines.running.benchmark import benchmark
from trt_ptq.engines.running.runtime import EngineSession
from trt_ptq.engines.spec import BuilderConfig
from trt_ptq.errors import DataError, EngineError
from trt_ptq.evaluation.compare_engines import compare_engines
from trt_ptq.evaluation.runners.layer_differences import compared_tensors
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.pipeline import quantize

pytestmark = [*ON_GPU, EXPLICIT]


def test_a_float_engine_matches_onnx_runtime(build: EngineBuilder, cnn: Model) -> None:
    reference = ort.InferenceSession(cnn.path, providers=["CPUExecutionProvider"])
    with EngineSession(build("fp32")) as session:
        for samples in (1, 8, 3):
            x = images(samples, seed=samples)
            expected = reference.run(None, {"x": x})[0]
            np.testing.assert_allclose(session.run({"x": x})["y"], expected, rtol=2e-2, atol=2e-2)  # TF32


def test_a_qdq_engine_is_close_to_the_fp16_engine_by_polygraphy(build: EngineBuilder, others: Pictures) -> None:
    comparison = compare_engines(build("fp16"), build("int8"), others)
    assert comparison.samples == 4 * BATCHES
    assert comparison.outputs["y"].sqnr_db > 20


def test_a_qdq_engine_matches_the_qdq_model_in_onnx_runtime(
    build: EngineBuilder, others: Pictures, tmp_path: Path
) -> None:
    engine = build("int8")
    reference = ort.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    with EngineSession(engine) as session:
        for batch in others:
            expected = reference.run(None, dict(batch.feeds))[0]
            error = session.run(batch.feeds)["y"] - expected
            assert float((error**2).sum()) < 1e-2 * float((expected**2).sum())  # 20 dB: rounding differs


def test_the_inspector_finds_int8_layers_in_the_int8_engine_only(build: EngineBuilder) -> None:
    assert "int8" in EngineSession(build("int8")).inspect().precisions()
    assert "int8" not in EngineSession(build("fp16")).inspect().precisions()


def test_kernels_are_timed_by_the_names_that_the_inspector_has(build: EngineBuilder) -> None:
    with EngineSession(build("int8")) as session:
        seconds = session.kernel_times(session.example_feeds({}))
        plan = session.inspect()
        assert {kernel.name for kernel in plan.kernels} & seconds.keys()
        assert not plan.dynamic
    assert sum(seconds.values()) > 0


def test_the_plan_of_an_engine_is_measured_and_its_estimate_judged(build: EngineBuilder) -> None:
    document = json.loads(CliRunner().invoke(app, ["plan", str(build("int8")), "--json"]).stdout)
    assert document["plan"]["source"] == "tensorrt"
    assert document["plan"]["measured"]["judged"]["measured"] > 0


def test_a_latency_is_measured_on_the_device(build: EngineBuilder) -> None:
    path = build("fp16")
    with EngineSession(path) as session:
        measured = benchmark(session, session.example_feeds({}), runs=50)
    assert 0 < measured.latency.median_ms <= measured.latency.p99_ms
    assert measured.latency.batch == 4
    assert measured.size_bytes == path.stat().st_size
    assert (measured.precision, measured.gpu) == ("fp16", gpu_name())


def test_a_batch_beyond_the_profile_is_refused(build: EngineBuilder) -> None:
    with EngineSession(build("fp32")) as session, pytest.raises(DataError, match=r"takes shapes from \[1, 16, 8, 8\]"):
        session.run({"x": images(9)})


def test_the_manifest_names_the_gpu(build: EngineBuilder) -> None:
    manifest = read_manifest(build("fp16"))
    assert (manifest.backend, manifest.gpu) == ("tensorrt", gpu_name())
    assert manifest.flags == ("strongly_typed",)


def test_a_corrupt_plan_is_refused(build: EngineBuilder) -> None:
    path = build("fp32")
    plan = path.read_bytes()
    path.write_bytes(b"\0" * 64 + plan[64:])
    manifest_path(path).unlink()
    with pytest.raises(EngineError, match="cannot load it"):
        EngineSession(path)


# ---- builder configuration


def test_a_timing_cache_is_written_and_used_again(build: EngineBuilder, tmp_path: Path) -> None:
    options = BuilderConfig(timing_cache=tmp_path / "timing.cache", workspace_bytes=2**28)
    build("fp16", name="first", builder_config=options)
    assert (tmp_path / "timing.cache").stat().st_size > 0
    build("fp16", name="second", builder_config=options)


def test_a_damaged_timing_cache_is_refused(build: EngineBuilder, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    cache.write_bytes(b"these are no timings")
    with pytest.raises(EngineError, match=r"timing\.cache: .* refuses this timing cache"):
        build("fp16", builder_config=BuilderConfig(timing_cache=cache))
    assert cache.read_bytes() == b"these are no timings"


def test_a_hardware_compatible_engine_runs(build: EngineBuilder) -> None:
    path = build("fp16", builder_config=BuilderConfig(hardware_compatibility="ampere+"))
    with EngineSession(path) as session:
        assert session.run({"x": images(2)})["y"].shape == (2, 32)


def test_a_version_compatible_engine_runs(build: EngineBuilder) -> None:
    try:
        path = build("fp16", builder_config=BuilderConfig(version_compatible=True))
    except EngineError as error:
        if "libnvinfer_lean" in str(error):
            pytest.skip("TensorRT's lean runtime is not installed")
        raise
    with EngineSession(path) as session:
        assert session.run({"x": images(2)})["y"].shape == (2, 32)


def test_dla_is_refused_where_there_is_none(build: EngineBuilder) -> None:
    if TENSORRT.Builder(TENSORRT.Logger()).num_DLA_cores:
        pytest.skip("this machine has a DLA")
    with pytest.raises(EngineError, match="there is no DLA core 0"):
        build("fp16", builder_config=BuilderConfig(dla_core=0))


# ---- the whole pipeline


def test_quantize_builds_compares_and_measures_on_the_gpu(cnn: Model, tmp_path: Path) -> None:
    config = QuantizeConfig(method="percentile", backend="trt")
    report = quantize(cnn, Pictures(), output_dir=tmp_path / "out", config=config).report
    assert [engine.backend for engine in report.engines] == ["tensorrt", "tensorrt"]
    assert len(report.engine_measurements) == 2, report.warnings
    fp16, int8 = report.engine_measurements
    assert (fp16.benchmark.precision, int8.benchmark.precision) == ("fp16", "int8")
    assert int8.layers.get("int8", 0) > 0
    assert fp16.fidelity == {}
    assert int8.fidelity["y"].sqnr_db > 20
    assert [engine.precision for engine in report.evaluated_engines] == ["fp16", "int8"], report.warnings
    assert report.evaluated_engines[1].fidelity["y"].sqnr_db > 20
    assert report.verdict_basis == f"the INT8 engine, on {gpu_name()}"
    assert "median latency" in (tmp_path / "out" / "report.html").read_text()


def test_a_metric_decides_on_what_the_engines_compute(cnn: Model, tmp_path: Path) -> None:
    def size(run: Any) -> dict[str, float]:
        return {"size": float(np.abs(run({"x": images(BATCH)})["y"]).mean())}

    config = QuantizeConfig(method="percentile", backend="trt", max_drop=0.09)
    result = quantize(cnn, Pictures(), evaluate=size, output_dir=tmp_path / "out", config=config)
    assert result.engine_metrics.keys() == {"fp16", "int8"}, result.warnings
    fp32, int8 = result.metrics["fp32"]["size"], result.engine_metrics["int8"]["size"]
    assert result.verdict.loss == pytest.approx((fp32 - int8) / fp32)


def test_an_engine_is_compared_with_its_onnx_model_tensor_by_tensor(
    build: EngineBuilder, others: Pictures, tmp_path: Path
) -> None:
    engine = build("int8")
    comparison = compare(tmp_path / "int8.onnx", engine, others, layers=True)
    assert comparison.outputs["y"].sqnr_db > 20
    assert list(comparison.layers) == list(compared_tensors(load_model(tmp_path / "int8.onnx", allow_quantized=True)))
    assert all(tensor.sqnr_db > 20 for tensor in comparison.layers.values())


def test_a_float_engine_has_the_values_of_onnx_runtime_in_every_weighted_layer(
    build: EngineBuilder, cnn: Model, others: Pictures
) -> None:
    layers = compare(cnn, build("fp32"), others, layers=True).layers
    assert list(layers) == ["c1", "c2"]
    assert all(tensor.sqnr_db > 40 for tensor in layers.values())  # TF32


def test_engines_of_both_kinds_run_the_users_metric(build: EngineBuilder, cnn: Model) -> None:
    def size(run: Any) -> dict[str, float]:
        return {"size": float(np.abs(run({"x": images(BATCH)})["y"]).mean())}

    data = [{"x": images(BATCH)}]
    for reference in (cnn, build("fp16")):
        assert abs(compare(reference, build("int8"), data, evaluate=size, max_drop=0.09).losses["size"]) < 0.09


def test_a_reading_of_device_memory_waits_for_the_stream_of_another_library() -> None:
    with Device() as device:
        content, back = np.arange(1000, dtype=np.float32), np.empty(1000, np.float32)
        pointer = device.allocate(content.nbytes)
        device.upload(content, pointer)
        device.read(back, pointer, device.stream)
    assert np.array_equal(content, back)


def test_the_commands_inspect_bench_and_compare_give_json(build: EngineBuilder, tmp_path: Path) -> None:
    fp16, int8 = build("fp16"), build("int8")
    np.savez(tmp_path / "images.npz", x=images(8))
    command = ["compare", str(fp16), str(int8), "--data", str(tmp_path / "images.npz"), "--max-drop", "5%", "--json"]
    compared = json.loads(CliRunner().invoke(app, command).stdout)
    assert compared["comparison"]["samples"] == 8
    inspected = json.loads(CliRunner().invoke(app, ["inspect", str(int8), "--json"]).stdout)
    assert inspected["precisions"].get("int8", 0) > 0
    results = json.loads(CliRunner().invoke(app, ["bench", str(fp16), str(int8), "--runs", "20", "--json"]).stdout)
    assert [result["precision"] for result in results] == ["fp16", "int8"]
    assert all(result["latency"]["median_ms"] > 0 for result in results)
