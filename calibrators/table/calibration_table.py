"""A calibration table: the range of each tensor, and what it came from."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from trt_ptq._internal.cpu import usable_cores
from trt_ptq.calibrators.methods import RangeMethod
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.errors import TableError
from trt_ptq.provenance import DataFingerprint, ModelIdentity

INT8_MAX = 127
LARGEST_SCALE = float(np.finfo(np.float32).max)
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)  # TensorRT refuses zero and denormal scales


def has_usable_scale(amax: float) -> bool:
    """Whether a range gives a scale that TensorRT takes: finite, and no denormal float32."""
    return SMALLEST_SCALE <= amax / INT8_MAX <= LARGEST_SCALE


@dataclass(frozen=True)
class TableProvenance:
    """Where a table came from."""

    model: ModelIdentity
    data: DataFingerprint
    method: str
    tools: tuple[str, ...]


@dataclass(frozen=True)
class CalibrationTable:
    """`amax` by tensor name, in the tensor's unit; scale = amax / 127. Symmetric int8.

    `provenance` is None for a table that was read from a TensorRT cache or from ONNX Runtime's form, which record none.
    `tensors_without_range` names tensors without an entry, since no scale fits them: always zero, or with a range that
    is not finite in the file they were read from.
    """

    amax: Mapping[str, float]
    provenance: TableProvenance | None = None
    tensors_without_range: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in self.amax.items():
            if not has_usable_scale(value):
                raise TableError(
                    f"the range of tensor {name!r} is {value}: a scale must be finite and above {SMALLEST_SCALE:.3g}"
                )

    @classmethod
    def from_ranges(cls, amax: Mapping[str, float]) -> CalibrationTable:
        """A table without provenance. Ranges without a usable scale (zero, infinite, NaN): `tensors_without_range`."""
        return cls(
            {name: value for name, value in amax.items() if has_usable_scale(value)},
            tensors_without_range=tuple(sorted(name for name, value in amax.items() if not has_usable_scale(value))),
        )

    def scale(self, name: str) -> np.float32:
        """The float32 scale of tensor `name`.

        Raises:
            KeyError: the table has no such tensor.
        """
        return np.float32(self.amax[name] / INT8_MAX)

    def check_model(self, model: ModelIdentity, where: str) -> None:
        """Make sure that the table was made for `model`.

        Raises:
            TableError: with what differs. A table without provenance passes: only its names can be checked.
        """
        difference = self.provenance and self.provenance.model.difference(model)
        if difference:
            raise TableError(
                f"{where}: made for another model: {difference}; calibrate this one, or allow it (--allow-other-model)"
            )


def derive_table(statistics: Statistics, method: RangeMethod) -> CalibrationTable:
    """The table that `method` derives from `statistics`, sorted by tensor name.

    Tensors without a range of their own take the one that `Statistics.shares_range` names. All cores take part: the
    searches run without the GIL.
    """
    tensors = list(statistics.tensors.items())
    workers = usable_cores()

    def ranges(worker: int) -> list[tuple[str, float]]:
        return [(name, method.amax(tensor)) for name, tensor in tensors[worker::workers]]

    with ThreadPoolExecutor(workers) as pool:
        found = [one for some in pool.map(ranges, range(workers)) for one in some]
    amax: dict[str, float] = {}
    tensors_without_range = []
    for name, value in found:
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
