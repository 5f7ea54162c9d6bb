"""The networks that are timed: ResNet-50, MobileNetV2 and BERT-base, with random weights, exported on first use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.models.wheels import cache_folder, write_atomically

Feeds = dict[str, NDArray[Any]]

IMAGE = (3, 224, 224)
_TOKENS = 128
_VOCABULARY = 30522
_OPSET = 18


def resnet50() -> Path:
    """The ONNX file: `x` float32 [batch, 3, 224, 224] in, `y` [batch, 1000] out."""
    return _made("resnet50", _resnet50)


def mobilenet_v2() -> Path:
    """The ONNX file: `x` float32 [batch, 3, 224, 224] in, `y` [batch, 1000] out."""
    return _made("mobilenet-v2", _mobilenet_v2)


def bert() -> Path:
    """The ONNX file: `ids` and `mask` int64 [batch, 128] in, `y` float32 [batch, 128, 768] out."""
    return _made("bert-base", _bert)


def images(samples: int, seed: int = 0, shape: Sequence[int] = IMAGE) -> Feeds:
    """`x`: standard normal float32 [samples, *shape], as normalised pictures are spread."""
    return {"x": np.random.default_rng(seed).standard_normal((samples, *shape), np.float32)}


def texts(samples: int, seed: int = 0) -> Feeds:
    """`ids` and `mask`: int64 [samples, 128], texts of 64 to 128 tokens."""
    random = np.random.default_rng(seed)
    lengths = random.integers(_TOKENS // 2, _TOKENS + 1, (samples, 1))
    mask = (np.arange(_TOKENS) < lengths).astype(np.int64)
    return {"ids": random.integers(0, _VOCABULARY, (samples, _TOKENS)) * mask, "mask": mask}


def _made(name: str, make: Any) -> Path:
    path = cache_folder() / "random-weights" / f"{name}.onnx"
    if not path.exists():
        write_atomically(path, make())
    return path


def _resnet50() -> bytes:
    from transformers import ResNetConfig, ResNetForImageClassification

    return _convolutional(ResNetForImageClassification, ResNetConfig(num_labels=1000))


def _mobilenet_v2() -> bytes:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    return _convolutional(MobileNetV2ForImageClassification, MobileNetV2Config(num_labels=1000, tf_padding=False))


def _convolutional(network: Any, config: Any) -> bytes:
    """He initialisation, and batch-norm statistics of a few batches, so that activations are spread as in training.

    With untouched statistics they would fade from layer to layer, down to denormal numbers.
    """
    import torch

    torch.manual_seed(0)
    config.return_dict = False
    model = network(config)
    for layer in model.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the plain mean over all batches
    model.train(mode=True)
    with torch.no_grad():
        for _ in range(4):
            model(torch.randn(8, *IMAGE))
    return _exported(model, {"pixel_values": torch.randn(2, *IMAGE)}, ["x"])


def _bert() -> bytes:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(attn_implementation="eager", return_dict=False)
    tokens, mask = torch.ones((2, 2, _TOKENS), dtype=torch.int64)  # two: one tensor given twice is traced as one
    feeds = {"input_ids": tokens, "attention_mask": mask}
    return _exported(BertModel(config, add_pooling_layer=False), feeds, ["ids", "mask"])


def _exported(model: Any, feeds: dict[str, Any], names: list[str]) -> bytes:
    """The model as ONNX with an open batch axis; batch norms are folded into the convolutions."""
    import torch

    program = torch.onnx.export(
        model.train(mode=False),
        kwargs=feeds,
        dynamic_shapes={name: {0: torch.export.Dim("batch")} for name in feeds},
        input_names=names,
        output_names=["y"],
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch exported no program")
    return bytes(program.model_proto.SerializeToString(deterministic=True))
