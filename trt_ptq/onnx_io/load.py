"""Load ONNX models: read, check, and convert to an opset that supports per-channel Q/DQ."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import shape_inference
from onnx_ir.passes import common as passes

from trt_ptq._internal.hardware.process_memory import return_free_memory
from trt_ptq.errors import ModelError
from trt_ptq.onnx_io.domains import (
    ONNX_DOMAINS,
    clear_empty_domains,
    for_lenient_check,
    model_nodes,
    needs_lenient_check,
    use_short_domain,
)
from trt_ptq.onnx_io.external_data import (
    SMALL_BYTES,
    ExternalWeights,
    external_files,
    resolve_external_data,
    without_values,
)
from trt_ptq.onnx_io.loading.declared_shapes import drop_stale_shapes
from trt_ptq.onnx_io.loading.fold_weights import fold_weights
from trt_ptq.onnx_io.loading.identity import graph_hash, model_identity
from trt_ptq.onnx_io.loading.old_opset import raise_old_opset
from trt_ptq.onnx_io.loading.ort_types import types_of_onnx_runtime, untyped_tensors
from trt_ptq.onnx_io.loading.sparse import make_dense
from trt_ptq.onnx_io.loading.training_mode import training_nodes
from trt_ptq.onnx_io.opset import onnx_opset
from trt_ptq.onnx_io.quantized_ops import INTEGER_OPS, QDQ_OPS
from trt_ptq.provenance import ModelIdentity
from trt_ptq.types import TensorSpec

MIN_OPSET = 13  # the first with per-channel DequantizeLinear
_TORCH_FILE = "export the module by torch.onnx.export, or pass it to trt_ptq.quantize in Python"
_OTHER_FORMS = {
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), _TORCH_FILE),
    ".safetensors": "give the Hugging Face folder that it is in, or export the model to ONNX",
}
_MANY_VALUES = 2**22  # of weights; to collect the garbage of a model with fewer takes longer than loading it
_MIN_IR_VERSION = 7  # that of opset 13; before version 4 every initializer had to be a graph input


@dataclass(frozen=True)
class Model:
    """A loaded ONNX model; treat it as immutable.

    Attributes:
        path: The file it was loaded from.
        proto: The model in opset 13 or newer, with constants as initializers, functions inlined and shapes inferred.
            Tensor names are those of the file. Large external weights stay external, relative to `external.folder`.
        identity: Hashes of the file's graph and weights.
        inputs: Name, dtype and shape of each input.
        outputs: Names of the outputs.
        external: The external weights files.
        rewrites: What was changed at loading, in words; empty if nothing was.
    """

    path: Path
    proto: onnx.ModelProto
    identity: ModelIdentity
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    external: ExternalWeights
    rewrites: tuple[str, ...] = ()

    def to_ir(self) -> ir.Model:
        """Return a new, mutable copy of the model that shares the weights, without the metadata of its nodes."""
        model = ir.from_proto(self.proto)
        for node in model.graph:
            node.metadata_props.clear()  # PyTorch writes stack traces, which fill files
        ir.external_data.set_base_dir(model.graph, self.external.folder)
        return model

    @property
    def opset(self) -> int:
        """The version of the default operator set."""
        return onnx_opset(self.proto)

    @property
    def is_quantized(self) -> bool:
        """Whether the model has Q/DQ nodes, or operators that compute on integers."""
        return bool(_quantized_ops(self.proto))


def load_model(path: str | os.PathLike[str], *, allow_quantized: bool = False) -> Model:
    """Load and check an ONNX model.

    Args:
        path: The ONNX file; its external data must be in the same folder.
        allow_quantized: Accept models that are quantized already, by any tool.

    Returns:
        The model, converted to opset 13 if it was older.

    Raises:
        ModelError: The file is missing, truncated or not ONNX, its external data is missing, or the model is quantized
            already or was exported in training mode.
    """
    path = Path(path)
    proto, external, was_sparse = _read(path)
    quantized = _quantized_ops(proto)
    if quantized and not allow_quantized:
        raise ModelError(f"{path}: already quantized (contains {', '.join(quantized)}): pass the float model")
    training = training_nodes(proto)
    if training:
        raise ModelError(
            f"{path}: exported in training mode ({_describe_nodes(training)}), so it computes something else for every "
            "batch, and TensorRT refuses it: call model.eval() before the export"
        )
    identity = model_identity(proto, external.folder)
    written = graph_hash(proto) if clear_empty_domains(proto) else identity.graph
    rewrites = ["sparse tensors made dense"] * was_sparse
    original = proto
    if onnx_opset(proto) < MIN_OPSET:
        proto = raise_old_opset(original, MIN_OPSET, path)
        rewrites.append(f"conversion to opset {MIN_OPSET}")
    model = ir.from_proto(proto)
    if model.functions:
        rewrites.append("functions inlined")
        model = passes.InlinePass()(model).model
    model = passes.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0)(model).model
    model = passes.RemoveInitializersFromInputsPass()(model).model
    is_raised = proto is not original
    if not is_raised:
        del original
    proto = ir.to_proto(model)
    del model
    if sum(math.prod(tensor.dims) for tensor in proto.graph.initializer) >= _MANY_VALUES:
        gc.collect()  # the reference cycles of the graph would keep the original weights in memory
    if fold_weights(proto, external.folder):
        rewrites.append("computed weights folded")
    if not rewrites and graph_hash(proto) != written:
        rewrites.append("nodes rewritten")
    proto = _infer_shapes(proto, path)
    untyped = untyped_tensors(proto)
    if untyped:
        proto.graph.value_info.extend(types_of_onnx_runtime(proto, untyped, external))
        proto = _infer_shapes(proto, path)
    proto.ir_version = max(proto.ir_version, _MIN_IR_VERSION)
    inputs = tuple(_tensor_spec(value, path) for value in proto.graph.input)
    if is_raised:
        from trt_ptq.onnx_io.loading.same_results import check_same_results  # imports ONNX Runtime

        check_same_results(original, proto, external.folder, inputs, path)
    return_free_memory()  # the copies that were made take as much as the weights
    return Model(
        path=path,
        proto=proto,
        identity=identity,
        inputs=inputs,
        outputs=tuple(value.name for value in proto.graph.output),
        external=external,
        rewrites=tuple(rewrites),
    )


def read_inputs(path: Path) -> tuple[TensorSpec, ...]:
    """Read the inputs of an ONNX model, quantized or not.

    Raises:
        ModelError: See `read_proto`.
    """
    graph = read_proto(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    return tuple(_tensor_spec(value, path) for value in graph.input if value.name not in constants)


def read_proto(path: Path) -> onnx.ModelProto:
    """Read and check an ONNX file as it is; large external weights are not loaded.

    Raises:
        ModelError: The file is missing, truncated or not ONNX, or its external data is missing.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[onnx.ModelProto, ExternalWeights, bool]:
    """The checked model, its external weights, and whether sparse tensors were made dense."""
    if path.is_dir():
        raise ModelError(f"{path}: is a folder: name a model file in it")
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    try:
        proto = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        if hint := _OTHER_FORMS.get(path.suffix):
            raise ModelError(f"{path}: not an ONNX model: {hint}") from error
        raise ModelError(f"{path}: not an ONNX model, or truncated: {error}") from error
    if not proto.graph.node or not any(entry.domain in ONNX_DOMAINS for entry in proto.opset_import):
        raise ModelError(f"{path}: not an ONNX model: it has no graph")
    external = resolve_external_data(proto, path)
    try:
        _check(proto, path, is_file=not use_short_domain(proto) and not external.files)
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{path}: not a valid ONNX model: {reason}") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return proto, external, make_dense(proto)


