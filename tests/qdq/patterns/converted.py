"""Quantize a small model and list its Q/DQ pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import NodeProto, helper, numpy_helper

from tests.networks import CHANNELS, image_input, images, weight, write
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.methods import METHODS
from trt_ptq.calibrators.table.calibration_table import derive_table
from trt_ptq.data.observation import observe
from trt_ptq.data.shape_profiles import ShapeObserver, profiles_from_shapes
from trt_ptq.data.sources import ArraySource
from trt_ptq.engines.building.rtx import build_rtx
from trt_ptq.engines.spec import EngineSpec
from trt_ptq.onnx_io.load import load_model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.qdq.plan import QuantizationPlan
from trt_ptq.types import Array

Pair = tuple[str, str]
node = helper.make_node
PADS: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


@dataclass(frozen=True)
class Converted:
    """`pairs`: each tensor with Q/DQ and the output of a node that reads it so. `scales` by tensor. `noise`: the
    error's power by the output's."""

    plan: QuantizationPlan
    pairs: set[Pair]
    weights: set[Pair]
    scales: dict[str, float]
    noise: float
    path: Path

    @property
    def float_reasons(self) -> dict[str, str]:
        return {node.output: node.reason for node in self.plan.nodes if not node.is_int8}


def conv(data: str, output: str, name: str = "", **attributes: Any) -> NodeProto:
    return node("Conv", [data, name or f"w_{output}"], [output], **(PADS | attributes))


def weights_of(*outputs: str) -> list[onnx.TensorProto]:
    return [weight(f"w_{output}", CHANNELS, CHANNELS, 3, 3) for output in outputs]


def bias(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.random.default_rng(1).normal(0, 0.1, shape).astype(np.float32), name)


Convert = Callable[..., Converted]


def converter(tmp_path: Path) -> Convert:
    """Write a model, measure it on data, quantize it by its min-max ranges, run both."""

    def run(
        nodes: list[NodeProto],
        weights: list[onnx.TensorProto],
        inputs: list[onnx.ValueInfoProto] | None = None,
        feeds: dict[str, Array] | None = None,
        output: str = "y",
        attention: bool = False,
    ) -> Converted:
        feeds = feeds or {"x": images(8)}
        path = write(tmp_path / "float.onnx", nodes, weights, inputs or [image_input()], [output])
        model = load_model(path)
        shapes = ShapeObserver()
        source = observe(ArraySource("data.npz", feeds, batch_size=len(next(iter(feeds.values())))), shapes)
        statistics = collect_statistics(model, source, select_calibration_tensors(model, attention=attention))
        result = insert_qdq(model, derive_table(statistics, METHODS["minmax"]), attention=attention)
        save_model(result.model, tmp_path / "int8.onnx")
        onnx.checker.check_model(str(tmp_path / "int8.onnx"), full_check=True)
        if find_spec("tensorrt_rtx"):
            profiles = profiles_from_shapes(shapes.seen, model.inputs)
            build_rtx(EngineSpec(tmp_path / "int8.onnx", tmp_path / "m.engine", "int8", model.identity, profiles))
        exact, rounded = (ort.InferenceSession(file).run([output], feeds)[0] for file in (path, tmp_path / "int8.onnx"))
        noise = np.square(exact - rounded).sum() / np.square(exact).sum()
        return Converted(result.plan, *_pairs(onnx.load(tmp_path / "int8.onnx")), float(noise), tmp_path / "int8.onnx")

    return run


def _pairs(proto: onnx.ModelProto) -> tuple[set[Pair], set[Pair], dict[str, float]]:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    quantizers = {node.output[0]: node for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    behind = {node.output[0]: node.input[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    reads = [(behind[name], node.output[0]) for node in proto.graph.node for name in node.input if name in behind]
    return (
        {(quantizers[name].input[0], reader) for name, reader in reads if name in quantizers},
        {(name, reader) for name, reader in reads if name in constants},
        {node.input[0]: float(constants[node.input[1]]) for node in quantizers.values()},
    )
