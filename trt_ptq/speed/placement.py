"""Leave the layers in FP16 that INT8 does not make faster, by the plans of a builder.

TensorRT-RTX quantizes in kernels of their own, so a layer that is bound by memory loses in INT8. Each candidate is
built, and its plan is estimated; the fastest is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from trt_ptq._internal.listing import counted
from trt_ptq.engines.cost import Gpu, estimate
from trt_ptq.engines.plans.engine_plan import EnginePlan
from trt_ptq.speed.layer_times import ModelTimes
from trt_ptq.types import ProgressCallback, no_progress

_MIN_GAIN = 0.001  # of the time; less is no reason for another set of layers
_MAX_FAILURES = 5  # in a row: moves come by the time of their layers, so what is left has less to gain
_logger = logging.getLogger(__name__)

Build = Callable[[tuple[str, ...]], EnginePlan]


@dataclass(frozen=True)
class Placement:
    """Which layers run in INT8 for speed.

    Attributes:
        excluded: The nodes that run in FP16 as INT8 does not pay, by their first output, in graph order.
        seconds: Estimated time of the model.
        all_int8_seconds: That with every quantizable layer in INT8.
        float16_seconds: That of the FP16 model.
        layers: Number of layers that could run in INT8.
        builds: Number of INT8 models that were built.
        saved: Estimated seconds that each node in INT8 saves.
    """

    excluded: tuple[str, ...]
    seconds: float
    all_int8_seconds: float
    float16_seconds: float
    layers: int
    builds: int
    saved: Mapping[str, float] = field(default_factory=dict)

    @property
    def pays(self) -> bool:
        """Whether INT8 is faster than FP16, without the layers that are excluded."""
        return self.seconds < self.float16_seconds

    def describe(self, gpu: Gpu) -> str:
        """What was found, in one sentence."""
        everywhere, best = (self.float16_seconds / time for time in (self.all_int8_seconds, self.seconds))
        by = f"by the plans of {counted(self.builds, 'build')}, estimated for {gpu.name}"
        if not self.pays:
            slower = f"no choice of INT8 layers is faster than FP16 (at best {best:.2f} x its speed, {by})"
            return f"{slower}: use FP16. No layer of the INT8 model was left in FP16 for speed"
        if not self.excluded:
            return f"every layer runs in INT8: no layer is faster in FP16 ({by})"
        excluded = f"{len(self.excluded)} of {self.layers} layers stay in FP16, where TensorRT-RTX is faster"
        gain = f"{best:.2f} x the speed of FP16 instead of {everywhere:.2f} x ({by})"
        return f"{excluded}: {gain}; for TensorRT 10 and 11, which have other kernels, use `target=trt`"


def place_layers(
    build: Build,
    float16: EnginePlan,
    nodes: Sequence[str],
    names: Mapping[str, str],
    gpu: Gpu,
    progress: ProgressCallback = no_progress,
    max_builds: int = 12,
    time_is_up: Callable[[], bool] = lambda: False,
) -> Placement:
    """Search for the layers that are faster in FP16: what the plans of INT8 and FP16 propose, then one kind at a time.

    Args:
        build: Builds the INT8 model with nodes excluded, by their first output, and returns its plan.
        float16: Plan of the FP16 model.
        nodes: The quantizable nodes with weights, by their first output, in graph order.
        names: First output of each of these nodes, by its name in plans.
        gpu: The GPU to estimate for.
        progress: Shows progress.
        max_builds: Largest number of models to build; fewer where the last few were no faster.
        time_is_up: Whether no further model may be built.

    Raises:
        EngineError: the INT8 model with all nodes cannot be built or estimated.
        UsageError: see `estimate`.
    """
    search = _Search(build, float16, nodes, names, gpu)
    builds = progress(range(max_builds - 1), "Looking for layers that pay", None)
    for _, excluded in zip(builds, search.moves(), strict=False):
        if time_is_up() or search.failures == _MAX_FAILURES:
            break
        search.try_excluding(excluded)
    reference = estimate(float16, gpu).seconds
    speedup = reference / search.seconds
    _logger.info(
        "fastest choice of layers: %d of %d in FP16, estimated at %.2f x the speed of the FP16 engine",
        len(search.excluded),
        len(nodes),
        speedup,
    )
    saved = {node: seconds for layer, seconds in search.saved_by_layer() for node in layer}
    return Placement(
        tuple(node for node in nodes if node in search.excluded),
        search.seconds,
        search.all_int8_seconds,
        reference,
        len(nodes),
        search.builds,
        saved,
    )


class _Search:
    """The fastest model so far, by the nodes that are excluded, and what to try next."""

    def __init__(
        self, build: Build, float16: EnginePlan, nodes: Sequence[str], names: Mapping[str, str], gpu: Gpu
    ) -> None:
        self._build = build
        self._float16 = float16
        self._names = names
        self._gpu = gpu
        self._order = nodes
        self._plan = build(())
        self._all = ModelTimes(self._plan, float16, names, gpu)
        self.excluded: frozenset[str] = frozenset()
        self.seconds = self.all_int8_seconds = estimate(self._plan, gpu).seconds
        self.builds = 1
        self.failures = 0
        self._tried = {self.excluded}

    def try_excluding(self, excluded: frozenset[str]) -> None:
        """Build the model without these nodes in INT8, and keep it if it is faster."""
        self._tried.add(excluded)
        self.builds += 1
        plan = self._build(tuple(node for node in self._order if node in excluded))
        seconds = estimate(plan, self._gpu).seconds
        if seconds < self.seconds * (1 - _MIN_GAIN):
            self.excluded, self.seconds, self._plan = excluded, seconds, plan
            self.failures = 0
        else:
            self.failures += 1

    def saved_by_layer(self) -> list[tuple[tuple[str, ...], float]]:
        """The layers in INT8, by their nodes, and the estimated seconds that each saves, by the plan of the best."""
        times = ModelTimes(self._plan, self._float16, self._names, self._gpu)
        in_int8 = frozenset(
            index for index in times.quantizable if not self.excluded.issuperset(times.layers[index].nodes)
        )
        saved = times.saved_by_int8(in_int8)
        return [
            (times.layers[index].nodes, sum(map(saved.__getitem__, times.layers[index].nodes))) for index in in_int8
        ]

    def moves(self) -> Iterator[frozenset[str]]:
        """Sets of nodes to exclude that were not tried; each one starts from the best until then."""
        layers = self._all.layers
        fastest = self._all.fastest()
        proposals = [frozenset(node for index in self._all.quantizable - fastest for node in layers[index].nodes)]
        yield from self._new(proposals)
        best = None
        while best != self.excluded:
            best = self.excluded
            losing = sorted((seconds, nodes) for nodes, seconds in self.saved_by_layer() if seconds < 0)
            together = frozenset(node for _, nodes in losing for node in nodes)
            for excluded in self._new([best | together, *(best | set(nodes) for _, nodes in losing)]):
                yield excluded
                if best != self.excluded:
                    break
        kinds: dict[tuple[object, ...], set[int]] = {}
        for index in sorted(self._all.quantizable):
            kinds.setdefault(layers[index].shape, set()).add(index)
        single = [{index} for index in sorted(self._all.quantizable)]
        for group in (list(kinds.values()), single):
            for indices in sorted(group, key=self._time_of, reverse=True):
                nodes = frozenset(node for index in indices for node in layers[index].nodes)
                yield from self._new([self.excluded - nodes if nodes <= self.excluded else self.excluded | nodes])

    def _new(self, candidates: Iterable[frozenset[str]]) -> Iterator[frozenset[str]]:
        """Those that were not tried, and leave a layer in INT8."""
        everything = frozenset(node for index in self._all.quantizable for node in self._all.layers[index].nodes)
        for excluded in candidates:
            if excluded not in self._tried and not excluded >= everything:
                yield excluded

    def _time_of(self, indices: set[int]) -> float:
        chosen = (self._all.layers[index] for index in indices)
        return sum(layer.float16 + layer.rest_int8 for layer in chosen)
