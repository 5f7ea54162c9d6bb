"""Applies `BuilderConfig` to TensorRT's builder configuration, and refuses unsupported options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trt_ptq._internal.files import check_writable, write_atomic
from trt_ptq.engines.library import BuilderLog, TensorRTLibrary
from trt_ptq.engines.spec import BuilderConfig
from trt_ptq.errors import EngineError

_LEVELS = {"ampere+": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}


def apply_builder_config(
    library: TensorRTLibrary, builder: Any, config: Any, options: BuilderConfig
) -> tuple[str, ...]:
    """Configure the build, except for the timing cache (see `load_timing_cache`).

    Returns:
        The options that were set, for the manifest.

    Raises:
        EngineError: the library does not support an option, or the machine has no such DLA core.
    """
    trt = library.module
    flags = []
    if options.workspace_bytes is not None:
        library.require(hasattr(config, "set_memory_pool_limit"), "workspace limit")
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        flags.append(f"workspace_bytes={options.workspace_bytes}")
    if options.dla_core is not None:
        _use_dla(library, builder, config, options.dla_core)
        flags.append(f"dla_core={options.dla_core}")
    if options.hardware_compatibility != "none":
        level = _LEVELS[options.hardware_compatibility]
        levels = getattr(trt, "HardwareCompatibilityLevel", None)
        library.require(
            hasattr(levels, level) and "hardware_compatibility" not in library.without_effect,
            f"hardware compatibility level {options.hardware_compatibility}",
        )
        config.hardware_compatibility_level = getattr(levels, level)
        flags.append(f"hardware_compatibility={options.hardware_compatibility}")
    if options.version_compatible:
        library.require(hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE"), "version-compatible engines")
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        flags.append("version_compatible")
    return tuple(flags)


def _use_dla(library: TensorRTLibrary, builder: Any, config: Any, core: int) -> None:
    cores = int(getattr(builder, "num_DLA_cores", 0))
    if not 0 <= core < cores:
        available = f"DLA cores 0 to {cores - 1}" if cores else "no DLA (Jetson and DRIVE modules have one)"
        raise EngineError(f"there is no DLA core {core} (`dla_core`): this machine has {available}")
    trt = library.module
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def require_used_dla(network: Any, config: Any, core: int) -> None:
    """Check that at least one layer can run on the DLA: GPU fallback would silently run all of them.

    Raises:
        EngineError: no layer can.
    """
    if not any(config.can_run_on_DLA(network.get_layer(index)) for index in range(network.num_layers)):
        raise EngineError(
            f"no layer of this model can run on DLA core {core}: build the float model with implicit quantization, or "
            "omit `dla_core`"
        )


def load_timing_cache(library: TensorRTLibrary, config: Any, path: Path, builder_log: BuilderLog) -> None:
    """Give the builder the timings in `path`, or an empty cache if the file does not exist.

    Raises:
        EngineError: the file cannot be read, or was written for another GPU or TensorRT version.
        OutputError: the file cannot be written after the build.
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
    accepted = cache is not None and config.set_timing_cache(cache, ignore_mismatch=False)
    # TensorRT may only warn about a damaged file, and use an empty cache.
    messages = [text for text in (*builder_log.errors, *builder_log.warnings) if "timing cache" in text.lower()]
    if content and (messages or not accepted):
        reason = messages[0] if messages else builder_log.first()
        raise EngineError(
            f"{path}: {library.title} {library.version} refuses this timing cache ({reason}): it is damaged, or was "
            "written for another GPU or version; choose another file"
        )


def save_timing_cache(config: Any, path: Path) -> None:
    """Write the timings of the build.

    Raises:
        OutputError: the file cannot be written.
    """
    write_atomic(path, bytes(config.get_timing_cache().serialize()))
