"""A calibrator that serves any calibration table to TensorRT, as if TensorRT had computed it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.tensorrt_cache import TensorRTCache
from trt_ptq.calibrators.tensorrt.base import Calibrator, running_version
from trt_ptq.calibrators.tensorrt.network_inputs import tensor_names
from trt_ptq.errors import EngineError, TableError
from trt_ptq.provenance import ModelIdentity


class TableCalibrator(Calibrator):
    """A `trt.IInt8EntropyCalibrator2` that serves `table` under the header of the running version; needs no data.

    A tensor without a range in the table does not run in INT8; TensorRT warns about each.

    Args:
        table: ranges by any method.
        network: the `trt.INetworkDefinition`, to check that the table has ranges for its tensors.
        model: identity of the ONNX model, to check that the table belongs to it.

    Raises:
        TableError: the table belongs to another model, has no range for any tensor of the network, or a name does not
            fit into a cache.
        EngineError: this TensorRT has no calibrators.
        MissingPackageError: TensorRT is not installed.
    """

    interface = "IInt8EntropyCalibrator2"
    algorithm = "EntropyCalibration2"

    def __init__(self, table: CalibrationTable, *, network: Any = None, model: ModelIdentity | None = None) -> None:
        super().__init__()
        if model is not None:
            table.check_model(model, "the calibration table")
        if network is not None and not table.amax.keys() & tensor_names(network):
            raise TableError("the calibration table has no range for any tensor of this network: wrong model")
        self._content = TensorRTCache.from_table(table, running_version(), self.algorithm).to_bytes()

    def cache_to_serve(self) -> bytes:
        return self._content

    def accept_cache(self, content: bytes) -> None:
        """Ignored: TensorRT returns the table that it was served."""

    def pointers(self, names: Sequence[str]) -> list[int] | None:  # noqa: ARG002
        raise EngineError("TensorRT did not accept the calibration table, and requested batches")
