"""Whether a higher or a lower value of a metric is better."""

from __future__ import annotations

import json
import math

import pytest

from trt_ptq.evaluation.metric_direction import Lower, is_lower_better, known_direction


@pytest.mark.parametrize(
    "name",
    [
        *("perplexity", "ppl", "loss", "error", "err", "WER", "cer", "MAE", "mse", "rmse", "FID", "nll", "latency"),
        *("val_loss", "eval/loss", "word error rate", "top-1 error", "accuracy_loss", "score_lower", "mean-err"),
        *("neg_log_likelihood", "mse (test)"),
        *("wer_ar", "error_top1", "mse_precision", "loss_map", "error_recall"),
    ],
)
def test_lower_is_better_by_name(name: str) -> None:
    assert known_direction(name, 1.0) == "lower"


@pytest.mark.parametrize(
    "name",
    [
        *("accuracy", "F1", "mAP", "hmean", "BLEU", "val_accuracy", "top-1 accuracy", "mAP@0.5", "neg_error_top1"),
        *("neg_mean_squared_error", "log_likelihood", "character_accuracy", "cosine_accuracy"),
    ],
)
def test_higher_is_better_by_name(name: str) -> None:
    assert known_direction(name, 1.0) == "higher"


@pytest.mark.parametrize("name", ["lossless", "quality", "flowers", "terror", "glossary", "mapped", "perplexed", ""])
def test_words_inside_other_words_say_nothing(name: str) -> None:
    assert known_direction(name, 1.0) is None
    assert not is_lower_better(name, 1.0)


def test_the_user_has_the_last_word() -> None:
    assert known_direction("accuracy", Lower(0.9)) == "lower"
    assert known_direction("accuracy", 0.9, ("accuracy",)) == "lower"
    assert known_direction("bits", 0.9, ["bits"]) == "lower"


def test_lower_is_a_number() -> None:
    value = Lower(25.5)
    assert value == 25.5
    assert value + 1 == 26.5
    assert f"{value:.2f}" == "25.50"
    assert json.dumps({"perplexity": value}) == '{"perplexity": 25.5}'
    assert repr(value) == "Lower(25.5)"
    assert math.isinf(Lower("inf"))
