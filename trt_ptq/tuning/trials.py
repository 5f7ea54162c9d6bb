"""What tuning tried, and what it settled on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trt_ptq.choices import Technique
from trt_ptq.evaluation.metrics import Metrics
from trt_ptq.recipe import Recipe

TECHNIQUES_TO_TRY: tuple[Technique, ...] = ("equalization", "smoothquant", "bias-correction")  # in this order
TITLES: dict[Technique, str] = {
    "equalization": "cross-layer equalization",
    "rotation": "Hadamard rotation",
    "smoothquant": "SmoothQuant",
    "gptq": "GPTQ rounding",
    "bias-correction": "bias correction",
}

METHODS_BY_KIND = "range methods by kind of layer"

TIME_IS_UP = (
    "`time_limit` was reached while recipes were tried, and this is the best so far; the same command goes on from "
    "there with a longer one"
)
LEFT_OUT = (
    "`time_limit` was reached before {}, a default that was not asked for by name, so it was left out: allow more "
    "time, or name it in `techniques`"
)

DEFAULT_FAILED = "{} is a default for language models and failed on this one, so the recipe is without it: {}"
UNUSED = "{} does not apply to this model, so the recipe is without it: omit it from `techniques`"

Decision = Literal[
    "applied",
    "baseline",
    "accepted",
    "rejected: no gain",
    "rejected: larger output error",
    "rejected: above the threshold",
    "does not apply",
    "failed",
    "analysis",
]


@dataclass(frozen=True)
class Trial:
    """One candidate that tuning tried.

    Attributes:
        name: what is new in it.
        losses: relative loss against FP32 by metric, as fractions; empty if it was not evaluated.
        metrics: the user's metrics behind them; empty without any.
        decision: whether it was accepted, and why not; "applied" for a technique of the recipe, which is not scored on
            its own, and "baseline" for the model with all of these, which the others start from.
        note: details.
        output_error: see `OutputDeviation.measure`; None where nothing depended on it.
    """

    name: str
    losses: dict[str, float]
    metrics: Metrics
    decision: Decision = "accepted"
    note: str = ""
    output_error: float | None = None


@dataclass(frozen=True)
class TuningResult:
    """The result of `tune`.

    Attributes:
        recipe: the recipe that was settled on.
        searched: whether tuning added something to the recipe that it started from, selected by the objective.
        metrics: the user's metrics of its model by the objective; empty without any.
        trials: all candidates, in order.
        warnings: what failed, a sentence each.
    """

    recipe: Recipe
    searched: bool
    metrics: Metrics
    trials: tuple[Trial, ...]
    warnings: tuple[str, ...] = ()

    @property
    def loss(self) -> float:
        """The largest loss of its model by the objective, as a fraction; 0 if nothing was evaluated."""
        losses = [trial.losses for trial in self.trials if trial.decision in ("baseline", "accepted")]
        return max(losses[-1].values(), default=0.0) if losses else 0.0
