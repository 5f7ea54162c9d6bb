"""Whether a higher or a lower value of a metric is better."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

Direction = Literal["higher", "lower"]

LOWER_SUFFIX = "_lower"
_LOWER_WORDS = {
    *("perplexity", "ppl", "nll", "loss", "error", "errors", "err", "latency"),
    *("wer", "cer", "mae", "mse", "rmse", "mape", "fid", "distance", "divergence"),
}
_HIGHER_WORDS = {
    *(
        "accuracy",
        "acc",
        "top",
        "top1",
        "top5",
        "precision",
        "recall",
        "f1",
        "map",
        "ap",
        "ar",
        "auc",
        "auroc",
        "auprc",
    ),
    *("hmean", "iou", "miou", "dice", "bleu", "rouge", "psnr", "ssim", "ndcg", "mrr", "mcc", "kappa"),
    *("pearson", "spearman", "likelihood"),
}
_NEGATED = ("neg", "negative")  # as in scikit-learn's scorers, such as neg_mean_squared_error
_SEPARATORS = re.compile(r"[^0-9a-z]+")


class Lower(float):
    """Marks the value of a metric whose lower values are better.

    It is a `float` otherwise. Return it from an evaluation function: `{"perplexity per byte": Lower(1.9)}`.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Lower({float(self)!r})"


def known_direction(name: str, value: float, lower_is_better: Collection[str] = ()) -> Direction | None:
    """Determine which values of a metric are better; None if neither the caller nor the name says so.

    Names are understood word by word ("val_loss", "eval/loss", "top-1 accuracy"); a word for lower values decides over
    one for higher values ("accuracy_loss", "error_top1" and "wer_ar" are errors). A leading "neg" or "negative"
    reverses it.

    Args:
        name: name of the metric.
        value: its value; `Lower` says that lower values are better.
        lower_is_better: names of metrics whose lower values are better.
    """
    if isinstance(value, Lower) or name in lower_is_better or name.endswith(LOWER_SUFFIX):
        return "lower"
    words = [word for word in _SEPARATORS.split(name.lower()) if word]
    has_lower_word = not _LOWER_WORDS.isdisjoint(words)
    if not has_lower_word and _HIGHER_WORDS.isdisjoint(words):
        return None
    is_lower = has_lower_word != (words[0] in _NEGATED)
    return "lower" if is_lower else "higher"


def is_lower_better(name: str, value: float, lower_is_better: Collection[str] = ()) -> bool:
    """Whether lower values are better; metrics of unknown direction count as higher-is-better."""
    return known_direction(name, value, lower_is_better) == "lower"
