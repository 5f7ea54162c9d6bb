"""Any calibration table, served to TensorRT's builder as if TensorRT had made it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.calibrators.table.tensorrt_cache import TensorRTCache
from trt_ptq.calibrators.tensorrt.base import Calibrator
from trt_ptq.calibrators.tensorrt.network_inputs import tensor_names
from trt_ptq.calibrators.tensorrt.tensorrt_subclass import running_version
from trt_ptq.errors import EngineError, TableError
from trt_ptq.provenance import ModelIdentity


class TableCalibrator(Calibrator):
    """A `trt.IInt8EntropyCalibrator2` that serves `table` under the running version's header, and needs no data.

    A tensor that the table does not name does not run in INT8; TensorRT warns of each.

    Args:
        table: ranges by any method.
        network: the `trt.INetworkDefinition`, to make sure that the table names tensors of it.
        model: identity of the ONNX model, to make sure that the table is of it.

    Raises:
        TableError: the table is of another model, names no tensor of the network, or a name does not fit a cache.
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
            raise TableError("the calibration table names no tensor of this network: it is of another model")
        self._content = TensorRTCache.from_table(table, running_version(), self.algorithm).to_bytes()

    def cache_to_serve(self) -> bytes:
        return self._content

    def accept_cache(self, content: bytes) -> None:
        """The table is the user's: what TensorRT gives back changes nothing in it."""

    def pointers(self, names: Sequence[str]) -> list[int] | None:  # noqa: ARG002
        raise EngineError("TensorRT did not take the calibration table that it was given, and asked for batches")
