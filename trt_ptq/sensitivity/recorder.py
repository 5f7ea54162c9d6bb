"""Running parts of a model on tensors that were recorded in one run of the whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper

from trt_ptq.analysis.subgraph import GraphSlicer, Subgraph
from trt_ptq.errors import DataError, ModelError, OutputError
from trt_ptq.onnx_io.external_data import NATIVE_DTYPE_KINDS
from trt_ptq.onnx_io.ort_session import create_session, run_session, session_options
from trt_ptq.onnx_io.writer import write_two_files
from trt_ptq.types import Array, Batch, BatchSource, ProgressCallback, no_progress


class ActivationRecorder:
    """A model in a temporary `folder`, and what was recorded of it, which lies there too: memory holds the tensors of
    one batch. Q/DQ is computed as it is written, in float, as the arithmetic of INT8 kernels is not what is asked."""

    def __init__(self, model: ir.Model, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        path, weights = folder / "model.onnx", folder / "weights.bin"
        with _full_disk(folder):
            write_two_files(model, path, weights)
        proto = onnx.load(path, load_external_data=False)
        self.network = GraphSlicer(proto)
        self.outputs = tuple(value.name for value in proto.graph.output)
        self._kept: dict[tuple[int, str], Path | Array] = {}
        self.origins: list[str] = []  # of the batches, for messages

    def record(self, tensors: Iterable[str], source: BatchSource, progress: ProgressCallback = no_progress) -> None:
        """Run the model on each batch of `source`, and keep `tensors` and the model's outputs.

        Raises:
            DataError: no batches, or the model fails on one.
            ModelError: a tensor that is none (a sequence, say).
            OutputError: no room for them in the temporary folder.
        """
        names = sorted({*tensors, *self.outputs})
        proto = self.network.observed(names)
        computed = [value.name for value in proto.graph.output]
        session = self._session(proto)
        for batch in progress(source, "Recording activations", source.total):
            values = dict(batch.feeds) | dict(zip(computed, run_session(session, batch), strict=True))
            for name in names:
                self._keep(name, values[name])
            self.origins.append(batch.origin)
        if not self.origins:
            raise DataError("there are no batches to measure on")

    @property
    def batches(self) -> int:
        """How many were recorded."""
        return len(self.origins)

    def value(self, name: str, batch: int) -> Array:
        """A recorded tensor of the batch of that number; not to be written to."""
        kept = self._kept[batch, name]
        return np.load(kept, mmap_mode="r") if isinstance(kept, Path) else kept

    def open(self, part: Subgraph) -> SubgraphRunner:
        """`part` of this model, ready to run."""
        for value in part.proto.graph.input:
            kind = value.type.tensor_type
            if kind.elem_type == TensorProto.UNDEFINED:
                kind.elem_type = helper.np_dtype_to_tensor_dtype(self.value(value.name, 0).dtype)
        return SubgraphRunner(self, part, self._session(part.proto) if part.outputs else None)

    def _session(self, proto: onnx.ModelProto) -> ort.InferenceSession:
        options = session_options()
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        return create_session(proto, self._folder, self._name, options)

    def _keep(self, name: str, value: object) -> None:
        if not isinstance(value, np.ndarray):
            raise ModelError(f"{self._name}: {name!r} is no tensor, so what is behind it cannot be run alone")
        key = (len(self.origins), name)
        if value.dtype.kind not in NATIVE_DTYPE_KINDS:
            self._kept[key] = value
            return
        path = self._folder / f"{len(self._kept)}.npy"
        with _full_disk(self._folder):
            np.save(path, value)
        self._kept[key] = path


class SubgraphRunner:
    """A part of a model on recorded tensors."""

    def __init__(self, recorder: ActivationRecorder, part: Subgraph, session: ort.InferenceSession | None) -> None:
        self._replay = recorder
        self._part = part
        self._session = session

    def run(self, batch: int, changed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for the recorded batch of that number; `changed` are the inputs of the change.

        Raises:
            DataError: it fails.
        """
        if self._session is None:
            return {}
        feeds = {name: self._replay.value(name, batch) for name in self._part.live_inputs} | dict(changed)
        found = run_session(self._session, Batch(feeds, self._replay.origins[batch]))
        return dict(zip(self._part.outputs, found, strict=True))


@contextmanager
def recording(model: ir.Model, name: str) -> Iterator[ActivationRecorder]:
    """A `ActivationRecorder` of `model`, for which `name` stands in messages; what it wrote is removed at the end.

    Raises:
        OutputError: no room for the weights in the temporary folder.
    """
    with tempfile.TemporaryDirectory(prefix="trt-ptq-") as folder:
        yield ActivationRecorder(model, Path(folder), name)


@contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write to the temporary folder {folder.parent}: {error.strerror or error}: free some space, or let "
            "TMPDIR name a larger one"
        ) from error
