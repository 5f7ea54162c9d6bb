"""The search for layers that pay in INT8: on plans that are made up, and on those of TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.speed.mixed_network import wide_and_depthwise
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.cost import estimate, load_gpu
from trt_ptq.engines.plans.engine_plan import RTX, EnginePlan
from trt_ptq.engines.plans.kernel import Kernel, KernelTensor
from trt_ptq.engines.plans.plan_file import load_plan, plan_path
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.fp16.convert import to_float16
from trt_ptq.fp16.target_form import convert_for_target
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.provenance import ModelIdentity
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.speed import placement as placement_search
from trt_ptq.speed.layer_times import ModelTimes
from trt_ptq.speed.placement import Placement, place_layers

GPU = load_gpu("rtx4090")
NAMES = {"wide": "c1", "depthwise": "d2", "pointwise": "y"}


def tensor(name: str, megabytes: float, dtype: str) -> KernelTensor:
    size = int(megabytes * 1e6)
    return KernelTensor.of(name, (size // {"int8": 1, "float16": 2}[dtype],), dtype)


def convolution(node: str, source: KernelTensor, result: KernelTensor, macs: int) -> Kernel:
    weights = (tensor(f"{node}.weight", 0.001, "int8"),) if source.dtype == "int8" else ()
    return Kernel(
        name=node, kind="correlation", inputs=(source,), constants=weights, outputs=(result,), nodes=(node,), macs=macs
    )


def quantization(source: KernelTensor, result: KernelTensor) -> Kernel:
    return Kernel(name=f"q.{result.name}", kind="kgen", inputs=(source,), outputs=(result,), macs=0)


def made_up_plan(excluded: tuple[str, ...] | None) -> EnginePlan:
    """Plans of a -> b -> c, where b alone has much arithmetic; None for FP16. INT8 quantizes in kernels of its own."""
    kernels, source = [], tensor("x", 4, "float16")
    for name, macs in {"a": 10**6, "b": 4 * 10**9, "c": 10**6}.items():
        result = tensor(f"{name}.out", 4, "float16")
        if excluded is not None and name not in excluded:
            quantized = tensor(f"{name}.in", 2, "int8")
            kernels.append(quantization(source, quantized))
            source = quantized
        kernels.append(convolution(name, source, result, macs))
        source = result
    return EnginePlan(source=RTX, version="1.7.1", kernels=tuple(kernels))


def test_only_the_layer_with_much_arithmetic_stays_in_int8() -> None:
    nodes = ["a", "b", "c"]
    placement = place_layers(made_up_plan, made_up_plan(None), nodes, {node: node for node in nodes}, GPU)
    assert placement.excluded == ("a", "c")
    assert placement.seconds < placement.all_int8_seconds < placement.float16_seconds
    assert placement.seconds == estimate(made_up_plan(("a", "c")), GPU).seconds
    assert placement.pays
    assert "2 of 3 layers stay in FP16" in placement.describe(GPU)
    assert list(placement.saved) == ["b"]
    assert placement.saved["b"] > 0


def test_the_number_of_builds_is_limited() -> None:
    built: list[tuple[str, ...]] = []

    def build(excluded: tuple[str, ...]) -> EnginePlan:
        built.append(excluded)
        return made_up_plan(excluded)

    nodes = ["a", "b", "c"]
    names = {node: node for node in nodes}
    place_layers(build, made_up_plan(None), nodes, names, GPU, max_builds=3)
    assert len(built) <= 3
    assert len(set(built)) == len(built)
    built.clear()
    placement = place_layers(build, made_up_plan(None), nodes, names, GPU, time_is_up=lambda: True)
    assert (built, placement.excluded, placement.builds) == ([()], (), 1)


def test_the_search_ends_where_models_are_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    def builds() -> int:
        names = {node: node for node in "abc"}
        return place_layers(lambda _: made_up_plan(()), made_up_plan(None), list("abc"), names, GPU).builds

    assert builds() > 3
    monkeypatch.setattr(placement_search, "_MAX_FAILURES", 2)
    assert builds() == 3


def test_the_estimate_of_all_in_one_precision_is_that_of_its_plan() -> None:
    times = ModelTimes(made_up_plan(()), made_up_plan(None), {node: node for node in "abc"}, GPU)
    assert times.seconds(times.quantizable) == pytest.approx(estimate(made_up_plan(()), GPU).seconds)
    assert times.seconds(frozenset()) == pytest.approx(estimate(made_up_plan(None), GPU).seconds)


def test_a_model_that_int8_makes_slower_says_so() -> None:
    placement = Placement(("a",), 2.0, 3.0, 1.0, 2, 4)
    assert not placement.pays
    assert placement.describe(GPU).startswith("no choice of INT8 layers is faster than FP16 (at best 0.50 x its speed")
    assert placement.describe(GPU).endswith("use FP16. No layer of the INT8 model was left in FP16 for speed")


@pytest.fixture
def rtx_plans(tmp_path: Path) -> tuple[Callable[[tuple[str, ...]], EnginePlan], EnginePlan]:
    """Plans of TensorRT-RTX for `wide_and_depthwise`: by excluded nodes, and in FP16."""
    pytest.importorskip("tensorrt_rtx")
    model = load_model(wide_and_depthwise(tmp_path / "m.onnx"))
    table = CalibrationTable({"x": 3.0, "r1": 4.0, "r2": 4.0})
    amax = {"x": 3.0, "c1": 5.0, "r1": 5.0, "d2": 5.0, "r2": 5.0, "y": 9.0}

    def plan() -> EnginePlan:
        engine = tmp_path / "m.engine"
        build_engine(EngineSpec(tmp_path / "built.onnx", engine, "int8", ModelIdentity("graph", "weights")), "rtx")
        return load_plan(plan_path(engine))

    def int8(excluded: tuple[str, ...]) -> EnginePlan:
        form = convert_for_target(insert_qdq(model, table, excluded), amax, "rtx")
        save_model(form.converted.model, tmp_path / "built.onnx")
        return plan()

    save_model(to_float16(model, amax), tmp_path / "built.onnx")
    return int8, plan()


def test_rtx_runs_a_wide_convolution_in_int8_and_a_depthwise_one_in_fp16(
    rtx_plans: tuple[Callable[[tuple[str, ...]], EnginePlan], EnginePlan],
) -> None:
    int8, float16 = rtx_plans
    placement = place_layers(int8, float16, list(NAMES.values()), NAMES, GPU)
    assert "d2" in placement.excluded
    assert "c1" not in placement.excluded
    assert placement.seconds < placement.all_int8_seconds
