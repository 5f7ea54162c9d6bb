"""The calibration table: the dynamic range of each tensor, with its provenance."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trt_ptq._internal.hardware.cpu import usable_cores
from trt_ptq._internal.listing import counted
from trt_ptq.calibrators.table.table_recipe import TableRecipe
from trt_ptq.errors import TableError
from trt_ptq.provenance import DataFingerprint, ModelIdentity

if TYPE_CHECKING:
    from trt_ptq.calibrators.methods import RangeMethod
    from trt_ptq.calibrators.statistics.statistics import Statistics
    from trt_ptq.calibrators.table.tensorrt_cache import TensorRTVersion

INT8_MAX = 127
LARGEST_SCALE = float(np.finfo(np.float32).max)
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)  # TensorRT rejects zero and denormal scales


def has_usable_scale(amax: float) -> bool:
    """Whether `amax` gives a scale that TensorRT accepts: a finite, normal float32."""
    return SMALLEST_SCALE <= amax / INT8_MAX <= LARGEST_SCALE


@dataclass(frozen=True)
class TableProvenance:
    """The model, data, range method and tool versions that a table was derived from."""

    model: ModelIdentity
    data: DataFingerprint
    method: str
    tools: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class CalibrationTable:
    """The dynamic range of each activation tensor, for symmetric INT8: scale = amax / 127.

    Attributes:
        amax: Largest magnitude that INT8 represents, by tensor name, in the tensor's own unit.
        provenance: What the table was derived from. None if it was read from a TensorRT cache or a table of ONNX
            Runtime, which do not record it.
        tensors_without_range: Tensors without an entry because no scale fits them: they are always zero, or their
            range in the file was not finite.
        tensorrt_header: First line of the TensorRT cache that the table was read from, such as
            "TRT-8601-MinMaxCalibration"; None if it came from elsewhere.
        recipe: How `quantize` built the INT8 model from the ranges; None if the table was not made by `quantize`.
    """

    amax: Mapping[str, float]
    provenance: TableProvenance | None = None
    tensors_without_range: tuple[str, ...] = ()
    tensorrt_header: str | None = None
    recipe: TableRecipe | None = None

    def __post_init__(self) -> None:
        for name, value in self.amax.items():
            if not has_usable_scale(value):
                raise TableError(
                    f"the range of tensor {name!r} is {value}: a scale must be finite and at least {SMALLEST_SCALE:.3g}"
                )

    def __repr__(self) -> str:
        source = self.tensorrt_header if self.provenance is None else f"method {self.provenance.method}"
        return f"CalibrationTable({counted(len(self.amax), 'range')}{f', {source}' if source else ''})"

    @classmethod
    def from_ranges(cls, amax: Mapping[str, float], tensorrt_header: str | None = None) -> CalibrationTable:
        """Create a table without provenance.

        Args:
            amax: Range by tensor name. Ranges without a usable scale (zero, infinite, NaN) are listed in
                `tensors_without_range`.
            tensorrt_header: See the class.
        """
        return cls(
            {name: value for name, value in amax.items() if has_usable_scale(value)},
            tensors_without_range=tuple(sorted(name for name, value in amax.items() if not has_usable_scale(value))),
            tensorrt_header=tensorrt_header,
        )

    def scale(self, name: str) -> np.float32:
        """Return the scale of tensor `name`, amax / 127 rounded to float32.

        Raises:
            KeyError: The table has no such tensor.
        """
        return np.float32(self.amax[name] / INT8_MAX)

    def check_model(self, model: ModelIdentity, where: str) -> None:
        """Check that the table was made for `model`.

        A table without provenance passes: only its tensor names can be checked.

        Args:
            model: Identity of the model that the table is to be used for.
            where: Names the table in the message.

        Raises:
            TableError: It was made for another model; says what differs.
        """
        difference = self.provenance and self.provenance.model.difference(model)
        if difference:
            raise TableError(
                f"{where}: made for another model: {difference}; calibrate this model (`trt-ptq qdq` and "
                "`trt-ptq build` accept the table with --allow-other-model)"
            )

    def save(self, path: str | os.PathLike[str], *, tensorrt_version: str | TensorRTVersion | None = None) -> None:
        """Write the table to `path`, atomically. The file name selects the format.

        Args:
            path: `*.json` is trt_ptq's JSON with provenance, `*.flatbuffers` and `*.ort.json` are the tables of ONNX
                Runtime, anything else is a TensorRT calibration cache.
            tensorrt_version: The TensorRT version that a cache is written for, such as "8.6.1". Default: the version
                of the cache that the table was read from, else 10.16.1.

        Raises:
            OutputError: `path` cannot be written.
            TableError: A tensor name that the format cannot hold, or an invalid version.
        """
        from trt_ptq.calibrators.table.table_file import save_table
        from trt_ptq.calibrators.table.tensorrt_cache import TensorRTVersion

        if isinstance(tensorrt_version, str):
            tensorrt_version = TensorRTVersion.parse(tensorrt_version)
        save_table(self, path, tensorrt_version)


def derive_table(statistics: Statistics, method: RangeMethod) -> CalibrationTable:
    """Derive the table of `statistics` by `method`, sorted by tensor name.

    Tensors without statistics of their own get the range of the tensor that `Statistics.shares_range` names. The work
    is split over all cores: the range searches release the GIL.
    """
    tensors = list(statistics.tensors.items())
    workers = usable_cores()

    def ranges(worker: int) -> list[tuple[str, float]]:
        return [(name, method.amax(tensor)) for name, tensor in tensors[worker::workers]]

    with ThreadPoolExecutor(workers) as pool:
        derived = [named_range for part in pool.map(ranges, range(workers)) for named_range in part]
    amax: dict[str, float] = {}
    tensors_without_range = []
    for name, value in derived:
        if has_usable_scale(value):
            amax[name] = value
        else:
            tensors_without_range.append(name)
    for name, source in statistics.shares_range.items():
        if source in amax:
            amax[name] = amax[source]
        else:
            tensors_without_range.append(name)
    return CalibrationTable(
        amax=dict(sorted(amax.items())),
        provenance=TableProvenance(
            model=statistics.model,
            data=statistics.data,
            method=method.name,
            tools=statistics.tools,
        ),
        tensors_without_range=tuple(sorted(tensors_without_range)),
    )
