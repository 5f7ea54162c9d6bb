"""The stand-in for TensorRT's ONNX parser: what it reads of a model, and what it says is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from .libraries import Standins
from .probes import IDENTITY_OUTPUT, header, probe, table


def text_field(number: int, text: str | bytes) -> bytes:
    content = text.encode() if isinstance(text, str) else text
    return bytes([number << 3 | 2, len(content)]) + content


def value_info(name: str, shape: Sequence[int | str]) -> bytes:
    dimensions = b"".join(
        text_field(1, bytes([1 << 3, size]) if isinstance(size, int) else text_field(2, size)) for size in shape
    )
    tensor_type = bytes([1 << 3, 1]) + text_field(2, dimensions)
    return text_field(1, name) + text_field(2, text_field(1, tensor_type))


def onnx_model(operation: str = "Identity", domain: str = "") -> bytes:
    """image -> operation -> y; mask is passed over. Written by hand: no test dependency for 100 bytes."""
    node = text_field(1, "image") + text_field(2, "y") + text_field(3, "first") + text_field(4, operation)
    graph = text_field(1, node + (text_field(7, domain) if domain else b"")) + text_field(2, "small")
    graph += text_field(5, text_field(8, "weight"))
    for name, shape in (("image", ("n", 3, 2, 2)), ("mask", ("n", 5)), ("weight", (1,))):
        graph += text_field(11, value_info(name, shape))
    graph += text_field(12, value_info("y", ("n", 3, 2, 2)))
    return bytes([1 << 3, 8, 7 << 3 | 2, len(graph) & 0x7F | 0x80, len(graph) >> 7]) + graph


def test_parser_gives_the_inputs_of_an_onnx_graph_and_calibrates_them(
    standins: Standins, version: str, tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(onnx_model())
    outcome = probe(standins, {"onnx": str(model)}, version=version)
    assert outcome["network"] == {
        "parsed": True,
        "errors": [],
        "inputs": [["image", "DataType.FLOAT", [-1, 3, 2, 2]], ["mask", "DataType.FLOAT", [-1, 5]]],
        "outputs": ["y"],
        "layers": ["first"],
    }
    assert outcome["written"] == table(header(version), batches=5).replace(IDENTITY_OUTPUT, "y")


def test_network_with_q_dq_nodes_does_not_use_the_calibrator(standins: Standins, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(onnx_model("QuantizeLinear"))
    outcome = probe(standins, {"onnx": str(model)})
    assert outcome["plan"]["source"] == "explicit"
    assert outcome["calls"] == []


@pytest.mark.parametrize(
    ("content", "code", "text"),
    [
        (b"not a model", "MODEL_DESERIALIZE_FAILED", "failed to parse the ONNX model"),
        (onnx_model()[:-3], "MODEL_DESERIALIZE_FAILED", "cut short"),
        (onnx_model("Swirl", "my.domain"), "UNSUPPORTED_NODE", "no importer for my.domain::Swirl"),
    ],
    ids=["garbage", "truncated", "unknown-operation"],
)
def test_parser_says_what_is_wrong(
    standins: Standins, version: str, tmp_path: Path, content: bytes, code: str, text: str
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(content)
    network = probe(standins, {"onnx": str(model)}, version=version)["network"]
    assert not network["parsed"]
    [[found_code, found_text, _]] = network["errors"]
    assert code in found_code
    assert text in found_text
