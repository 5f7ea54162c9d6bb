"""From losses to a verdict."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from trt_ptq.errors import DataError
from trt_ptq.evaluation.fidelity import OutputFidelity
from trt_ptq.evaluation.verdict import format_loss, grade, grade_fidelity, relative_loss


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (-0.5, "excellent"),
        (0.0, "excellent"),
        (0.0099, "excellent"),
        (0.01, "acceptable"),
        (0.03, "acceptable"),
        (0.0301, "needs work"),
        (1.0, "needs work"),
    ],
)
def test_grades_follow_the_loss(loss: float, expected: str) -> None:
    assert grade({"accuracy": loss}).grade == expected


def test_the_worst_metric_decides() -> None:
    verdict = grade({"top1": 0.002, "recall": 0.02}, max_drop=0.05)
    assert (verdict.metric, verdict.loss, verdict.passed) == ("recall", 0.02, True)


def test_the_threshold_is_the_users_own() -> None:
    assert not grade({"top1": 0.02}, max_drop=0.01).passed
    assert grade({"top1": 0.02}, max_drop=0.02).passed


@pytest.mark.parametrize(
    ("reference", "candidate", "lower_is_better", "loss"),
    [(0.8, 0.76, False, 0.05), (20.0, 21.0, True, 0.05), (0.0, -0.1, False, 0.1), (-2.0, -2.2, False, 0.1)],
)
def test_loss_is_relative_to_the_reference(
    reference: float, candidate: float, lower_is_better: bool, loss: float
) -> None:
    assert relative_loss(reference, candidate, lower_is_better) == pytest.approx(loss)


def test_no_metric_and_nan_are_refused() -> None:
    with pytest.raises(DataError, match="no metric"):
        grade({})
    with pytest.raises(DataError, match="'top1' is NaN"):
        grade({"top1": math.nan})


def fidelity(sqnr_db: float, top1: float | None = None, changed: float | None = None) -> OutputFidelity:
    return OutputFidelity(sqnr_db, 0.99, top1, 1.0, 0.1, compared=100, changed=changed)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (fidelity(20.1), "excellent"),
        (fidelity(19.9), "acceptable"),
        (fidelity(15.3), "acceptable"),
        (fidelity(15.1), "needs work"),
        (fidelity(40, top1=0.995), "excellent"),
        (fidelity(40, top1=0.98), "acceptable"),
        (fidelity(40, top1=0.83), "needs work"),
        (fidelity(12, top1=1.0), "needs work"),
        (fidelity(0, changed=0.001), "excellent"),
    ],
)
def test_fidelity_has_thresholds_of_its_own(output: OutputFidelity, expected: str) -> None:
    assert grade_fidelity({"y": output}).grade == expected


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (fidelity(42.12), "fidelity of y: 42.1 dB SQNR against FP32; required at least 20.0 dB: passed"),
        (
            fidelity(42.12, top1=0.98),
            "fidelity of y: 42.1 dB SQNR, 98.00% top-1 agreement against FP32; required at least 20.0 dB and 99%: "
            "FAILED",
        ),
        (
            fidelity(0, changed=0.125),
            "fidelity of y: 12.50% of the values changed against FP32; required at most 1%: FAILED",
        ),
        (fidelity(19.96), "fidelity of y: 19.96 dB SQNR against FP32; required at least 20.00 dB: FAILED"),
        (fidelity(20.004), "fidelity of y: 20.004 dB SQNR against FP32; required at least 20.000 dB: passed"),
        (
            fidelity(42.12, top1=0.98996),
            "fidelity of y: 42.1 dB SQNR, 98.996% top-1 agreement against FP32; required at least 20.0 dB and 99%: "
            "FAILED",
        ),
        (
            fidelity(0, changed=0.010001),
            "fidelity of y: 1.0001% of the values changed against FP32; required at most 1%: FAILED",
        ),
    ],
)
def test_a_verdict_on_fidelity_speaks_of_fidelity(output: OutputFidelity, text: str) -> None:
    assert grade_fidelity({"y": output, "z": fidelity(80)}).describe() == text


def test_a_verdict_on_a_metric_speaks_of_its_loss() -> None:
    assert grade({"wer": 0.02}).describe("a.onnx") == "wer: 2.00% loss against a.onnx; allowed 1%: FAILED"
    assert str(grade({"wer": 0.02})) == (
        "acceptable, but worse than allowed (wer: 2.00% loss against FP32; allowed 1%: FAILED)"
    )
    assert grade({"wer": 0.02}, 0.05).sentence("a.onnx").startswith("acceptable (wer: 2.00% loss against a.onnx;")
    assert str(grade({"wer": 0.2})).startswith("needs work (wer: ")


def test_a_verdict_on_a_metric_that_rose_speaks_of_no_loss() -> None:
    text = grade({"top1": -0.0004}).describe()

    assert text == "top1: 0.04% better than FP32; allowed 1% loss: passed"


def test_a_verdict_that_allows_no_error_requires_identical_outputs() -> None:
    verdict = grade_fidelity({"y": fidelity(51, top1=1)}, 0)
    assert verdict.describe().endswith("; required identical outputs: FAILED")


def test_a_broken_output_and_no_output_have_no_verdict_on_fidelity() -> None:
    with pytest.raises(DataError, match="output 'y' is NaN or infinite"):
        grade_fidelity({"y": fidelity(math.nan), "z": fidelity(40)})
    with pytest.raises(DataError, match="no output has a value"):
        grade_fidelity({})


@pytest.mark.parametrize(
    ("loss", "max_drop", "text"),
    [
        (0.0, 0.01, "0.00%"),
        (0.5, 0.01, "50.00%"),
        (-0.0003, 0.01, "-0.03%"),
        (0.000034567, 0.000001, "0.0035%"),
        (0.0000012, 0.000001, "0.00012%"),
        (0.010000004, 0.01, "1.0000004%"),
        (0.01, 0.01, "1.00%"),
        (math.inf, 0.01, "inf%"),
    ],
)
def test_a_loss_can_be_told_from_zero_and_from_the_threshold(loss: float, max_drop: float, text: str) -> None:
    assert format_loss(loss, max_drop) == text


def test_a_failure_of_top1_alone_says_what_the_output_is_taken_for() -> None:
    (decides,) = grade_fidelity({"y": replace(fidelity(40.0, top1=0.97), answers=200)}).warnings()
    assert "6 of 200 answers of 'y' changed" in decides and "regression" in decides
    assert not grade_fidelity({"y": replace(fidelity(40.0, top1=0.995), answers=200)}).warnings()
    assert not grade_fidelity({"y": replace(fidelity(10.0, top1=0.5), answers=200)}).warnings()  # the SQNR fails too


def test_one_answer_of_a_few_is_too_many() -> None:
    _, few = grade_fidelity({"y": replace(fidelity(40.0, top1=0.975), answers=40)}).warnings()
    assert few == "one of 40 answers is 2.5%, more than `max_drop` allows: give more `test_data`"
