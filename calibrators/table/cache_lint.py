"""Problems of a TensorRT cache, found before TensorRT silently ignores it or clips tensors."""

from __future__ import annotations

import statistics
import struct
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from trt_ptq.calibrators.table.calibration_table import INT8_MAX, has_usable_scale
from trt_ptq.calibrators.table.tensorrt_cache import ALGORITHMS, LAST_WITH_CALIBRATORS, TensorRTCache

_PLAUSIBLE_SCALES = (1e-9, 1e4)
_LARGE_SCALE = 4.0  # the median of a network is far below: it means a range of 508
_FAR = 1e6  # times the median range: a mask constant, not an activation


@dataclass(frozen=True)
class CacheFinding:
    """A problem; `severity` is "error" (TensorRT rejects, ignores or misuses the entry) or "warning"."""

    severity: str
    rule: str
    subject: str
    effect: str
    remedy: str


@dataclass(frozen=True)
class TensorNames:
    """Tensors of the model of a cache: all of its `activations`, and those that are `quantized`, which need a scale."""

    activations: Collection[str]
    quantized: Collection[str]


def lint_cache(cache: TensorRTCache, tensors: TensorNames | None = None) -> list[CacheFinding]:
    """Return the problems of `cache`, in file order.

    Args:
        cache: The cache to check.
        tensors: Names of the tensors of its model, if known; also checks the names in the cache.
    """
    misread = _misread(cache)
    findings = [*_header(cache), *(misread or _entries(cache))]
    if tensors is not None:
        findings += _names(cache, tensors)
    return findings


def _header(cache: TensorRTCache) -> list[CacheFinding]:
    findings = []
    if cache.algorithm not in ALGORITHMS:
        effect = "no TensorRT calibrator writes this algorithm name, so the file is ignored"
        remedy = "retarget it to EntropyCalibration2 or MinMaxCalibration"
        findings.append(CacheFinding("error", "algorithm", cache.header, effect, remedy))
    if cache.version.major > LAST_WITH_CALIBRATORS.major:
        effect = f"TensorRT {cache.version.major} has no calibrators and reads no cache"
        remedy = "create a Q/DQ model from it: trt-ptq qdq MODEL --table CACHE"
        findings.append(CacheFinding("error", "version", cache.header, effect, remedy))
    if "\r" in cache.newline + cache.ending:
        effect = "TensorRT writes LF; how it reads CRLF is not documented"
        remedy = "convert it: trt-ptq cache retarget writes LF"
        findings.append(CacheFinding("warning", "line-ending", cache.header, effect, remedy))
    if not cache.entries:
        effect = "no tensor runs in INT8"
        findings.append(CacheFinding("error", "empty", cache.header, effect, "calibrate again"))
    return findings


def _misread(cache: TensorRTCache) -> list[CacheFinding]:
    """One finding for the whole file if its scales were written with swapped bytes or inverted."""
    digits = [value for _, value in cache.entries if int(value, 16)]
    scales = [struct.unpack(">f", bytes.fromhex(value))[0] for value in digits]
    swapped = [struct.unpack("<f", bytes.fromhex(value))[0] for value in digits]
    count = sum(_is_plausible(other) and not _is_plausible(scale) for scale, other in zip(scales, swapped, strict=True))
    if 2 * count > len(digits):
        effect = f"{count} of {len(digits)} scales are plausible only with their bytes swapped: TensorRT misreads them"
        remedy = "write the scales in big-endian order, as TensorRT does"
        return [CacheFinding("error", "byte-order", cache.header, effect, remedy)]
    median = statistics.median([scale for scale in scales if _is_plausible(scale)] or [0.0])
    if median > _LARGE_SCALE:
        effect = (
            f"the median range is {median * INT8_MAX:.3g}, but {INT8_MAX / median:.3g} if the scales are inverted "
            "(127 / amax): then most values round to zero"
        )
        remedy = "write amax / 127"
        return [CacheFinding("error", "inverted", cache.header, effect, remedy)]
    return []


def _is_plausible(scale: float) -> bool:
    return _PLAUSIBLE_SCALES[0] <= scale <= _PLAUSIBLE_SCALES[1]


def _entries(cache: TensorRTCache) -> list[CacheFinding]:
    scales = cache.scales()
    median = statistics.median([scale for scale in scales.values() if has_usable_scale(scale * INT8_MAX)] or [1.0])
    repeated = {name for name, count in Counter(name for name, _ in cache.entries).items() if count > 1}
    findings = []
    for name, scale in scales.items():
        if name in repeated:
            effect, remedy = "TensorRT does not document which of the scales it uses", "keep one of the lines"
            findings.append(CacheFinding("error", "duplicate", name, effect, remedy))
        if not has_usable_scale(scale * INT8_MAX):
            effect = f"scale {scale:g}: TensorRT rejects it, or the tensor becomes all zeros"
            remedy = "the tensor is always zero, or the data had NaN: remove the line or calibrate again"
            findings.append(CacheFinding("error", "scale", name, effect, remedy))
        elif scale > median * _FAR:
            effect = f"range {scale * INT8_MAX:.3g}: all other values of the tensor round to zero"
            remedy = "probably an attention-mask constant: remove the line"
            findings.append(CacheFinding("warning", "implausible-range", name, effect, remedy))
        if name.startswith("(Unnamed Layer*"):
            effect = "the number in the name changes with the network, so the range may be applied to another tensor"
            remedy = "name the layers, or use the cache only with the network that it was made from"
            findings.append(CacheFinding("warning", "unnamed", name, effect, remedy))
    return findings


def _names(cache: TensorRTCache, tensors: TensorNames) -> list[CacheFinding]:
    scales = cache.scales()
    findings = []
    for name in scales.keys() - set(tensors.activations):
        effect, remedy = (
            "the model has no such tensor; TensorRT ignores the line",
            "check that the cache belongs to this model",
        )
        findings.append(CacheFinding("warning", "unknown-name", name, effect, remedy))
    for name in set(tensors.quantized) - scales.keys():
        effect, remedy = "no scale: layers that read it do not run in INT8", "calibrate this model again"
        findings.append(CacheFinding("warning", "missing-name", name, effect, remedy))
    return sorted(findings, key=lambda finding: (finding.rule, finding.subject))
