"""Running ONNX models for evaluation, on ONNX Runtime's CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto
from onnx_ir.passes.common import InlinePass

from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.analysis.plugins import cut_plugins
from trt_ptq.engines.int8_io import IoScales, dequantized, int8_scales, quantized_feeds
from trt_ptq.errors import DataError, ModelError, OutputError
from trt_ptq.evaluation.runners.dequantized_weights import dequantize_weights, has_many_int8_weights
from trt_ptq.fp16.emulate import emulate_float16
from trt_ptq.onnx_io.domains import all_nodes, is_runnable
from trt_ptq.onnx_io.load import read_ir
from trt_ptq.onnx_io.ort_session import load_session
from trt_ptq.onnx_io.save import save_mapped
from trt_ptq.types import Array, Feeds, contiguous

Run = Callable[[Feeds], dict[str, Array]]

CANDIDATE = "candidate.onnx"  # what messages call a model that is tried

_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")


@dataclass(frozen=True)
class OnnxRunner:
    """A loaded ONNX model; `name` is what messages call it. INT8 inputs and outputs are float here; see `int8_io`."""

    name: str
    session: ort.InferenceSession

    @cached_property
    def _int8_scales(self) -> dict[str, IoScales]:
        return int8_scales(self.session.get_modelmeta().custom_metadata_map)

    def infer(self, feeds: Feeds, origin: str) -> dict[str, Array]:
        """Compute the outputs for one batch, by name.

        Args:
            feeds: input arrays by name.
            origin: where the batch comes from, for messages.

        Raises:
            DataError: the model fails on the batch.
        """
        try:
            outputs = self.session.run(None, contiguous(quantized_feeds(feeds, self._int8_scales)))
        except Exception as error:  # ONNX Runtime has no common base for its errors
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"{origin}: {self.name} fails on this batch: {reason}") from error
        names = [output.name for output in self.session.get_outputs()]
        arrays = {name: np.asarray(array) for name, array in zip(names, outputs, strict=True)}
        return dequantized(arrays, self._int8_scales)


@contextmanager
def temporary_model_file(model: ir.Model, name: str) -> Iterator[Path]:
    """Write `model` to a temporary file called `name`, which is removed at the end."""
    with temporary_folder() as folder:
        path = folder / name
        save_mapped(model, path)
        yield path


@contextmanager
def onnx_runner(path: Path) -> Iterator[OnnxRunner]:
    """Load the ONNX file `path`; float16 tensors are rounded to float16, see `emulate_float16`.

    TensorRT's plugins, and all that depends on them, are left out; see `cut_plugins`.

    Raises:
        ModelError: ONNX Runtime cannot load the model.
        OutputError: there is no room for a temporary copy of it.
    """
    with temporary_folder() as folder:
        yield OnnxRunner(path.name, load_session(_runnable_file(path, folder), str(path)))


def _runnable_file(path: Path, folder: Path) -> Path:
    """The file to run instead of `path`: itself, or a copy in `folder`.

    The copy has no plugins, rounds to float16, and has float weights where there are many INT8 ones.
    """
    try:
        proto = onnx.load(path, load_external_data=False)
        dequantizes = has_many_int8_weights(proto)
        if _runs_as_it_is(proto) and not dequantizes:
            return path
        del proto  # with all weights, if they are in the same file
        model = read_ir(path)
        if model.functions:
            model = InlinePass()(model).model
        cut = cut_plugins(model)
        if not emulate_float16(model) and not cut and not dequantizes:
            return path
        if dequantizes:
            dequantize_weights(model)
        save_mapped(model, folder / path.name)
        if dequantizes:
            del model
            gc.collect()  # the reference cycles of the graph would keep the weights in memory
    except OutputError:  # no room for the copy
        raise
    except Exception as error:  # onnx_ir has no common base for its errors
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{path}: ONNX Runtime cannot load it: {reason}") from error
    return folder / path.name


def _runs_as_it_is(proto: onnx.ModelProto) -> bool:
    """Whether a model has neither float16 nor plugins nor functions: found faster than a large graph is converted."""
    graph, nodes = proto.graph, [*all_nodes(proto.graph.node)]
    attributes = [attribute for node in nodes for attribute in node.attribute]
    types = {tensor.data_type for tensor in graph.initializer}
    types |= {attribute.t.data_type for attribute in attributes if attribute.HasField("t")}
    types |= {attribute.i for attribute in attributes if attribute.name in _TYPE_ATTRIBUTES}
    values = (*graph.input, *graph.output, *graph.value_info)
    types |= {value.type.tensor_type.elem_type for value in values}
    return (
        TensorProto.FLOAT16 not in types
        and not proto.functions
        and not graph.sparse_initializer
        and all(is_runnable(node.op_type, node.domain) for node in nodes)
    )
