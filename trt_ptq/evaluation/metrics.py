"""The user's own metrics, computed for any number of models."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trt_ptq.data.checks.input_ranges import InputRanges
from trt_ptq.data.user_function import UserFunction, describe_failure
from trt_ptq.errors import DataError, TrtPtqError, UsageError
from trt_ptq.evaluation.by_sample.sample_scores import MetricOfMean, SampleScores
from trt_ptq.evaluation.metric_direction import Lower, is_lower_better, known_direction
from trt_ptq.evaluation.runners.runner import Runner, open_runner
from trt_ptq.evaluation.verdict import relative_loss
from trt_ptq.types import Array, Feeds

Metrics = dict[str, float]
Evaluate = Callable[..., Any]
Split = Literal["select", "test"]

_SUSPICIOUS_GAIN = 0.05  # quantization adds noise: a larger gain usually means a wrong direction or too few samples
_MAX_BATCHES = 8  # whose inputs are compared with the calibration data: a metric may run thousands, for each candidate
_HOW_TO_RUN = "it must call run(feeds) and score what that returns"
_HOW_TO_SAY_LOWER = "return trt_ptq.Lower(value) for it, or name it in `lower_is_better`"


@dataclass(frozen=True)
class MetricEvaluation:
    """What a function of the user's says of a model.

    Attributes:
        metrics: the metrics.
        samples: the scores behind them, if it yields those.
        stopped: whether they are those of the first samples only.
    """

    metrics: Metrics
    samples: SampleScores | None = None
    stopped: bool = False


@dataclass(frozen=True)
class UserMetric:
    """An evaluation function of the user's, which runs a model on data of its own.

    Attributes:
        function: called as `function(run)` or, if it takes two arguments, as `function(run, split)`; returns a dict of
            metrics, name to number, or yields scores of single samples, whose mean is the metric; see `SampleScores`.
            `run(feeds)` returns the outputs of the model by name. `split` is "select" where candidates are selected by
            the metrics, and "test" for the verdict.
        name: what messages call the function.
        lower_is_better: names of metrics whose lower values are better; see `known_direction` for others.
        of_mean: how metrics follow from the mean of scores that the function yields, where they are not that mean: the
            perplexity from the mean loss of tokens. They must rise with it.
        in_groups: whether scores that are yielded together go together, as those of the tokens of a text do; see
            `PairedTest`.
        known_identity: what to return as `identity`, for a function that is not in a file of its own.
        inputs: ranges of the inputs in the first batches that the function ran on any model.
    """

    function: Evaluate
    name: str = "evaluate"
    lower_is_better: Collection[str] = ()
    of_mean: Mapping[str, MetricOfMean] = field(default_factory=dict)
    in_groups: bool = False
    known_identity: str | None = None
    inputs: InputRanges = field(default_factory=lambda: InputRanges(_MAX_BATCHES), compare=False, repr=False)

    @property
    def takes_split(self) -> bool:
        """Whether the function takes the split as its second argument."""
        function = self.function.function if isinstance(self.function, UserFunction) else self.function
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # a built-in without a signature
            return False
        positional = [item for item in parameters if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)]
        return any(item.default is item.empty or item.name == "split" for item in positional[1:2])

    @property
    def _file(self) -> Path | None:
        """The file that the function is written in; None for a built-in, or an object."""
        if isinstance(self.function, UserFunction):
            return self.function.file
        code = getattr(self.function, "__code__", None)
        return Path(code.co_filename) if code else None

    @property
    def identity(self) -> str | None:
        """Identifies the function, by the content of its file and its name, and how its metrics count.

        None for what may change unnoticed: a lambda, an inner function, a method, an object.
        """
        if self.known_identity is not None:
            return self.known_identity
        function = self.function.function if isinstance(self.function, UserFunction) else self.function
        file = self._file
        if file is None or not file.is_file() or not inspect.isfunction(function) or "<" in function.__qualname__:
            return None
        counted = f"{function.__qualname__} {sorted(self.lower_is_better)} {self.takes_split}"
        return hashlib.sha256(file.read_bytes() + counted.encode()).hexdigest()

    def evaluate(self, path: Path, split: Split = "test", *, finite: bool = True) -> Metrics:
        """Compute the metrics of the ONNX model or engine at `path`.

        Args:
            path: the ONNX file or engine.
            split: which part of its data the function is to use, if it takes that.
            finite: refuse metrics that are NaN or infinite.

        Raises:
            DataError, ModelError, EngineError, MissingPackageError: see `evaluate_samples`.
        """
        metrics = self.evaluate_samples(path, split).metrics
        if finite:
            self.require_finite(metrics, path)
        return metrics

    def evaluate_samples(
        self, path: Path, split: Split = "test", stop: Callable[[SampleScores], bool] | None = None
    ) -> MetricEvaluation:
        """Compute the metrics of the ONNX model or engine at `path`, finite or not, with the scores of its samples.

        Args:
            path: the ONNX file or engine.
            split: which part of its data the function is to use, if it takes that.
            stop: tells whether the samples so far suffice, where the function yields scores.

        Raises:
            DataError: the function fails, never runs the model, or returns something else than numbers by name.
            ModelError: ONNX Runtime cannot load the model.
            EngineError, MissingPackageError: the engine cannot be loaded or run here.
        """
        with open_runner(path) as runner:
            return self._evaluate(runner, path, split, stop)

    def evaluate_runner(self, runner: Runner, path: Path) -> Metrics:
        """Compute the metrics of the model at `path`, which `runner` has loaded, on the split "test".

        Raises:
            DataError: see `evaluate_samples`; or a metric is not finite.
        """
        metrics = self._evaluate(runner, path, "test").metrics
        self.require_finite(metrics, path)
        return metrics

    def _evaluate(
        self, runner: Runner, path: Path, split: Split, stop: Callable[[SampleScores], bool] | None = None
    ) -> MetricEvaluation:
        ran = False
        output_names: list[str] = []

        def run(feeds: Feeds) -> dict[str, Array]:
            nonlocal ran, output_names
            if not isinstance(feeds, Mapping):
                raise DataError(f"{self.name}: run takes a dict of arrays by input name, not {type(feeds).__name__}")
            ran = True
            outputs = runner.infer(feeds, self.name)
            output_names = list(map(repr, outputs))
            self.inputs.add(feeds)
            return outputs

        try:
            returned = self.function(run, split) if self.takes_split else self.function(run)
            if inspect.isgenerator(returned):
                return self._consumed(returned, stop, lambda: ran)
        except TrtPtqError:
            raise
        except Exception as error:
            reason = describe_failure(error, self._file)
            if isinstance(error, KeyError) and output_names and str(error) not in output_names:
                reason += f" (the model's outputs are {', '.join(output_names)})"
            raise DataError(f"{self.name} fails on {path.name}: {reason}") from error
        metrics = self._checked(returned)
        if not ran:
            raise DataError(f"{self.name} does not run the model: {_HOW_TO_RUN}")
        return MetricEvaluation(metrics)

    def evaluate_reference(self, path: Path, split: Split = "test") -> Metrics:
        """Compute the metrics of the model that others are compared with.

        Raises:
            DataError, ModelError: see `evaluate`; or no metric leaves anything to lose, since all are 0 already.
            UsageError: `lower_is_better` names a metric that the function does not return.
        """
        metrics = self.evaluate(path, split)
        self.check_reference(metrics, path)
        return metrics

    def check_reference(self, metrics: Metrics, path: Path) -> None:
        """Make sure that others can be compared with `metrics`, those of the model at `path`.

        Raises:
            DataError, UsageError: see `evaluate_reference`.
        """
        self.require_finite(metrics, path)
        unknown = [name for name in self.lower_is_better if name not in metrics]
        if unknown:
            raise UsageError(
                f"`lower_is_better` names {unknown[0]!r}, which {self.name} does not return: "
                f"it returns {', '.join(map(repr, metrics))}"
            )
        if not any(value or is_lower_better(name, value, self.lower_is_better) for name, value in metrics.items()):
            raise DataError(
                f"{self.name}: metric {next(iter(metrics))!r} of {path.name} is 0, so nothing could be lost: is the "
                f"metric right, and its data? (If lower is better, {_HOW_TO_SAY_LOWER}.)"
            )

    def require_finite(self, metrics: Metrics, path: Path) -> None:
        """Make sure that all `metrics` of the model at `path` are finite.

        Raises:
            DataError: names the first metric that is not.
        """
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise DataError(f"{self.name}: metric {name!r} of {path.name} is {value}")

    def losses(self, reference: Metrics, candidate: Metrics) -> dict[str, float]:
        """Relative loss of the candidate by metric; see `metric_losses`."""
        return metric_losses(reference, candidate, self.lower_is_better)

    def warnings(self, reference: Metrics, candidate: Metrics, candidate_name: str) -> list[str]:
        """Warn of metrics of unknown direction, and of gains that are too large to be true."""
        warnings = [
            f"metric {name!r}: higher values are assumed to be better; if lower is better, {_HOW_TO_SAY_LOWER}"
            for name, value in reference.items()
            if known_direction(name, value, self.lower_is_better) is None
        ]
        for name, loss in self.losses(reference, candidate).items():
            if loss < -_SUSPICIOUS_GAIN:
                warnings.append(
                    f"metric {name!r} of {candidate_name} is {-loss:.1%} better than that of the reference, which "
                    f"quantization does not explain: check its direction (if lower is better, {_HOW_TO_SAY_LOWER}), "
                    "and that it is computed on enough samples"
                )
        return warnings

    def input_warnings(self, data: InputRanges, data_name: str = "the calibration data") -> list[str]:
        """Warn of inputs whose values differ clearly from those of the data that `data_name` names."""
        return [
            f"input {name!r}: {self.name} runs the model on values of {evaluated}, but {data_name} has {given}: "
            "preprocess both alike, as INT8 ranges fit only values like those of the calibration data"
            for name, evaluated, given in self.inputs.differences(data)
        ]

    def _consumed(
        self, generator: Iterator[Any], stop: Callable[[SampleScores], bool] | None, ran: Callable[[], bool]
    ) -> MetricEvaluation:
        """The mean scores of the samples that `generator` yields, all or until `stop`."""
        function = self.function.function if isinstance(self.function, UserFunction) else self.function
        scores = SampleScores(self.name, str(getattr(function, "__name__", "score")), self.of_mean)
        steps = self.function.steps(generator) if isinstance(self.function, UserFunction) else generator
        stopped = False
        for item in steps:
            scores.add(item)
            if not ran():
                raise DataError(f"{self.name} does not run the model: {_HOW_TO_RUN}")
            if stop is not None and stop(scores):
                stopped = True
                break
        if not scores.count:
            raise DataError(f"{self.name} yielded no score: it must yield one for each sample")
        return MetricEvaluation(scores.metrics(), scores, stopped)

    def _checked(self, returned: Any) -> Metrics:
        if not isinstance(returned, dict) or not returned:
            raise DataError(f"{self.name} returned {returned!r:.60}: it must return a dict of metrics, name to number")
        try:
            return {str(name): value if isinstance(value, Lower) else float(value) for name, value in returned.items()}
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{self.name} returned a metric that is not a number: {error}") from error


def metric_losses(reference: Metrics, candidate: Metrics, lower_is_better: Collection[str] = ()) -> dict[str, float]:
    """Compute the relative loss of each metric; a gain is below 0.

    Raises:
        DataError: the two do not have the same metrics.
    """
    if reference.keys() != candidate.keys():
        differing = ", ".join(sorted(reference.keys() ^ candidate.keys()))
        raise DataError(f"the evaluation returns {differing} for one model only: it must return the same for both")
    return {
        name: relative_loss(value, candidate[name], is_lower_better(name, value, lower_is_better))
        for name, value in reference.items()
    }
