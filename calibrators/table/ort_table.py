"""Calibration tables of ONNX Runtime's TensorRT execution provider, as flatbuffers and as JSON.

Both hold ranges (amax), not scales, as decimal numbers. The execution provider reads the flatbuffers, unless
`trt_int8_use_native_calibration_table` is set: then it reads TensorRT's cache. The JSON is read by ONNX Runtime's
quantizer only, but it has both ends of each range.

ONNX Runtime's `write_calibration_table` writes max(highest, lowest) to the flatbuffers, without the absolute value of
the lowest: 1.25 for [-3.5, 1.25]. trt_ptq writes max(|lowest|, |highest|) and the flatbuffers file identifier "TPTQ",
which other readers skip, to distinguish the two.

flatbuffers is a dependency of ONNX Runtime, so it needs no extra.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

from trt_ptq.calibrators.table.calibration_table import CalibrationTable
from trt_ptq.errors import TableError

_IDENTIFIER = b"TPTQ"
_OFFSET_BYTES = 4


def to_flatbuffers(table: CalibrationTable) -> bytes:
    """Serialize `table` as a `TrtTable` flatbuffer, sorted by tensor name, with ranges in full precision."""
    import flatbuffers
    from onnxruntime.quantization.CalTableFlatBuffers import KeyValue, TrtTable

    builder = flatbuffers.Builder(1024)
    entries = []
    for name, amax in sorted(table.amax.items(), reverse=True):  # a vector is built from its end
        key, value = builder.CreateString(name), builder.CreateString(repr(amax))
        KeyValue.Start(builder)
        KeyValue.AddKey(builder, key)
        KeyValue.AddValue(builder, value)
        entries.append(KeyValue.End(builder))
    TrtTable.StartDictVector(builder, len(entries))
    for entry in entries:
        builder.PrependUOffsetTRelative(entry)
    dictionary = builder.EndVector()
    TrtTable.Start(builder)
    TrtTable.AddDict(builder, dictionary)
    builder.Finish(TrtTable.End(builder), _IDENTIFIER)
    return bytes(builder.Output())


def from_flatbuffers(content: bytes) -> CalibrationTable:
    """Parse a `TrtTable` flatbuffer.

    Raises:
        TableError: The content is damaged, or has a range whose negative end ONNX Runtime dropped.
    """
    try:
        entries = list(_entries(content))
    except (struct.error, UnicodeDecodeError, ValueError, TypeError, IndexError, OverflowError) as error:
        raise TableError(f"not a flatbuffers calibration table of ONNX Runtime, or damaged: {error}") from error
    amax: dict[str, float] = {}
    for name, text in entries:
        try:
            value = float(text)
        except ValueError:
            raise TableError(f"the range of tensor {name!r} is {text[:40]!r}, which is not a number") from None
        if value < 0:
            raise TableError(
                f"the range of tensor {name!r} is {text}: ONNX Runtime's write_calibration_table kept the end nearer "
                "to zero and lost the other; use the calibration.json that it wrote beside this file"
            )
        amax[name] = value
    return CalibrationTable.from_ranges(amax)


def may_lack_negative_end(content: bytes) -> bool:
    """Whether a flatbuffers table was not written by trt_ptq, so that its ranges may lack their negative end."""
    return content[_OFFSET_BYTES : 2 * _OFFSET_BYTES] != _IDENTIFIER


def _entries(content: bytes) -> Iterator[tuple[str, str]]:
    from onnxruntime.quantization.CalTableFlatBuffers.TrtTable import TrtTable

    table = TrtTable.GetRootAs(content)
    length = table.DictLength()
    if length * _OFFSET_BYTES > len(content):
        raise ValueError(f"{length} entries in {len(content)} bytes")
    for index in range(length):
        entry = table.Dict(index)
        yield _string(entry, 4), _string(entry, 6)


def _string(entry: Any, slot: int) -> str:
    """Read a string field with a bounds check; the generated accessor accepts a truncated file."""
    from flatbuffers import encode, packer

    fields = entry._tab
    offset = fields.Offset(slot)
    if not offset:
        raise ValueError("an entry without a name or a value")
    at = fields.Indirect(offset + fields.Pos)
    start = at + _OFFSET_BYTES
    end = start + encode.Get(packer.uoffset, fields.Bytes, at)
    if fields.Bytes[end : end + 1] != b"\0":
        raise ValueError("a string runs past its end")
    return bytes(fields.Bytes[start:end]).decode()


def to_json(table: CalibrationTable) -> str:
    """Serialize `table` as JSON for ONNX Runtime's `load_tensors_data`, with ranges from -amax to amax."""
    data = {name: {"lowest": -amax, "highest": amax, "CLS": "TensorData"} for name, amax in table.amax.items()}
    method = {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"}
    return json.dumps({"CLS": "TensorsData", "data": data, "calibration_method": method}, indent=2) + "\n"


def is_onnxruntime_json(content: Any) -> bool:
    """Whether parsed JSON is a calibration.json of ONNX Runtime: every record names its class in "CLS"."""
    if not isinstance(content, dict):
        return False
    if content.get("CLS") == "TensorsData":
        return True
    return bool(content) and all(
        isinstance(record, dict) and record.get("CLS") == "TensorData" for record in content.values()
    )


def from_json(content: Any) -> CalibrationTable:
    """Read the ranges max(|lowest|, |highest|) from the JSON of `write_calibration_table` or `save_tensors_data`.

    Raises:
        TableError: A tensor without both ends, or with one range per channel.
    """
    tensors = content["data"] if content.get("CLS") == "TensorsData" else content
    if not isinstance(tensors, dict):
        raise TableError('"data" is not a dictionary of tensors')
    for name in tensors:
        name.encode()  # a lone surrogate could not be written again
    return CalibrationTable.from_ranges(
        {
            name: max(abs(_end(name, record, "lowest")), abs(_end(name, record, "highest")))
            for name, record in tensors.items()
        }
    )


def _end(name: str, record: Any, key: str) -> float:
    value = record.get(key) if isinstance(record, dict) else None
    if isinstance(value, dict) and value.get("CLS") == "numpy.array":
        value = value.get("data")
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        raise TableError(f"tensor {name!r} has {len(value)} ranges: TensorRT uses one range per activation tensor")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TableError(f'tensor {name!r} has no number for "{key}"')
    return float(value)
