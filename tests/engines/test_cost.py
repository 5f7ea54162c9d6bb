"""The roofline estimate, on kernels made by hand and on recorded plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.plans.recorded import MODELS, recorded_plan
from trt_ptq.engines.cost import GPUS, Gpu, estimate, find_gpu, load_gpu
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.engines.plans.kernel import Kernel, KernelTensor
from trt_ptq.engines.running.measured_kernels import MeasuredKernels
from trt_ptq.errors import EngineError, UsageError

GPU = Gpu(
    name="test",
    compute_capability="8.9",
    bandwidth_gb_s=1,
    fp16_tflops=1,
    int8_tops=2,
    fp32_tflops=0.5,
    launch_us=10,
    source="none",
)


def plan_of(dtype: str, size: int, macs: int, source: str = "tensorrt") -> EnginePlan:
    tensor = KernelTensor.of("t", (size,), dtype)
    kernel = Kernel(name="k", kind="gemm", inputs=(tensor,), constants=(tensor,), outputs=(tensor,), macs=macs)
    return EnginePlan(source=source, version="1", kernels=(kernel,))


@pytest.mark.parametrize(
    ("dtype", "size", "macs", "seconds", "bound"),
    [
        ("float16", 10**6, 1, 6e-3 + 1e-5, "memory"),
        ("float16", 1000, 10**10, 2e-2 + 1e-5, "compute"),
        ("int8", 1000, 10**10, 1e-2 + 1e-5, "compute"),
        ("float32", 1000, 10**10, 4e-2 + 1e-5, "compute"),
        ("int8", 1000, 1, 3e-6 + 1e-5, "launch"),
    ],
)
def test_a_kernel_takes_the_longer_of_memory_and_arithmetic_and_its_launch(
    dtype: str, size: int, macs: int, seconds: float, bound: str
) -> None:
    cost = estimate(plan_of(dtype, size, macs), GPU)
    assert cost.seconds == pytest.approx(seconds)
    assert [kernel.bound for kernel in cost.kernels] == [bound]


@pytest.mark.parametrize("model", MODELS)
def test_no_estimate_is_below_what_memory_alone_takes(model: str) -> None:
    for precision in ("fp16", "int8"):
        plan = recorded_plan(model, precision)
        assert estimate(plan, GPUS["rtx4090"]).seconds >= plan.bytes_moved / 1.008e12


@pytest.mark.parametrize("name", ["h100", "h200", "orin"])
def test_a_plan_of_rtx_is_not_judged_on_a_gpu_that_rtx_does_not_support(name: str) -> None:
    with pytest.raises(UsageError, match=rf"does not run on {name} .* choose one of a10, a100, l4, l40s, rtx3090"):
        estimate(plan_of("int8", 10, 10, "tensorrt-rtx"), GPUS[name])
    assert estimate(plan_of("int8", 10, 10), GPUS[name]).seconds > 0


def test_a_plan_without_sizes_has_no_estimate() -> None:
    with pytest.raises(EngineError, match="give the model and a shape"):
        estimate(plan_of("int8", -1, 10), GPU)


def test_every_gpu_of_the_table_has_a_source_and_faster_int8_than_fp16_than_fp32() -> None:
    for gpu in GPUS.values():
        assert "https://" in gpu.source
        assert gpu.int8_tops > gpu.fp16_tflops > gpu.fp32_tflops


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("Tesla T4", "t4"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4070 Ti", None),
        ("NVIDIA A100-SXM4-40GB", None),
        ("NVIDIA H100 PCIe", None),
        ("Orin", None),
        ("NVIDIA RTX A4000", None),
        ("", None),
    ],
)
def test_a_cuda_device_is_found_in_the_table_by_its_name(device: str, name: str | None) -> None:
    gpu = find_gpu(device)
    assert (gpu and gpu.name) == name


def test_measured_times_replace_the_estimate_and_judge_it() -> None:
    cost = estimate(recorded_plan("magika", "int8"), GPUS["rtx4090"])
    first, *others = [found.kernel.name for found in cost.kernels]
    measured = MeasuredKernels("a GPU", {first: 1.0, "another": 2.0})
    assert cost.with_seconds(measured.seconds).seconds == pytest.approx(
        1 + sum(found.seconds for found in cost.kernels[1:])
    )
    judged = measured.judge(cost)
    assert (judged.measured, judged.estimated) == (1.0, cost.kernels[0].seconds)
    assert (judged.unknown, judged.unmeasured) == (("another",), tuple(others))


def test_an_unknown_gpu_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"'rtx9090' is not in the table \(a10, .*t4\): name one of these, or a YAML"):
        load_gpu("rtx9090")


def test_figures_of_a_gpu_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{compute_capability: '8.9', bandwidth_gb_s: 100, fp16_tflops: 10, int8_tops: 20, fp32_tflops: 5, launch_us: 5}"
    )
    gpu = load_gpu(path)
    assert (gpu.name, gpu.int8_tops, gpu.launch_us, gpu.source) == ("mine", 20, 5, str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{compute_capability: '8.9'}", "bandwidth_gb_s: field required"),
        ("- 1", "not a YAML file with the figures of a GPU"),
        ("{a: [", "not a YAML file"),
    ],
)
def test_a_file_without_the_figures_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=rf"`gpu`: .*mine\.yaml.*{message}"):
        load_gpu(path)
    with pytest.raises(UsageError, match="cannot read"):
        load_gpu(tmp_path / "none.yaml")
