"""Comparisons of INT8 and FP16 plans that TensorRT-RTX logged, layer by layer."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.engines.plans.recorded import MODELS, recorded_plan
from trt_ptq.engines.cost import GPUS, estimate
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.kernel import Kernel, KernelTensor
from trt_ptq.engines.plans.paired_layers import pair_layers
from trt_ptq.engines.plans.plan_comparison import compare_plans, kernels_by_type
from trt_ptq.engines.plans.slow_layers import SlowLayer, find_slow_layers

GPU = GPUS["rtx4090"]


def slow_layers(model: str, *quantized: str) -> dict[str, SlowLayer]:
    """The slow layers of a recorded INT8 plan by their first node; `quantized` are nodes that were to run in INT8."""
    plan = recorded_plan(model, "int8").model_copy(update={"quantized": quantized})
    return {layer.nodes[0]: layer for layer in find_slow_layers(plan, recorded_plan(model, "fp16"), GPU)}


def whats(layer: SlowLayer) -> set[str]:
    return {reason.split(":")[0] for reason in layer.reasons}


@pytest.mark.parametrize("model", MODELS)
def test_every_kernel_that_works_is_in_one_layer_of_each_plan(model: str) -> None:
    int8, fp16 = recorded_plan(model, "int8"), recorded_plan(model, "fp16")
    groups = pair_layers(int8, fp16)
    for plan, kernels in (
        (int8, [kernel.name for group in groups for kernel in group.kernels]),
        (fp16, [kernel.name for group in groups for kernel in group.reference]),
    ):
        assert Counter(kernels) == Counter(kernel.name for kernel in plan.kernels if kernel.works)


@pytest.mark.parametrize("model", MODELS)
def test_a_product_of_one_plan_is_paired_with_that_of_the_other(model: str) -> None:
    for group in pair_layers(recorded_plan(model, "int8"), recorded_plan(model, "fp16")):
        assert any(kernel.macs for kernel in group.kernels) == any(kernel.macs for kernel in group.reference)


@pytest.mark.parametrize("model", MODELS)
def test_a_plan_is_not_slower_than_itself(model: str) -> None:
    plan = recorded_plan(model, "int8")
    compared = compare_plans(plan, plan, GPU)
    assert (compared.slow_layers, compared.slowdown, compared.warnings) == ((), 1, ())


def test_layers_that_lose_the_most_come_first() -> None:
    lost = [layer.lost_seconds for layer in slow_layers("resnet50").values()]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 0


def test_a_model_that_gains_in_every_layer_has_no_slow_layer() -> None:
    assert slow_layers("magika") == {}


def test_int8_results_written_in_float_are_named() -> None:
    layer = slow_layers("recogniser", "p2o.Conv.4")["p2o.Conv.4"]
    assert "its INT8 product writes float32, which another kernel scales and quantizes" in whats(layer)
    assert (layer.exclude, layer.change) == (("p2o.Conv.4",), "exclude it (`nodes_to_exclude`): p2o.Conv.4")


def test_a_result_that_no_kernel_quantizes_is_not_said_to_be_quantized() -> None:
    x, y = KernelTensor.of("x", (8, 64), "int8"), KernelTensor.of("y", (8, 64), "float32")
    half, weights = KernelTensor.of("h", (8, 64), "float16"), KernelTensor.of("w", (64, 64), "int8")
    product = Kernel(name="p", kind="gemm", inputs=(x,), constants=(weights,), outputs=(half,), nodes=("n",), macs=8)
    cast = Kernel(name="c", kind="kgen", inputs=(half,), outputs=(y,), macs=0)
    alone = product.model_copy(update={"outputs": (y,)})
    two, one = (EnginePlan(source="tensorrt", version="1", kernels=kernels) for kernels in ((product, cast), (alone,)))
    (layer,) = find_slow_layers(two, one, GPU)
    assert "its INT8 product writes float16, which another kernel finishes" in layer.reasons


def test_plans_of_different_models_are_compared_as_a_whole_only() -> None:
    compared = compare_plans(recorded_plan("recogniser", "int8"), recorded_plan("minilm", "int8"), GPU)
    assert compared.slow_layers == ()
    assert any("the plans have no layer in common" in warning for warning in compared.warnings)


def test_fp32_around_int8_beside_an_fp16_reference_is_warned_of() -> None:
    int8, fp16 = recorded_plan("magika", "int8"), recorded_plan("magika", "fp16")
    assert compare_plans(int8, fp16, GPU).warnings == ()
    in_fp32 = EnginePlan.model_validate_json(int8.model_dump_json().replace('"float16"', '"float32"'))
    (warning,) = compare_plans(in_fp32, fp16, GPU).warnings
    assert warning.startswith("the plan has FP32 where it has no INT8, and its reference has FP16")


def test_lost_fusions_name_the_nodes() -> None:
    (reason,) = [
        reason for reason in slow_layers("minilm")["node_MatMul_102"].reasons if reason.startswith("no longer in the")
    ]
    assert "node_Erf_105" in reason


def test_a_node_that_was_to_run_in_int8_and_does_not_is_named() -> None:
    assert "was to run in INT8, and does not: p2o.MatMul.0 runs in float16" in (
        slow_layers("recogniser", "p2o.MatMul.0")["p2o.MatMul.0"].reasons
    )


def test_float_between_int8_layers_is_named() -> None:
    attention = slow_layers("minilm")["node_matmul_11"]
    assert "runs in float between INT8 layers, which costs two conversions" in attention.reasons
    assert attention.change == "quantize it, too, or exclude the layers around it"


def test_padded_channels_of_depthwise_convolutions_are_named() -> None:
    layers = slow_layers("recogniser")
    assert any("computes more, as the channels of its groups are padded" in whats(layer) for layer in layers.values())
    assert not any("computes more" in what for layer in slow_layers("resnet50").values() for what in whats(layer))


def test_plans_of_other_versions_and_shapes_are_compared_with_a_warning() -> None:
    plan = recorded_plan("magika", "fp16")
    other = plan.model_copy(update={"version": "1.5.0", "shapes": {"bytes": (1, 2048)}})
    warnings = compare_plans(plan, other, GPU).warnings
    assert "the plans are of tensorrt-rtx 1.7.1.116 and tensorrt-rtx 1.5.0" in warnings[0]
    assert "the plans are for different shapes" in warnings[1]


def test_kernels_by_type_add_up() -> None:
    plan: EnginePlan = recorded_plan("detector", "int8")
    groups = kernels_by_type(estimate(plan, GPU))
    assert sum(group.kernels for group in groups) == plan.num_kernels
    assert sum(group.bytes_moved for group in groups) == plan.bytes_moved
    assert sum(group.macs for group in groups) == plan.macs
