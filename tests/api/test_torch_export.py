"""A torch module as the model: exported with a dynamic batch where that works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trt_ptq
from tests.networks import images
from trt_ptq.api.inputs.model_input import opened_model

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

EXAMPLE = torch.zeros(2, 16, 8, 8)


def network(*, fixed: bool = False) -> Any:
    class Network(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(16, 32, 3, padding=1)
            self.dropout = torch.nn.Dropout()
            self.last = torch.nn.Linear(32, 16)

        def forward(self, x: Any) -> Any:
            features = torch.relu(self.first(x)).mean((2, 3))
            if fixed:
                features = features.reshape(2, 32)
            return self.last(self.dropout(features))

    torch.manual_seed(0)
    return Network()


@pytest.mark.parametrize("examples", [(EXAMPLE,), EXAMPLE, {"x": EXAMPLE}], ids=["tuple", "tensor", "dict"])
def test_the_batch_is_dynamic(examples: Any) -> None:
    with opened_model(network(), examples) as model:
        assert [spec.name for spec in model.inputs] == ["x"]
        assert isinstance(model.inputs[0].shape[0], str)
        assert model.inputs[0].shape[1:] == (16, 8, 8)


def test_a_module_that_needs_its_batch_size_keeps_it() -> None:
    with opened_model(network(fixed=True), EXAMPLE) as model:
        assert model.inputs[0].shape == (2, 16, 8, 8)


def test_a_module_is_exported_for_inference_and_left_as_it_was() -> None:
    module = network().train()
    module.first.eval()  # frozen, as a BatchNorm in fine-tuning
    with opened_model(module, EXAMPLE) as model:
        assert "Dropout" not in {node.op_type for node in model.proto.graph.node}
    assert [name for name, submodule in module.named_modules() if not submodule.training] == ["first"]


def test_the_same_module_is_the_same_model_twice() -> None:
    identities = []
    for _ in range(2):
        with opened_model(network(), EXAMPLE) as model:
            identities.append(model.identity)
    assert identities[0] == identities[1]


def test_one_example_is_enough_for_a_dynamic_batch() -> None:
    with opened_model(network(), EXAMPLE[:1]) as model:
        assert isinstance(model.inputs[0].shape[0], str)


def test_a_module_without_examples_is_refused() -> None:
    with pytest.raises(trt_ptq.UsageError, match="`example_inputs` is missing"):
        trt_ptq.calibrate(network(), [images(4)])


def test_a_module_that_cannot_be_exported_is_refused_in_one_line() -> None:
    with pytest.raises(trt_ptq.ModelError, match=r"cannot export Network.*torch\.onnx\.export") as refused:
        trt_ptq.calibrate(network(), [images(4)], example_inputs=(torch.zeros(2, 3, 8, 8),))
    assert "\n" not in str(refused.value)


def test_a_module_is_quantized(tmp_path: Path) -> None:
    module = network().eval()
    pictures = images(40)
    result = trt_ptq.quantize(
        module,
        [pictures[index : index + 4] for index in range(0, 40, 4)],
        output_dir=tmp_path / "out",
        config=trt_ptq.QuantizeConfig(method="minmax", backend="none", max_drop=0.05),
        example_inputs=(EXAMPLE,),
    )
    assert result.passed
    assert result.report.model == "torch module Network"
    assert trt_ptq.compare(module, result.model_path, [pictures[:4]], max_drop=0.05, example_inputs=EXAMPLE).passed
    import onnxruntime as ort

    session = ort.InferenceSession(result.model_path)
    [output] = session.run(None, {session.get_inputs()[0].name: pictures[:4]})
    expected = module(torch.from_numpy(pictures[:4])).detach().numpy()
    np.testing.assert_allclose(output, expected, atol=0.1)


def sequence_network() -> Any:
    class Network(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(16, 16)

        def forward(self, x: Any) -> Any:
            return self.linear(x)

    torch.manual_seed(0)
    return Network()


def test_further_axes_are_dynamic_if_they_are_named() -> None:
    example = torch.zeros(2, 5, 16)
    with opened_model(sequence_network(), example) as model:
        assert model.inputs[0].shape[1:] == (5, 16)
    with opened_model(sequence_network(), example, ({0: "batch", 1: "length"},)) as model:
        assert [type(axis) for axis in model.inputs[0].shape] == [str, str, int]
    lengths = [np.ones((2, length, 16), np.float32) for length in (3, 7)]
    statistics = trt_ptq.calibrate(
        sequence_network(), lengths, example_inputs={"x": example}, dynamic_shapes={"x": {0: "batch", 1: "length"}}
    )
    assert statistics.data.samples == 4


def test_dynamic_shapes_that_the_module_does_not_allow_are_refused() -> None:
    with pytest.raises(trt_ptq.ModelError, match="with these `example_inputs` and `dynamic_shapes`"):
        trt_ptq.calibrate(
            network(fixed=True), [images(2)], example_inputs=EXAMPLE, dynamic_shapes=({0: torch.export.Dim("n")},)
        )


def test_dynamic_shapes_are_for_modules(tmp_path: Path) -> None:
    with pytest.raises(trt_ptq.UsageError, match=r"`dynamic_shapes` is for a torch\.nn\.Module"):
        trt_ptq.calibrate(tmp_path / "m.onnx", [images(2)], dynamic_shapes=({0: "n"},))
