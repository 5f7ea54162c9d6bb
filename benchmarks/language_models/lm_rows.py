"""What SmolLM2-135M loses by each way of quantizing it, on text that it was not calibrated on, and what RTX moves.

W8A8 is after rotation and SmoothQuant, unless the row is named "unrotated", and excludes the `down_proj` layers that
the tool ranks as most sensitive, as long as the wanted fraction of the multiply-accumulates of linear layers is left in
INT8; rows without rotation exclude the same ones. GPTQ rounds the weights unless the row is named "nearest".
Perplexity: 12 windows of 256 tokens of the Grimm tales. KL divergence: to FP32, on 512 of these tokens. Models run on
ONNX Runtime's CPU, with what is not INT8 in FP32; engines are built and not run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from benchmarks.language_models import prepared
from benchmarks.language_models.calibration_cost import cost
from benchmarks.language_models.large import measure_step
from benchmarks.language_models.lm_table import (
    CACHE_TOKENS,
    CONTEXTS,
    FRACTIONS,
    MODELS,
    NEAREST,
    PLANS,
    STEPS,
    UNROTATED,
)
from benchmarks.models.wheels import cache_folder
from benchmarks.results_file import Figures, RowSpec, code_version
from trt_ptq import plan_engine
from trt_ptq.analysis.macs import count_macs
from trt_ptq.analysis.op_types import WEIGHTED_OPS
from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.fp16.convert import convert_to_float16
from trt_ptq.language_models.decoder import decoder_layout
from trt_ptq.language_models.kv_cache.int8_cache import quantize_cache
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.save import save_model
from trt_ptq.qdq.insert import insert_qdq
from trt_ptq.qdq.node_selection import select_nodes, select_weight_only
from trt_ptq.qdq.stored_weights import StoredWeights
from trt_ptq.sensitivity.measure import rank_layers
from trt_ptq.tuning.search.layer_search import order_by_benefit

SUITE = "language_models"


def lm_rows() -> list[RowSpec]:
    """Rows of models, a ranking of layers, engine plans, steps of a large model, and the cost of calibration."""
    rows: dict[str, Callable[[Mapping[str, Figures]], Figures]] = {
        "fp32": _fp32,
        "w8a16": _w8a16,
        "w8a16-nearest": partial(_w8a16, nearest=True),
        "ranking": _ranking,
        **{f"w8a8-{percent}": partial(_w8a8, percent) for percent in FRACTIONS},
        **{f"w8a8-{percent}-nearest": partial(_w8a8, percent, nearest=True) for percent in NEAREST},
        **{f"w8a8-{percent}-unrotated": partial(_w8a8, percent, rotated=False) for percent in UNROTATED},
        "w8a8-80-kv8": partial(_w8a8, 80, int8_cache=True),
        **{f"kv8-{context}": partial(_int8_cache, context) for context in CONTEXTS},
        **{f"plan-{call}-{model}": partial(_plan, call, model) for call in PLANS for model in MODELS},
        **{f"large-{step}": partial(measure_step, step) for step in STEPS},
        "cost": cost,
    }
    return [RowSpec(SUITE, name, measure) for name, measure in rows.items()]


def _fp32(_rows: Mapping[str, Figures]) -> Figures:
    return prepared.judged(prepared.plain().path)


def _w8a16(_rows: Mapping[str, Figures], nearest: bool = False) -> Figures:
    weights = None if nearest else _rounded("plain", prepared.plain())
    return prepared.judged(_weight_only(weights))


def _weight_only(weights: StoredWeights | None = None) -> ir.Model:
    model = prepared.plain()
    layers = select_weight_only(model.to_ir().graph, ["*"])
    return insert_qdq(model, CalibrationTable({}), weight_only=layers, stored_weights=weights).model


def _ranking(_rows: Mapping[str, Figures]) -> Figures:
    """The `down_proj` layers of the model for W8A8, the most sensitive first. To rank all layers takes minutes."""
    model, table = _smooth()
    others = select_nodes(model.to_ir().graph, include=["*down_proj*"])
    with tempfile.TemporaryDirectory() as folder:
        data = prepared.calibration_data(Path(folder))
        weights = _rounded("rotated", model)
        errors = rank_layers(model, table, data, nodes_to_exclude=others, stored_weights=weights).errors
    return {"layers": order_by_benefit(errors, _linear_macs(model)), "errors": errors}


def _w8a8(
    percent: int,
    rows: Mapping[str, Figures],
    *,
    nearest: bool = False,
    rotated: bool = True,
    int8_cache: bool = False,
) -> Figures:
    model, table = _smooth(rotated)
    excluded, fraction = _excluded(model, rows, percent)
    weights = None if nearest else _rounded("rotated" if rotated else "smooth", model)
    quantized = insert_qdq(model, table, excluded, stored_weights=weights).model
    if int8_cache:
        quantize_cache(quantized, decoder_layout(model), prepared.cache_scales())
    return {**prepared.judged(quantized), "excluded": excluded, "int8_fraction_of_linear_macs": fraction}


def _int8_cache(context: int, _rows: Mapping[str, Figures]) -> Figures:
    """The loss of the INT8 cache alone, over 2048 tokens."""
    model = prepared.plain().to_ir()
    quantize_cache(model, decoder_layout(prepared.plain()), prepared.cache_scales())
    count = CACHE_TOKENS // context
    fp32 = prepared.judged(prepared.plain().path, count, context)["perplexity"]
    return {**prepared.judged(model, count, context), "fp32_perplexity": fp32}


def _excluded(model: Model, rows: Mapping[str, Figures], percent: int) -> tuple[list[str], float]:
    """The most sensitive layers that leave `percent` of the MACs of linear layers in INT8, and how much it is."""
    if percent == 100:
        return [], 1.0
    macs = _linear_macs(model)
    total, left, excluded = sum(macs.values()), sum(macs.values()), []
    for name in rows["ranking"]["layers"]:
        if left - macs.get(name, 0) >= percent / 100 * total:
            excluded.append(name)
            left -= macs.get(name, 0)
    return excluded, left / total


def _linear_macs(model: Model) -> dict[str, int]:
    graph = model.to_ir().graph
    layers = {node.outputs[0].name for node in graph if node.op_type in WEIGHTED_OPS}
    constant = {name for name in select_weight_only(graph, ["*"]) if name in layers}
    return {name: count for name, count in count_macs(model, _shapes(1, 0)).items() if name in constant}


def _smooth(rotated: bool = True) -> tuple[Model, CalibrationTable]:
    return prepared.smooth(_folder(), code_version(), rotated)


def _rounded(kind: str, model: Model) -> StoredWeights:
    return prepared.rounded(model, _folder() / f"gptq-{kind}-{code_version()}.int8")


def _folder() -> Path:
    """Where prepared models are kept."""
    folder = cache_folder() / SUITE
    folder.mkdir(exist_ok=True)
    return folder


def _plan(call: str, kind: str, rows: Mapping[str, Figures]) -> Figures:
    """Kernels and bytes of the engine that TensorRT-RTX builds."""
    if kind == "w8a8":
        model, table = _smooth()
        quantized = insert_qdq(model, table, _excluded(model, rows, FRACTIONS[0])[0]).model
    else:
        quantized = _weight_only() if kind == "w8a16" else prepared.plain().to_ir()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{kind}.onnx"
        save_model(convert_to_float16(quantized).model, path)
        plan = plan_engine(path, shapes=_shapes(*PLANS[call]))
    return {"kernels": plan.num_kernels, "bytes_moved": plan.bytes_moved, "constant_bytes": plan.constant_bytes}


def _shapes(tokens: int, past: int) -> dict[str, Any]:
    layout = decoder_layout(prepared.plain())
    shapes: dict[str, Any] = {
        "input_ids": (1, tokens),
        "attention_mask": (1, past + tokens),
        "position_ids": (1, tokens),
    }
    shapes |= {tensor.past: (1, tensor.num_heads, past, tensor.head_size) for tensor in layout.cache}
    return {name: shapes[name] for name in layout.inputs}