def _check(proto: onnx.ModelProto, path: Path, *, is_file: bool) -> None:
    """Raise a ValidationError if the model is invalid, other than in ways that runtimes accept.

    `is_file`: `proto` has the content of `path`, which ONNX's checker then reads itself.
    """
    lenient = needs_lenient_check(proto)
    if is_file and not lenient:
        onnx.checker.check_model(str(path))
        return
    copy = without_values(proto)
    if lenient:
        for_lenient_check(copy)
    onnx.checker.check_model(copy)


def read_ir(path: Path) -> ir.Model:
    """Read an ONNX file to edit it, without any check; weights in other files are mapped when they are read."""
    proto = onnx.load(path, load_external_data=False)
    use_short_domain(proto)
    make_dense(proto)
    model = ir.from_proto(proto)
    ir.external_data.set_base_dir(model.graph, path.parent)
    return model


def model_size_bytes(path: Path) -> int:
    """Size of an ONNX file, including its external weights files."""
    return sum(file.stat().st_size for file in {path, *external_files(path)})


def _infer_shapes(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """A copy of `proto` with inferred shapes; the large weights move from `proto` to the copy.

    They are detached meanwhile, since shape inference copies the whole model several times.
    """
    weights = {}
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) > SMALL_BYTES:
            weights[tensor.name] = tensor.raw_data
            tensor.ClearField("raw_data")
    drop_stale_shapes(proto, path)
    inferred = shape_inference.infer_shapes(proto, data_prop=True)
    for tensor in inferred.graph.initializer:
        if tensor.name in weights:
            tensor.raw_data = weights.pop(tensor.name)
    return inferred


def _quantized_ops(proto: onnx.ModelProto) -> list[str]:
    """The quantized operators of the model, sorted."""
    return sorted({node.op_type for node in model_nodes(proto)} & (QDQ_OPS | INTEGER_OPS))


def _describe_nodes(nodes: Sequence[onnx.NodeProto]) -> str:
    first = f"{nodes[0].op_type} {next(filter(None, nodes[0].output), '')!r}"
    return first if len(nodes) == 1 else f"{first} and {len(nodes) - 1} more"


def _tensor_spec(value: onnx.ValueInfoProto, path: Path) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        raise ModelError(f"{path}: input {value.name!r} is not a tensor; TensorRT supports tensor inputs only")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise ModelError(
            f"{path}: input {value.name!r} has no shape: give it one, with names for the sizes that may vary (onnx: "
            "value.type.tensor_type.shape)"
        )
    dtype: npt.DTypeLike = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param or "?"
        for dim in tensor.shape.dim
    )
    return TensorSpec(value.name, np.dtype(dtype), shape)
