"""Where an engine differs from the ONNX model that it was built from, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.analysis.dataflow import data_values, name_of
from trt_ptq.analysis.op_types import WEIGHTED_OPS
from trt_ptq.calibration.tensors import model_with_outputs
from trt_ptq.engines.backends import build_engine
from trt_ptq.engines.running.loader import engine_backend
from trt_ptq.engines.running.runtime import EngineSession
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.errors import DataError, EngineError, ModelError
from trt_ptq.evaluation.fidelity import FidelityMeter, OutputFidelity
from trt_ptq.evaluation.runners.engine_runner import EngineRunner
from trt_ptq.evaluation.runners.onnx_runner import onnx_runner, temporary_model_file
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.types import BatchSource, ProgressCallback, no_progress

_BACKENDS = {"tensorrt": "trt", "tensorrt-rtx": "rtx"}


def layer_differences(
    onnx: Path, engine: Path, source: BatchSource, progress: ProgressCallback = no_progress
) -> dict[str, OutputFidelity]:
    """Measure how far an engine's inner tensors are from those of its ONNX model in ONNX Runtime.

    An engine has no inner tensors to read, so the model is built once more, by the same builder and for the same
    shapes, with debug tensors. These end fusions: the kernels, and the rounding in them, can differ from those of
    `engine`.

    Args:
        onnx: the model that the engine was built from.
        engine: the engine.
        source: the batches.
        progress: shows progress over the batches.

    Returns:
        The fidelity of each tensor that is quantized, in graph order; of a model without Q/DQ, of each output of a
        weighted node.

    Raises:
        EngineError: this TensorRT has no debug tensors, or the engine with them cannot be built or run.
        ModelError: the model cannot be loaded, or has no inner tensor to compare.
        DataError: there are no batches, or one does not fit.
    """
    model = load_model(onnx, allow_quantized=True)
    tensors = compared_tensors(model)
    if not tensors:
        raise ModelError(f"{onnx}: no inner tensor to compare: nothing is quantized, and no node has weights")
    with EngineSession(engine) as session:
        profiles, precision = session.profiles(), session.precision
    meters = {name: FidelityMeter() for name in tensors}
    batches = 0
    with temporary_folder() as folder:
        spec = EngineSpec(
            onnx,
            folder / engine.name,
            "int8" if precision == "unknown" else precision,
            model.identity,
            profiles,
            debug_tensors=tensors,
        )
        build_engine(spec, _BACKENDS[engine_backend(engine)])
        with (
            temporary_model_file(model_with_outputs(model, tensors), onnx.name) as part,
            onnx_runner(part) as emulation,
            EngineSession(spec.engine) as debug_session,
        ):
            runner = EngineRunner(engine.name, debug_session)
            for batch in progress(source, "Comparing tensors", source.total):
                expected = emulation.infer(batch.feeds, batch.origin)
                actual = runner.infer_debug_tensors(batch.feeds, batch.origin)
                for name, meter in meters.items():
                    if name not in actual:
                        raise EngineError(f"{engine}: its debug build does not report {name!r}")
                    meter.update(expected[name], actual[name])
                batches += 1
    if not batches:
        raise DataError("there are no batches to compare on")
    return {name: meter.result() for name, meter in meters.items()}


def compared_tensors(model: Model) -> tuple[str, ...]:
    """The inner tensors that are quantized, in graph order; without Q/DQ, the outputs of weighted nodes."""
    graph = model.to_ir().graph
    computed = data_values(graph) - set(graph.inputs) - set(graph.outputs)
    quantized = {value for node in graph if node.op_type == "QuantizeLinear" for value in node.inputs[:1]}
    weighted = {node.outputs[0] for node in graph if node.op_type in WEIGHTED_OPS}
    for chosen in (quantized & computed, weighted & computed):
        if chosen:
            return tuple(name_of(value) for node in graph for value in node.outputs if value in chosen)
    return ()
