"""A worker of a cluster that is not set up as the others says so."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from trt_ptq.calibration.ray.shard_task import ShardTask, measure_shard
from trt_ptq.calibration.tensors import CalibrationTensors
from trt_ptq.errors import ClusterError
from trt_ptq.onnx_io.load import Model
from trt_ptq.onnx_io.ort_session import tools


def job(model: Model, folder: Path, versions: tuple[str, ...]) -> ShardTask:
    return ShardTask(model.path, model.identity, CalibrationTensors(("x",), {}), "refuse", None, folder, versions)


def test_a_node_without_the_folder_of_the_user_is_named(cnn: Model, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=rf"^node {socket.gethostname()} has no folder .*gone \(No such file"):
        measure_shard(job(cnn, tmp_path / "gone", tools()), 0, 2)


def test_a_node_with_other_versions_is_named(cnn: Model, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"^node \S+ has onnxruntime .*, not onnxruntime 0: install the same"):
        measure_shard(job(cnn, tmp_path, ("onnxruntime 0",)), 0, 2)
