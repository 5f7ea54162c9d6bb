"""A metric in any form."""

from __future__ import annotations

from collections.abc import Collection

from trt_ptq.data.user_function import load_function
from trt_ptq.errors import UsageError
from trt_ptq.evaluation.metrics import Evaluate, UserMetric


def user_metric(evaluate: Evaluate | str | None, lower_is_better: Collection[str] = ()) -> UserMetric | None:
    """The user's metric; None without one.

    Raises:
        UsageError: not a function, or "file.py:function" that cannot be loaded; or `lower_is_better` without it.
    """
    if evaluate is None and lower_is_better:
        raise UsageError("`lower_is_better` names metrics of `evaluate`, which is missing")
    if evaluate is None:
        return None
    if isinstance(evaluate, str):
        return UserMetric(load_function(evaluate), evaluate, tuple(lower_is_better))
    if not callable(evaluate):
        raise UsageError(f'`evaluate` must be a function or "file.py:function", not {type(evaluate).__name__}')
    return UserMetric(evaluate, getattr(evaluate, "__name__", "evaluate"), tuple(lower_is_better))
