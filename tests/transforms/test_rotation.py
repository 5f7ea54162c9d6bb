"""The residual stream of a transformer is rotated, and the model computes what it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from threadpoolctl import threadpool_limits

from tests.networks import weight, write
from tests.transforms.normalized import changed_tensors, constant, gamma, node, outputs, saved
from trt_ptq.onnx_io.load import Model, load_model
from trt_ptq.transforms.result import TransformResult
from trt_ptq.transforms.rotation import rotate
from trt_ptq.transforms.rotation.hadamard import hadamard
from trt_ptq.transforms.rotation.rotate import rotate_stream

WIDTH, VOCABULARY = 32, 40
IDS = np.arange(24).reshape(2, 12) % VOCABULARY


def norm(stream: str, name: str) -> list[onnx.NodeProto]:
    """An RMSNorm of `stream`, as exporters decompose it; its weight is NAME.weight."""
    return [
        node("Pow", f"{stream} two", f"{name}.squared"),
        node("ReduceMean", f"{name}.squared", f"{name}.mean", axes=[-1]),
        node("Add", f"{name}.mean tiny", f"{name}.shifted"),
        node("Sqrt", f"{name}.shifted", f"{name}.root"),
        node("Reciprocal", f"{name}.root", f"{name}.inverse"),
        node("Mul", f"{stream} {name}.inverse", f"{name}.unit"),
        node("Mul", f"{name}.weight {name}.unit", name),
    ]


def transformer(path: Path, *, tied: bool = True, extra: tuple[onnx.NodeProto, ...] = ()) -> Path:
    """Embeddings, a gated MLP that reads and writes the stream, and a head; a channel of the stream stands out."""
    embeddings = np.random.default_rng(0).normal(0, 1, (VOCABULARY, WIDTH))
    embeddings[:, 5] *= 50
    nodes = [
        node("Gather", "embeddings ids", "stream"),
        *norm("stream", "before"),
        node("MatMul", "before gate", "gated"),
        node("Sigmoid", "gated", "open"),
        node("MatMul", "before up", "raised"),
        node("Mul", "open raised", "inner"),
        node("MatMul", "inner down", "written"),
        node("Add", "written stream", "stream2"),
        *norm("stream2", "last"),
        node("Transpose", "embeddings" if tied else "head", "turned", perm=[1, 0]),
        node("MatMul", "last turned", "logits"),
        *extra,
    ]
    weights = [
        constant("embeddings", embeddings),
        *(gamma(f"{name}.weight") for name in ("before", "last")),
        constant("two", 2),
        constant("tiny", 1e-6),
        weight("gate", WIDTH, 48),
        weight("up", WIDTH, 48),
        weight("down", 48, WIDTH),
        *([] if tied else [weight("head", VOCABULARY, WIDTH)]),
    ]
    ids, others = (helper.make_tensor_value_info(name, TensorProto.INT64, ["n", 12]) for name in ("ids", "others"))
    has_others = any("others" in one.input for one in extra)
    return write(
        path, nodes, weights, [ids, others] if has_others else [ids], ["logits", *(one.output[0] for one in extra)], 17
    )


def rotated(path: Path) -> TransformResult:
    return rotate_stream(load_model(path))


@pytest.mark.parametrize("size", [1, 2, 32, 12, 576, 896, 960, 1536, 3584, 4096, 5120])
def test_hadamard_matrices_are_orthogonal_and_flat(size: int) -> None:
    matrix = hadamard(size)
    assert matrix is not None
    vectors = np.random.default_rng(0).standard_normal((size, 8))  # its square would be a product of 10^11 for 5120
    np.testing.assert_allclose(matrix @ (matrix.T @ vectors), vectors, atol=1e-11)
    np.testing.assert_allclose(np.abs(matrix), size**-0.5)


@pytest.mark.parametrize("size", [3, 6, 9, 92, 1001])
def test_other_orders_have_none_here(size: int) -> None:
    assert hadamard(size) is None


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_model_computes_what_it_did_without_the_channel_that_stood_out(tmp_path: Path, tied: bool) -> None:
    before = transformer(tmp_path / "m.onnx", tied=tied)
    result = rotated(before)
    assert [str(site) for site in result.applied] == ["'stream': residual stream of 32 channels, 4 layers"]
    after = saved(result, tmp_path / "rotated.onnx")
    (expected,), (logits,) = outputs(before, ids=IDS), outputs(after, ids=IDS)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(after).graph.initializer}
    spread = np.abs(weights["embeddings"]).max(axis=0)
    assert spread.max() / np.median(spread) < 3
    assert set(weights["last.weight"]) == {1}
    assert changed_tensors(before, after, ids=IDS) - {"turned"} <= result.changed  # a weight, transposed
    assert {"stream", "stream2", "before", "last", "written"} <= result.changed
    assert not {"gated", "raised", "inner", "logits"} & result.changed


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (node("Relu", "stream", "other"), "'stream': Relu 'other' reads it"),
        (node("Relu", "last", "other"), "'stream': Relu 'other' reads 'last'"),
        (node("Relu", "written", "other"), "'stream': 'written' is read elsewhere, or has another width"),
        (node("Add", "stream tiny", "other"), "'stream': Add 'other' adds something else than a linear layer"),
        (node("Identity", "down", "other"), "'stream': the weight 'down' is read by several layers"),
        (node("Pow", "stream tiny", "other"), "'stream': Pow 'other' reads it, and belongs to no RMSNorm"),
        (node("Gather", "embeddings others", "other"), "'stream': the weight 'embeddings' is read by several layers"),
        (node("Relu", "turned", "other"), "'stream': the weight 'embeddings' is read by several layers"),
    ],
)
def test_streams_that_something_else_reads_stay(tmp_path: Path, extra: onnx.NodeProto, reason: str) -> None:
    result = rotated(transformer(tmp_path / "m.onnx", extra=(extra,)))
    assert not result.applied and not result.changed
    (skipped,) = map(str, result.skipped)
    assert skipped.startswith(reason)


def test_a_second_reader_of_the_embeddings_is_no_head(tmp_path: Path) -> None:
    other = node("Gather", "embeddings others", "other")
    (skipped,) = map(str, rotated(transformer(tmp_path / "m.onnx", tied=False, extra=(other,))).skipped)
    assert skipped == "'stream': the weight 'embeddings' is read by several layers"


def test_a_norm_with_an_output_of_the_model_stays(tmp_path: Path) -> None:
    model = onnx.load(transformer(tmp_path / "m.onnx"))
    model.graph.output.append(helper.make_tensor_value_info("last.unit", TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "unit.onnx")
    (skipped,) = map(str, rotated(tmp_path / "unit.onnx").skipped)
    assert skipped == "'stream': 'last' is read by no layer, or the norm has an output of the model"


def test_models_without_embeddings_stay(cnn: Model) -> None:
    result = rotate_stream(cnn)
    assert not result.applied and not result.skipped


def test_tables_to_which_nothing_is_added_are_not_named(tmp_path: Path) -> None:
    table, scaled = node("Gather", "down others", "angles"), node("Cos", "angles", "cosines")
    (skipped,) = map(str, rotated(transformer(tmp_path / "m.onnx", extra=(table, scaled))).skipped)
    assert skipped.startswith("'stream'")


def test_an_exported_decoder_keeps_its_logits_and_its_cache(decoder: Model, tmp_path: Path) -> None:
    from trt_ptq.language_models.decoder import decoder_layout

    after = saved(rotate_stream(decoder), tmp_path / "rotated.onnx")
    feeds: dict[str, Any] = dict(decoder_layout(decoder).feeds(IDS))
    assert rotate_stream(decoder).applied
    for old, new in zip(outputs(decoder.path, **feeds), outputs(after, **feeds), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-4 * np.abs(old).max())


def test_the_number_of_cores_makes_no_difference() -> None:
    weight = ir.tensor(np.random.default_rng(0).standard_normal((576, 1536)).astype(np.float32), name="w")
    matrix = hadamard(576)
    assert matrix is not None
    rotated = rotate._mapped(weight, rotate._reading(matrix.astype(np.float32), 0))
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            results.append(rotated.tobytes())
    assert results[0] == results[1]
