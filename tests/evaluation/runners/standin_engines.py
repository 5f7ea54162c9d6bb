"""Stand-in engines, for machines without a GPU: each is an ONNX file with an engine's name, which ONNX Runtime runs.

They take the place of `EngineSession`: what is above it runs. That TensorRT's engines do the same is tested on a GPU.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from trt_ptq.engines.manifest import EngineManifest, write_engine
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import DataError
from trt_ptq.onnx_io.ort_session import load_session
from trt_ptq.provenance import ModelIdentity
from trt_ptq.types import Array, Feeds, ShapeProfile

LARGEST = 16
_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class StandinSession:
    """Stands in for `EngineSession`."""

    gpu, precision = "stand-in (no GPU)", "int8"

    def __init__(self, path: Path) -> None:
        self.path = path
        model = path.read_bytes()
        self._session = load_session(path, str(path))
        values = {value.name: value for value in self._session.get_inputs()}
        self.inputs, self.outputs = tuple(values), tuple(value.name for value in self._session.get_outputs())
        self.dtypes = {name: np.dtype(_TYPES[value.type]) for name, value in values.items()}
        shapes = {name: tuple(-1 if isinstance(size, str) else size for size in v.shape) for name, v in values.items()}
        self._shapes = shapes
        self.engine = SimpleNamespace(get_tensor_shape=shapes.__getitem__)
        self._inner = _with_all_outputs(model)

    def __enter__(self) -> StandinSession:
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None

    def profiles(self) -> dict[str, ShapeProfile]:
        return {
            name: ShapeProfile(*(tuple(size if known == -1 else known for known in shape) for size in (1, 4, LARGEST)))
            for name, shape in self._shapes.items()
        }

    def run(self, feeds: Feeds) -> dict[str, Array]:
        if feeds.keys() != set(self.inputs) or any(len(array) > LARGEST for array in feeds.values()):
            raise DataError(f"{self.path}: the batch does not fit")
        return dict(zip(self.outputs, self._session.run(None, dict(feeds)), strict=True))

    def debug(self, feeds: Feeds) -> dict[str, Array]:
        inner = ort.InferenceSession(self._inner, providers=["CPUExecutionProvider"])
        names = [output.name for output in inner.get_outputs()]
        return dict(zip(names, inner.run(None, dict(feeds)), strict=True))


def _with_all_outputs(model: bytes) -> bytes:
    changed = ir.from_proto(onnx.load_model_from_string(model))
    outputs = set(changed.graph.outputs)
    changed.graph.outputs.extend(value for node in changed.graph for value in node.outputs if value not in outputs)
    return bytes(ir.to_proto(changed).SerializeToString())


def build_standin(spec: EngineSpec, _backend: str = "trt") -> EngineManifest:
    """Stands in for `build_engine`."""
    content = spec.onnx.read_bytes()
    manifest = EngineManifest(
        backend="tensorrt",
        backend_version="stand-in",
        precision=spec.precision,
        source=ModelIdentity("", ""),
        profiles={name: str(profile) for name, profile in spec.profiles.items()},
        gpu=StandinSession.gpu,
        build_seconds=0.0,
        size_bytes=len(content),
        sha256="",
        refused_nodes=spec.refused_nodes,
    )
    write_engine(spec.engine, memoryview(content), manifest)
    return manifest


def use_standin_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `StandinSession` and `build_standin` take the places of what needs a GPU."""
    for module in ("evaluation.runners.engine_runner", "evaluation.runners.layer_differences"):
        monkeypatch.setattr(f"trt_ptq.{module}.EngineSession", StandinSession)
    for module in ("evaluation.runners.layer_differences", "pipeline.engine_step"):
        monkeypatch.setattr(f"trt_ptq.{module}.build_engine", build_standin)
    monkeypatch.setattr("trt_ptq.pipeline.engine_step.measure_engines", lambda *_: [])
