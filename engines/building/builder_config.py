"""Tells a builder's configuration what `BuilderSettings` says, and refuses what it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trt_ptq._internal.files import check_writable, write_atomic
from trt_ptq.engines.library import BuilderLog, TensorRTLibrary
from trt_ptq.engines.spec import BuilderSettings
from trt_ptq.errors import EngineError

_LEVELS = {"ampere+": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}


def apply_settings(library: TensorRTLibrary, builder: Any, config: Any, settings: BuilderSettings) -> tuple[str, ...]:
    """Configure the build; returns what was set, in words, for the manifest. The timing cache is apart: see below.

    Raises:
        EngineError: the library has no such setting, or the machine no such DLA core.
    """
    trt = library.module
    told = []
    if settings.workspace_bytes is not None:
        library.require(hasattr(config, "set_memory_pool_limit"), "workspace limit")
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
        told.append(f"workspace_bytes={settings.workspace_bytes}")
    if settings.dla_core is not None:
        _use_dla(library, builder, config, settings.dla_core)
        told.append(f"dla_core={settings.dla_core}")
    if settings.hardware_compatibility != "none":
        level = _LEVELS[settings.hardware_compatibility]
        levels = getattr(trt, "HardwareCompatibilityLevel", None)
        library.require(
            hasattr(levels, level) and "hardware_compatibility" not in library.without_effect,
            f"hardware compatibility level {settings.hardware_compatibility}",
        )
        config.hardware_compatibility_level = getattr(levels, level)
        told.append(f"hardware_compatibility={settings.hardware_compatibility}")
    if settings.version_compatible:
        library.require(hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE"), "version-compatible engines")
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        told.append("version_compatible")
    return tuple(told)


def _use_dla(library: TensorRTLibrary, builder: Any, config: Any, core: int) -> None:
    cores = int(getattr(builder, "num_DLA_cores", 0))
    if not 0 <= core < cores:
        there = f"DLA cores 0 to {cores - 1}" if cores else "no DLA (Jetson and DRIVE modules do)"
        raise EngineError(f"there is no DLA core {core}: this machine has {there}")
    trt = library.module
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def require_used_dla(network: Any, config: Any, core: int) -> None:
    """Make sure that a layer can run on the DLA: GPU fallback would take all of them without a word.

    Raises:
        EngineError: none can.
    """
    if not any(config.can_run_on_DLA(network.get_layer(index)) for index in range(network.num_layers)):
        raise EngineError(
            f"no layer of this model can run on DLA core {core} as it is: build the float model with --implicit, "
            "or leave --dla-core out"
        )


def load_timing_cache(library: TensorRTLibrary, config: Any, path: Path, builder_log: BuilderLog) -> None:
    """Give the builder the timings in `path`; without that file it starts an empty cache.

    Raises:
        EngineError: the file cannot be read, or is of another GPU or TensorRT.
        OutputError: it cannot be written after the build.
    """
    check_writable(path)
    library.require(
        hasattr(config, "create_timing_cache") and "timing_cache" not in library.without_effect, "timing cache"
    )
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise EngineError(f"cannot read timing cache {path}: {error.strerror}") from error
    cache = config.create_timing_cache(content)
    taken = cache is not None and config.set_timing_cache(cache, ignore_mismatch=False)
    # A damaged file may only be warned of, and replaced by an empty cache.
    said = [text for text in (*builder_log.errors, *builder_log.warnings) if "timing cache" in text.lower()]
    if content and (said or not taken):
        reason = said[0] if said else builder_log.first()
        raise EngineError(
            f"{path}: {library.title} {library.version} refuses this timing cache ({reason}): it is damaged, or of "
            "another GPU or version; name another file"
        )


def save_timing_cache(config: Any, path: Path) -> None:
    """Write what the builder timed.

    Raises:
        OutputError: the file cannot be written.
    """
    write_atomic(path, bytes(config.get_timing_cache().serialize()))
