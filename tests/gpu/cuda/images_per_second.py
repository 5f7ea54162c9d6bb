"""Images a second: calibration against plain inference, with ONNX Runtime and with torch, on one device.

    python -m tests.gpu.cuda.images_per_second [--device cpu] [--batches 2] [--batch-size 4]

It prints a line of JSON for each figure. The network has random weights: only its time has a meaning.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from tests.networks import weight, write
from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.devices import open_device
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.statistics.torch_accumulator import TorchAccumulator
from trt_ptq.errors import TrtPtqError
from trt_ptq.onnx_io.load import load_model
from trt_ptq.types import Batch

LAYERS, CHANNELS, SIZE = 16, 64, 56


class Images:
    """A BatchSource that repeats one batch of random images."""

    def __init__(self, batches: int, batch_size: int) -> None:
        self.total = batches
        self.x = np.random.default_rng(0).standard_normal((batch_size, CHANNELS, SIZE, SIZE), np.float32)

    def __iter__(self) -> Iterator[Batch]:
        return iter([Batch({"x": self.x}, "random")] * self.total)


def network(path: Path) -> Path:
    """Convolutions with ReLU, of the sizes in the first stage of a ResNet."""
    nodes, read = [], "x"
    for index in range(LAYERS):
        nodes.append(helper.make_node("Conv", [read, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]))
        read = f"r{index}"
        nodes.append(helper.make_node("Relu", [f"c{index}"], [read]))
    weights = [weight(f"w{index}", CHANNELS, CHANNELS, 3, 3) for index in range(LAYERS)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", CHANNELS, SIZE, SIZE])
    return write(path, nodes, weights, [x], [read])


def nothing() -> None:
    """For a device that computes nothing in the background."""


def tell(what: str, run: Callable[[], object], source: Images, synchronize: Callable[[], object] = nothing) -> None:
    """Print images a second of the second `run`: the first one compiles and warms up."""
    try:
        run()
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        rate = source.total * len(source.x) / (time.perf_counter() - start)
        print(json.dumps({"what": what, "images_per_second": round(rate, 1)}), flush=True)
    except TrtPtqError as error:
        print(json.dumps({"what": what, "not_measured": str(error)}), flush=True)


def with_onnx_runtime(path: Path, device: str, source: Images) -> None:
    model = load_model(path)
    tensors = select_calibration_tensors(model)
    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    if provider in ort.get_available_providers():
        session = ort.InferenceSession(path, providers=[provider])
        infer = lambda: [session.run(None, dict(batch.feeds)) for batch in source]  # noqa: E731
        tell(f"ONNX Runtime on {device}, plain inference", infer, source)
    tell(
        f"ONNX Runtime on {device}, calibration",
        lambda: collect_statistics(model, source, tensors, device=open_device(device)),
        source,
    )


def with_torch(device: str, source: Images) -> None:
    try:
        import torch
    except ImportError as error:
        print(json.dumps({"what": "torch", "not_measured": str(error)}))
        return
    if device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({"what": "torch", "not_measured": "torch has no CUDA device here"}))
        return
    synchronize = torch.cuda.synchronize if device == "cuda" else nothing
    convolutions = [torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1).to(device) for _ in range(LAYERS)]
    accumulators = [TorchAccumulator() for _ in range(LAYERS)]

    def infer(update: Callable[[int, Any], object]) -> None:
        for batch in source:
            x = torch.from_numpy(batch.feeds["x"]).to(device)
            for index, convolution in enumerate(convolutions):
                update(index, x)
                x = convolution(x).relu()

    torch.set_grad_enabled(False)
    tell(f"torch on {device}, plain inference", lambda: infer(lambda _index, _x: None), source, synchronize)
    tell(
        f"torch on {device}, statistics of every input of a layer",
        lambda: infer(lambda index, x: accumulators[index].update(x)),
        source,
        synchronize,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()
    source = Images(arguments.batches, arguments.batch_size)
    with temporary_folder() as folder:
        with_onnx_runtime(network(folder / "network.onnx"), arguments.device, source)
    with_torch(arguments.device, source)


if __name__ == "__main__":
    main()
