"""A TensorRT 10 builder script that calibrates with our EntropyCalibrator: swap the class, keep the rest of yours.

Run: python examples/tensorrt10_builder.py MODEL.onnx CALIBRATION_FOLDER OUT.engine    (TensorRT 10 and an NVIDIA GPU)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tensorrt as trt

import trt_ptq


def build(model: Path, data: Path, engine: Path, batch_size: int = 8) -> None:
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        sys.exit(f"{model}: {parser.get_error(0)}")
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.FP16)
    profile = dynamic_batch_profile(builder, network, batch_size)
    config.add_optimization_profile(profile)
    config.set_calibration_profile(profile)

    with trt_ptq.EntropyCalibrator(data, engine.with_suffix(".cache"), network=network, profile=profile) as calibrator:
        config.int8_calibrator = calibrator
        for _ in calibrator.passes():
            plan = builder.build_serialized_network(network, config)
    engine.write_bytes(plan)


def dynamic_batch_profile(builder: Any, network: Any, batch_size: int) -> Any:
    """One sample to twice the batch size, tuned for the batch size."""
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        sample = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, (1, *sample), (batch_size, *sample), (2 * batch_size, *sample))
    return profile


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python examples/tensorrt10_builder.py MODEL.onnx CALIBRATION_FOLDER OUT.engine")
    build(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
