"""BuilderConfig, read back from a real builder configuration of TensorRT-RTX."""

from __future__ import annotations

from typing import Any

import pytest

from trt_ptq.engines.building.builder_config import apply_builder_config
from trt_ptq.engines.library import BuilderLog, TensorRTLibrary
from trt_ptq.engines.spec import BuilderConfig
from trt_ptq.errors import UsageError

trt = pytest.importorskip("tensorrt_rtx", reason='needs tensorrt-rtx: pip install "trt-ptq[rtx]"')


@pytest.fixture
def library() -> TensorRTLibrary:
    """TensorRT-RTX, without its list of options that it accepts and ignores: they can still be read back."""
    return TensorRTLibrary("tensorrt-rtx", "TensorRT-RTX", trt)


def configured(library: TensorRTLibrary, options: BuilderConfig) -> tuple[Any, tuple[str, ...]]:
    builder = trt.Builder(BuilderLog(library).logger)
    config = builder.create_builder_config()
    return config, apply_builder_config(library, builder, config, options)


def test_nothing_is_set_by_default(library: TensorRTLibrary) -> None:
    config, flags = configured(library, BuilderConfig())
    assert flags == ()
    assert not config.get_flag(trt.BuilderFlag.VERSION_COMPATIBLE)


def test_the_workspace_limit_reaches_the_builder(library: TensorRTLibrary) -> None:
    config, flags = configured(library, BuilderConfig(workspace_bytes=3 * 2**20))
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 3 * 2**20
    assert flags == ("workspace_bytes=3145728",)


def test_version_compatibility_reaches_the_builder(library: TensorRTLibrary) -> None:
    config, flags = configured(library, BuilderConfig(version_compatible=True))
    assert config.get_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    assert flags == ("version_compatible",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"hardware_compatibility": "hopper"},
            r"must be one of none, ampere\+, .*, not 'hopper'",
        ),
        ({"workspace_bytes": 0}, "`workspace_bytes` must be at least 1, not 0"),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BuilderConfig(**options)
