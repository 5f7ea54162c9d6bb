"""The stand-ins under the genuine packages: what they promise to the tests that are built on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import packages
from .libraries import Standins, StandinUnavailableError, build
from .probes import LATEST, ask, header, probe, run, table

# ---- calibration, as TensorRT drives it


def test_scales_are_those_that_numpy_computes_from_the_batches(standins: Standins, version: str) -> None:
    outcome = probe(standins, {}, version=version)
    assert outcome["written"] == table(header(version), batches=5)
    assert outcome["plan"]["source"] == "calibrated"
    assert outcome["plan"]["table"] == outcome["written"]


def test_callbacks_come_in_the_order_of_the_contract(standins: Standins, version: str) -> None:
    outcome = probe(standins, {"batches": 2}, version=version)
    ends = ["get_batch_size", "read_calibration_cache"], ["write_calibration_cache"]
    assert outcome["calls"] == [*ends[0], "get_batch", "get_batch", "get_batch", *ends[1]]
    assert outcome["names"] == ["image", "mask"]


def test_pointers_are_in_the_order_of_the_requested_names(standins: Standins) -> None:
    outcome = probe(standins, {}, reverse_names=True)
    assert outcome["names"] == ["mask", "image"]
    assert outcome["written"] == table(header(LATEST), batches=5)


@pytest.mark.parametrize("failure", ["ValueError", "KeyboardInterrupt"])
def test_exception_in_get_batch_ends_the_data_and_a_partial_cache_is_written(
    standins: Standins, version: str, failure: str
) -> None:
    outcome = probe(standins, {"fail_at": 2, "failure": failure}, version=version)
    assert outcome["written"] == table(header(version), batches=2)
    assert outcome["plan"]["batches"] == 2
    assert "batch 2 is broken" in outcome["log"]


def test_empty_list_ends_the_data(standins: Standins, version: str) -> None:
    outcome = probe(standins, {"fail_at": 3, "failure": "empty"}, version=version)
    assert outcome["written"] == table(header(version), batches=3)


def test_cache_is_written_from_a_read_only_view(standins: Standins, version: str) -> None:
    assert probe(standins, {}, version=version)["written_is_read_only"] is True


def test_no_batch_at_all_fails_the_build_and_writes_nothing(standins: Standins, version: str) -> None:
    outcome = probe(standins, {"fail_at": 0}, version=version)
    assert outcome["plan"] is None
    assert outcome["written"] is None


def test_matching_cache_is_used_and_no_batch_is_requested(standins: Standins, version: str) -> None:
    cache = table(header(version), batches=1)
    outcome = probe(standins, {"cache": cache}, version=version)
    assert "get_batch" not in outcome["calls"]
    assert outcome["plan"]["source"] == "cache"
    assert outcome["plan"]["table"] == cache


def test_cache_of_another_minor_version_is_used(standins: Standins, version: str) -> None:
    outcome = probe(standins, {"cache": table("TRT-100700-EntropyCalibration2", batches=1)}, version=version)
    assert outcome["plan"]["source"] == "cache"


@pytest.mark.parametrize("first_line", ["TRT-8601-EntropyCalibration2", "TRT-110000-EntropyCalibration2"])
def test_cache_of_another_major_version_is_ignored(standins: Standins, version: str, first_line: str) -> None:
    outcome = probe(standins, {"cache": table(first_line, batches=1)}, version=version)
    assert outcome["plan"]["source"] == "calibrated"
    assert outcome["written"] == table(header(version), batches=5)


def test_cache_of_another_algorithm_is_ignored(standins: Standins) -> None:
    outcome = probe(standins, {"cache": table(header(LATEST, "MinMaxCalibration"), batches=1)})
    assert outcome["plan"]["source"] == "calibrated"


def test_name_missing_from_the_cache_gets_a_warning(standins: Standins) -> None:
    outcome = probe(standins, {"cache": f"{header(LATEST)}\nimage: 3c010204\n"})
    assert "Missing scale and zero-point for tensor mask" in outcome["log"]
    assert "for tensor image" not in outcome["log"]


@pytest.mark.parametrize(
    ("calibrator", "algorithm"),
    [("IInt8MinMaxCalibrator", "MinMaxCalibration"), ("IInt8EntropyCalibrator", "EntropyCalibration")],
)
def test_header_names_the_algorithm(standins: Standins, calibrator: str, algorithm: str) -> None:
    outcome = probe(standins, {"calibrator": calibrator})
    assert outcome["written"] == table(header(LATEST, algorithm), batches=5)


# ---- memory


def test_freed_memory_is_counted_as_freed(standins: Standins, version: str) -> None:
    outcome = probe(standins, {}, version=version)
    assert outcome["before_free"]["device_allocations"] == 2
    assert outcome["before_free"]["copies_to_device"] == 10
    after = outcome["after_free"]
    leaked = {name: after[name] for name in ("device_allocations", "device_bytes", "streams", "primary_context_users")}
    assert set(leaked.values()) == {0}, leaked


def test_out_of_memory_reaches_the_caller(standins: Standins) -> None:
    outcome = probe(standins, {}, limit_bytes=100)
    assert "CUDA_ERROR_OUT_OF_MEMORY" in outcome["log"]
    assert outcome["plan"] is None


def test_buffer_too_short_for_the_batch_fails_the_build(standins: Standins) -> None:
    outcome = probe(standins, {"short_buffer": True})
    assert "an illegal memory access was encountered" in outcome["log"]
    assert outcome["plan"] is None


def test_no_device(standins: Standins) -> None:
    code = "from cuda.bindings import driver; print(driver.cuInit(0)[0].name, driver.cuDeviceGetCount()[0].name)"
    answer = ask(standins, code, no_device=True)
    assert answer == "CUDA_ERROR_NO_DEVICE CUDA_ERROR_NOT_INITIALIZED"


def test_deferred_copy_is_there_after_a_synchronize(standins: Standins) -> None:
    outcome = probe(standins, {"copy": "asynchronous"}, defer=True)
    assert outcome["written"] == table(header(LATEST), batches=5)


def test_missing_synchronize_shows_when_copies_are_deferred(standins: Standins) -> None:
    outcome = probe(standins, {"copy": "unsynchronized"}, defer=True)
    assert outcome["written"] != table(header(LATEST), batches=5)


def test_pinned_buffer_reused_before_a_synchronize_shows_when_copies_are_deferred(standins: Standins) -> None:
    code = """
