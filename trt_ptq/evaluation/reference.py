"""The float model that others are compared with: what its outputs hold, and their values, computed once for a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx

from trt_ptq.data.scratch import Scratch, StoredArrays
from trt_ptq.errors import ModelError
from trt_ptq.evaluation.joined import Joint, joined_outputs
from trt_ptq.evaluation.runners.runner import Runner, is_engine, open_runner
from trt_ptq.evaluation.scores import score_outputs
from trt_ptq.onnx_io.external_data import SMALL_BYTES
from trt_ptq.provenance import sample_hashes
from trt_ptq.types import Array, Batch

Outputs = Callable[[Batch], dict[str, Array]]


@dataclass(frozen=True)
class OutputKinds:
    """The outputs that hold scores (see `score_outputs`), and those that join several quantities."""

    scores: frozenset[str]
    joints: dict[str, Joint]


@dataclass(frozen=True)
class Reference:
    """A model that others are compared with.

    Attributes:
        path: its ONNX file or engine.
        scratch: where its outputs are kept; without it, they are computed anew in each comparison.
    """

    path: Path
    scratch: Scratch | None = None
    _stored: dict[tuple[int, ...], StoredArrays] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """What messages call the model."""
        return self.path.name

    @cached_property
    def output_kinds(self) -> OutputKinds:
        """What the outputs hold, which an engine does not say; reads the file once.

        Raises:
            ModelError: the file cannot be read.
        """
        if is_engine(self.path):
            return OutputKinds(frozenset(), {})
        try:
            model = onnx.load(self.path, load_external_data=False)
        except Exception as error:  # onnx and protobuf have no common base for their errors
            raise ModelError(f"{self.path}: cannot be read: {error}") from error
        for tensor in model.graph.initializer:  # shape inference copies a model several times
            if len(tensor.raw_data) > SMALL_BYTES:
                tensor.ClearField("raw_data")
        return OutputKinds(score_outputs(model), joined_outputs(model))

    @contextmanager
    def outputs(self, loaded: Runner | None = None) -> Iterator[Outputs]:
        """A function that returns the outputs for a batch, which are stored. Batches are told apart by their values.

        Args:
            loaded: runs the model; without it, the model is loaded at the first batch whose outputs are not stored.
        """
        with ExitStack() as stack:
            runners = [] if loaded is None else [loaded]

            def infer(batch: Batch) -> dict[str, Array]:
                if not runners:
                    runners.append(stack.enter_context(open_runner(self.path)))
                return runners[0].infer(batch.feeds, batch.origin)

            def outputs(batch: Batch) -> dict[str, Array]:
                if self.scratch is None:
                    return infer(batch)
                key = tuple(sample_hashes(batch.feeds))
                if key in self._stored:
                    return self._stored[key].load()
                computed = infer(batch)
                if (stored := self.scratch.store(computed)) is not None:
                    self._stored[key] = stored
                return computed

            yield outputs

    def store_outputs(self, source: Iterable[Batch], loaded: Runner) -> None:
        """Store the outputs for the batches of `source`, where they can be stored, while `loaded` runs the model."""
        if self.scratch is not None:
            with self.outputs(loaded) as outputs:
                for batch in source:
                    outputs(batch)
