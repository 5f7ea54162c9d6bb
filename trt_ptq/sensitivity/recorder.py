"""Running parts of a model on tensors that were recorded in one run of the whole model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper

from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.analysis.plugins import cut_plugins
from trt_ptq.analysis.subgraph import GraphSlicer, Subgraph
from trt_ptq.errors import DataError, ModelError, OutputError
from trt_ptq.onnx_io.external_data import NATIVE_DTYPE_KINDS
from trt_ptq.onnx_io.ort_session import create_session, run_session
from trt_ptq.onnx_io.writer import write_two_files
from trt_ptq.types import Array, Batch, BatchSource, ProgressCallback, no_progress

_MAX_OPEN_BATCHES = 4  # whose files one part of a model keeps open


class ActivationRecorder:
    """Records activations of a model on disk, so that memory holds the tensors of only one batch.

    Args:
        model: the model, which is cut before its plugins; its weights are written to `folder`.
        folder: a temporary folder.
        name: what messages call the model.
    """

    def __init__(self, model: ir.Model, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        cut_plugins(model)
        path, weights = folder / "model.onnx", folder / "weights.bin"
        with _full_disk_reported(folder):
            write_two_files(model, path, weights)
        proto = onnx.load(path, load_external_data=False)
        self.network = GraphSlicer(proto)
        self.outputs = tuple(value.name for value in proto.graph.output)
        self._recorded: dict[tuple[int, str], Path | Array] = {}
        self.origins: list[str] = []  # of the batches, for messages

    def record(self, tensors: Iterable[str], source: BatchSource, progress: ProgressCallback = no_progress) -> None:
        """Run the model on each batch of `source`, and record `tensors` and the model's outputs.

        Raises:
            DataError: there are no batches, or the model fails on one.
            ModelError: a value is not a tensor (but a sequence, say).
            OutputError: there is no room in the temporary folder.
        """
        names = sorted({*tensors, *self.outputs})
        proto = self.network.observed(names)
        computed = [value.name for value in proto.graph.output]
        session = self._session(proto)
        for batch in progress(source, "Recording activations", source.total):
            values = dict(batch.feeds) | dict(zip(computed, run_session(session, batch), strict=True))
            for name in names:
                self._store(name, values[name])
            self.origins.append(batch.origin)
        if not self.origins:
            raise DataError("there are no batches to measure on")

    @property
    def batches(self) -> int:
        """Number of batches that were recorded."""
        return len(self.origins)

    def value(self, name: str, batch: int) -> Array:
        """A recorded tensor of batch number `batch`; read-only."""
        recorded = self._recorded[batch, name]
        return np.load(recorded, mmap_mode="r") if isinstance(recorded, Path) else recorded

    def open(self, part: Subgraph) -> SubgraphRunner:
        """Load a part of this model."""
        for value in part.proto.graph.input:
            kind = value.type.tensor_type
            if kind.elem_type == TensorProto.UNDEFINED:
                kind.elem_type = helper.np_dtype_to_tensor_dtype(self.value(value.name, 0).dtype)
        return SubgraphRunner(self, part, self._session(part.proto) if part.outputs else None)

    def _session(self, proto: onnx.ModelProto) -> ort.InferenceSession:
        return create_session(proto, self._folder, self._name)

    def _store(self, name: str, value: object) -> None:
        if not isinstance(value, np.ndarray):
            raise ModelError(f"{self._name}: {name!r} is not a tensor, so the nodes behind it cannot run alone")
        key = (len(self.origins), name)
        if value.dtype.kind not in NATIVE_DTYPE_KINDS:
            self._recorded[key] = value.copy()  # a loader may refill its buffer
            return
        path = self._folder / f"{len(self._recorded)}.npy"
        with _full_disk_reported(self._folder):
            np.save(path, value)
        self._recorded[key] = path


class SubgraphRunner:
    """Runs a part of a model on recorded tensors."""

    def __init__(self, recorder: ActivationRecorder, part: Subgraph, session: ort.InferenceSession | None) -> None:
        self._recorder = recorder
        self._part = part
        self._session = session
        self._live: dict[int, dict[str, Array]] = {}  # by batch: opening files takes longer than small layers do

    def run(self, batch: int, changed: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the outputs for the recorded batch number `batch`, by name.

        Args:
            batch: number of the batch.
            changed: values for the new inputs of the rewiring.

        Raises:
            DataError: the part fails.
        """
        if self._session is None:
            return {}
        if batch not in self._live:
            if len(self._live) == _MAX_OPEN_BATCHES:
                self._live.clear()
            self._live[batch] = {name: self._recorder.value(name, batch) for name in self._part.live_inputs}
        feeds = self._live[batch] | dict(changed)
        outputs = run_session(self._session, Batch(feeds, self._recorder.origins[batch]))
        return dict(zip(self._part.outputs, outputs, strict=True))


@contextmanager
def recording(model: ir.Model, name: str) -> Iterator[ActivationRecorder]:
    """An `ActivationRecorder` of `model`, whose files are removed at the end; `name` is for messages.

    Raises:
        OutputError: there is no room for the weights in the temporary folder.
    """
    with temporary_folder() as folder:
        yield ActivationRecorder(model, folder, name)


@contextmanager
def _full_disk_reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write to the temporary folder {folder.parent}: {error.strerror or error}: free some space, or set "
            "TMPDIR to a larger folder"
        ) from error