import ctypes
from cuda.bindings import driver as d
from standin import counters
d.cuInit(0); d.cuCtxSetCurrent(d.cuDevicePrimaryCtxRetain(0)[1])
_, stream = d.cuStreamCreate(0)
_, device = d.cuMemAlloc(4)
_, pinned = d.cuMemAllocHost(4)
host = ctypes.c_int32.from_address(pinned)
host.value = 1
d.cuMemcpyHtoDAsync(device, pinned, 4, stream)
print(d.cuStreamQuery(stream)[0].name, counters().pinned_allocations)
host.value = 2
d.cuStreamSynchronize(stream)
back = ctypes.c_int32()
d.cuMemcpyDtoH(ctypes.addressof(back), device, 4)
d.cuMemFreeHost(pinned)
print(d.cuStreamQuery(stream)[0].name, counters().pinned_allocations, back.value)
"""
    assert ask(standins, code, defer=True).split("\n") == ["CUDA_ERROR_NOT_READY 1", "CUDA_SUCCESS 0 2"]


def test_event_makes_a_stream_wait_for_another_and_measures_time(standins: Standins) -> None:
    code = """
import ctypes
from cuda.bindings import driver as d
d.cuInit(0); d.cuCtxSetCurrent(d.cuDevicePrimaryCtxRetain(0)[1])
(_, copies), (_, kernels) = d.cuStreamCreate(1), d.cuStreamCreate(1)
(_, start), (_, end) = d.cuEventCreate(0), d.cuEventCreate(0)
_, device = d.cuMemAlloc(4)
d.cuEventRecord(start, copies)
d.cuMemsetD32Async(device, 7, 1, copies)
d.cuEventRecord(end, copies)
d.cuStreamWaitEvent(kernels, end, 0)
print(d.cuEventQuery(end)[0].name, d.cuEventElapsedTime(start, end)[0].name)
d.cuStreamSynchronize(kernels)
back = ctypes.c_int32()
d.cuMemcpyDtoH(ctypes.addressof(back), device, 4)
print(back.value, d.cuEventElapsedTime(start, end)[1] >= 0)
"""
    assert ask(standins, code, defer=True).split("\n") == [
        "CUDA_ERROR_NOT_READY CUDA_ERROR_NOT_READY",
        "7 True",
    ]


def test_function_that_is_not_there_answers_not_supported(standins: Standins) -> None:
    code = "from cuda.bindings import driver; driver.cuInit(0); print(driver.cuModuleLoad(b'x')[0].name)"
    assert ask(standins, code) == "CUDA_ERROR_NOT_SUPPORTED"


# ---- the builder around calibration


def test_build_leaves_a_timing_cache_and_a_plan_that_is_no_engine(standins: Standins, version: str) -> None:
    outcome = probe(standins, {}, version=version)
    assert outcome["timing_cache"] > 0
    assert outcome["engine"] is None
    assert "a stand-in plan has no engine in it" in outcome["log"]


def test_plan_of_another_version_is_refused(standins: Standins) -> None:
    code = """
