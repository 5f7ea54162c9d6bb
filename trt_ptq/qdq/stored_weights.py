"""INT8 weights that were rounded by data, in a file: all of them may not fit into memory beside the float model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trt_ptq.errors import OutputError

WeightKey = tuple[str, int]  # the tensor that a node reads, and its axis of output channels


@dataclass(frozen=True)
class StoredWeight:
    """A quantized weight in a file.

    Attributes:
        file: The file, which holds int8 in [-127, 127].
        offset: Where the weight starts, in bytes.
        shape: That of the float weight.
        scales: float32, one per output channel.
    """

    file: Path
    offset: int
    shape: tuple[int, ...]
    scales: npt.NDArray[np.float32]

    def values(self) -> npt.NDArray[np.int8]:
        """Read the integers."""
        size = int(np.prod(self.shape))
        return np.fromfile(self.file, np.int8, size, offset=self.offset).reshape(self.shape)

    def tensor(self) -> ir.LazyTensor:
        """The integers as a tensor that reads the file at each use."""
        return ir.LazyTensor(lambda: ir.tensor(self.values()), ir.DataType.INT8, ir.Shape(self.shape), name="")


StoredWeights = Mapping[WeightKey, StoredWeight]


class WeightStore:
    """Appends weights to a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def add(self, values: npt.NDArray[np.int8], scales: npt.NDArray[np.float32]) -> StoredWeight:
        """Append `values`.

        Raises:
            OutputError: The file cannot be written.
        """
        try:
            with self._file.open("ab") as file:
                offset = file.tell()
                file.write(np.ascontiguousarray(values).data)
        except OSError as error:
            raise OutputError(f"cannot write {self._file}: {error.strerror}") from error
        return StoredWeight(self._file, offset, values.shape, scales)
