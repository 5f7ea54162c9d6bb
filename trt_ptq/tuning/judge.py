"""The objective, asked about each recipe once, also over several runs, and only while there is time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from trt_ptq.recipe import Recipe
from trt_ptq.tuning.candidates.candidate_builder import CandidateBuilder
from trt_ptq.tuning.kept_trials import KeptTrials
from trt_ptq.tuning.objective import Objective, Score


@dataclass(frozen=True)
class TimeLimit:
    """A time after which no further candidate is begun; what has begun is finished.

    Attributes:
        seconds: from the creation of this object on; None for no limit.
        clock: gives the time in seconds.
    """

    seconds: float | None = None
    clock: Callable[[], float] = time.monotonic
    _start: float = field(init=False, repr=False, default=0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_start", self.clock())  # frozen

    @property
    def seconds_left(self) -> float:
        """Seconds that are left: infinite without a limit, below 0 once it has passed."""
        return math.inf if self.seconds is None else self._start + self.seconds - self.clock()

    @property
    def is_up(self) -> bool:
        """Whether no further candidate may be begun."""
        return self.seconds_left <= 0


class Judge:
    """Scores the models of recipes, with the rest in FP32.

    Args:
        candidates: builds the models.
        objective: scores them.
        kept: what an earlier run measured.
        time_limit: how long candidates may be tried.

    Attributes:
        allowed: most scores that will be asked for, for messages.
    """

    def __init__(
        self, candidates: CandidateBuilder, objective: Objective, kept: KeptTrials, time_limit: TimeLimit
    ) -> None:
        self._candidates = candidates
        self._objective = objective
        self._kept = kept
        self._time_limit = time_limit
        self._num_scores = 0
        self.allowed = 0

    @property
    def has_metric(self) -> bool:
        """Whether scores are by the user's metric; by the fidelity of the outputs otherwise."""
        return self._objective.metric is not None

    @property
    def quantity(self) -> str:
        """What scores measure."""
        return "loss" if self.has_metric else "output error"

    @property
    def time_is_up(self) -> bool:
        """Whether no further candidate may be tried."""
        return self._time_limit.is_up

    @property
    def status(self) -> str:
        """How many scores were asked for, of how many at most, and the time that is left, for messages."""
        left = self._time_limit.seconds_left
        time_left = "" if math.isinf(left) else f", {max(left, 0) / 60:.1f} min left"
        return f"evaluation {self._num_scores} of at most {self.allowed}{time_left}"

    def score(self, recipe: Recipe, limit: float = math.inf) -> Score:
        """The score of the model of `recipe`.

        Args:
            recipe: the recipe.
            limit: a loss that is of no use; see `Objective.evaluate`.

        Raises:
            DataError, ModelError: see `Objective.evaluate`.
        """
        self._num_scores += 1
        kept = self._kept.find("score", recipe)
        if kept is None:
            score = self._objective.evaluate(self._candidates.build_for_search(recipe), limit)
            if score.stopped_after is None:
                self._kept.keep({"losses": score.losses, "metrics": score.metrics}, "score", recipe)
            return score
        return Score(_floats(kept["losses"]), _floats(kept["metrics"]))


def _floats(values: dict[str, float | str]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