import tensorrt as trt
logger = trt.Logger()
builder = trt.Builder(logger)
network = builder.create_network(0)
network.mark_output(network.add_identity(network.add_input("x", trt.float32, (1, 3))).get_output(0))
plan = bytes(builder.build_serialized_network(network, builder.create_builder_config()))
runtime = trt.Runtime(logger)
print(runtime.deserialize_cuda_engine(plan.replace(b"101601", b"100900")))
"""
    done = run(standins, ["-c", code])
    assert done.returncode == 0, done.stderr
    assert "the plan is of version 100900" in done.stdout + done.stderr
    assert "None" in done.stdout


def test_builder_configuration_is_stored(standins: Standins, version: str) -> None:
    code = """
import warnings; warnings.simplefilter("ignore")
import tensorrt as trt
builder = trt.Builder(trt.Logger())
config = builder.create_builder_config()
config.set_flag(trt.BuilderFlag.FP16); config.clear_flag(trt.BuilderFlag.TF32)
config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 33)
config.builder_optimization_level = 5
config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
tensor = network.add_input("x", trt.float16, (-1, 8))
tensor.set_dynamic_range(-2.5, 2.5)
print(config.get_flag(trt.BuilderFlag.FP16), config.get_flag(trt.BuilderFlag.TF32))
print(config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) >> 30, config.builder_optimization_level)
print(config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED, network.flags)
print(tensor.name, tensor.dtype == trt.float16, tuple(tensor.shape), tensor.dynamic_range)
"""
    answer = ask(standins, code, version=version)
    assert answer.split("\n") == ["True False", "8 5", "True 2", "x True (-1, 8) (-2.5, 2.5)"]


# ---- pycuda


@pytest.fixture(scope="module")
def pycuda(standins: Standins) -> Path:
    try:
        return packages.pycuda(standins)
    except StandinUnavailableError as error:
        pytest.skip(f"pycuda cannot be built here: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("copy", ["synchronous", "asynchronous"])
def test_calibration_from_pycuda_memory(standins: Standins, pycuda: Path, version: str, copy: str) -> None:
    outcome = probe(standins, {"memory": "pycuda", "copy": copy}, version=version, memory=pycuda, defer=True)
    assert outcome["written"] == table(header(version), batches=5)
    assert outcome["after_free"]["device_allocations"] == 0


@pytest.mark.slow
def test_pycuda_raises_memory_error_when_memory_is_out(standins: Standins, pycuda: Path) -> None:
    outcome = probe(standins, {"memory": "pycuda"}, memory=pycuda, limit_bytes=100)
    assert "cuMemAlloc failed: out of memory" in outcome["log"]


# ---- building the stand-ins


def test_missing_compiler_is_a_plain_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(StandinUnavailableError, match=r"no-such-compiler.*install g\+\+"):
        build(tmp_path)


def test_second_build_does_not_compile(standins: Standins) -> None:
    stamp = (standins.libraries / "libcuda.so.1").stat().st_mtime_ns
    assert build() == standins
    assert (standins.libraries / "libcuda.so.1").stat().st_mtime_ns == stamp
