"""Does INT8 pay: what the comparison of two engines says."""

from __future__ import annotations

import pytest

from trt_ptq.speed.engine_comparison import EngineFigures, SpeedComparison


def comparison(int8_ms: float, size: int = 1_000_000, basis: str = "estimated") -> SpeedComparison:
    """An FP16 engine of 1 ms and 2 MB that moves 100 MB, against an INT8 engine that moves 280 MB."""
    return SpeedComparison.model_validate(
        {
            "basis": basis,
            "builder": "tensorrt-rtx",
            "gpu": "rtx4090",
            "int8": EngineFigures(
                size_bytes=size, milliseconds=int8_ms, bytes_moved=280_000_000, kernels=90, constant_bytes=700_000
            ),
            "fp16": EngineFigures(
                size_bytes=2_000_000, milliseconds=1.0, bytes_moved=100_000_000, kernels=60, constant_bytes=1_500_000
            ),
            "slow_layers": ("c1 (+9.0 us: writes float32)",),
        }
    )


def test_a_slower_engine_is_named_with_the_reason() -> None:
    found = comparison(2.0)
    assert found.sentence == (
        "INT8 is estimated to run at 0.50 x the speed of FP16 on rtx4090, moving 2.80 x the bytes with tensorrt-rtx: "
        "slower"
    )
    assert found.findings == ("slower in INT8 than in FP16: c1 (+9.0 us: writes float32)",)


def test_a_larger_engine_is_accounted_for() -> None:
    (finding,) = comparison(0.5, size=5_000_000).findings
    assert finding == (
        "the INT8 engine is larger than the FP16 engine: 5.00 MB, FP16 2.00 MB; of weights and other constants INT8 "
        "0.70 MB, FP16 1.50 MB, the rest is kernel code"
    )


@pytest.mark.parametrize(("milliseconds", "judgement"), [(0.5, "faster"), (0.99, "no faster"), (1.2, "slower")])
def test_small_differences_are_none(milliseconds: float, judgement: str) -> None:
    assert comparison(milliseconds).judgement == judgement


def test_measured_times_are_not_called_estimates() -> None:
    assert "is estimated" not in comparison(0.5, basis="measured").sentence
