"""The cache linter: one finding per defect, and none for a valid cache."""

from __future__ import annotations

import struct

import pytest

from trt_ptq.calibrators.table.cache_lint import CacheFinding, TensorNames, lint_cache
from trt_ptq.calibrators.table.tensorrt_cache import TensorRTCache

HEADER = "TRT-101601-EntropyCalibration2"


def lint(text: str, tensors: list[str] | None = None) -> list[CacheFinding]:
    names = None if tensors is None else TensorNames({*tensors, "needs none"}, tensors)
    return lint_cache(TensorRTCache.parse(text.encode(), "some.cache"), names)


def rules(text: str, tensors: list[str] | None = None) -> list[tuple[str, str, str]]:
    return [(finding.severity, finding.rule, finding.subject) for finding in lint(text, tensors)]


def test_a_valid_cache_has_no_findings() -> None:
    assert lint(f"{HEADER}\nx: 3c010a14\ny: 3caa54fc\n", ["x", "y"]) == []


@pytest.mark.parametrize(
    ("text", "severity", "rule", "subject"),
    [
        ("TRT-101601-Percentile\nx: 3c010a14\n", "error", "algorithm", "TRT-101601-Percentile"),
        ("TRT-110000-EntropyCalibration2\nx: 3c010a14\n", "error", "version", "TRT-110000-EntropyCalibration2"),
        (f"{HEADER}\r\nx: 3c010a14\r\n", "warning", "line-ending", HEADER),
        (f"{HEADER}\nx: 3c010a14\r\n", "warning", "line-ending", HEADER),
        (f"{HEADER}\n", "error", "empty", HEADER),
        (f"{HEADER}\nx: 3c010a14\nx: 3caa54fc\n", "error", "duplicate", "x"),
        (f"{HEADER}\nx: 00000000\ny: 3c010a14\n", "error", "scale", "x"),
        (f"{HEADER}\nx: 00000001\ny: 3c010a14\n", "error", "scale", "x"),
        (f"{HEADER}\nx: 7f800000\ny: 3c010a14\n", "error", "scale", "x"),
        (f"{HEADER}\nx: 7fc00000\ny: 3c010a14\n", "error", "scale", "x"),
        (f"{HEADER}\nx: bc010a14\ny: 3c010a14\n", "error", "scale", "x"),
        (f"{HEADER}\nx: 7e967699\ny: 3c010a14\nz: 3c010a14\n", "warning", "implausible-range", "x"),
        (
            f"{HEADER}\n(Unnamed Layer* 3) [Add]_output: 3c010a14\n",
            "warning",
            "unnamed",
            "(Unnamed Layer* 3) [Add]_output",
        ),
    ],
)
def test_each_rule_finds_its_defect_and_nothing_else(text: str, severity: str, rule: str, subject: str) -> None:
    assert rules(text) == [(severity, rule, subject)]


def test_swapped_bytes_are_one_finding() -> None:
    text = f"{HEADER}\nx: 140a013c\ny: fc54aa3c\nz: 00000000\n"
    assert rules(text) == [("error", "byte-order", HEADER)]


def test_inverted_scales_are_one_finding() -> None:
    entries = "".join(
        f"{name}: {struct.pack('>f', 127 / amax).hex()}\n" for name, amax in zip("xyz", (1, 2.5, 6), strict=True)
    )
    assert rules(f"{HEADER}\n{entries}") == [("error", "inverted", HEADER)]


def test_one_input_of_pixels_does_not_look_inverted() -> None:
    assert lint(f"{HEADER}\nx: {struct.pack('>f', 1e3 / 127).hex()}\ny: 3c010a14\nz: 3caa54fc\n") == []


def test_dead_tensors_do_not_affect_the_median_range() -> None:
    text = f"{HEADER}\na: 00000000\nb: 00000000\nc: 00000000\nx: 3c010a14\n"
    assert {rule for _, rule, _ in rules(text)} == {"scale"}


def test_names_are_compared_with_the_models() -> None:
    findings = rules(f"{HEADER}\nx: 3c010a14\nold: 3c010a14\n", ["x", "new"])
    assert findings == [("warning", "missing-name", "new"), ("warning", "unknown-name", "old")]


def test_every_finding_tells_effect_and_remedy() -> None:
    entries = ["x: 00000000", "x: 7e967699", "(Unnamed Layer* 3): 7e967699", *(f"{name}: 3c010a14" for name in "abc")]
    findings = lint("\r\n".join(["TRT-110000-X", *entries]), ["new"])
    assert len({finding.rule for finding in findings}) == 8
    assert all(finding.effect and finding.remedy for finding in findings)
