"""TensorRT INT8 post-training quantization: measure once, exactly; decide, convert, build and verify.

The public names below are loaded when they are first used: importing trt_ptq itself imports next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trt_ptq.version import __version__

if TYPE_CHECKING:
    from trt_ptq.calibration.collector import collect_statistics as collect_statistics
    from trt_ptq.calibration.tensors import select_calibration_tensors as select_calibration_tensors
    from trt_ptq.calibrators.methods import Entropy as Entropy
    from trt_ptq.calibrators.methods import MinMax as MinMax
    from trt_ptq.calibrators.methods import Mse as Mse
    from trt_ptq.calibrators.methods import Percentile as Percentile
    from trt_ptq.calibrators.methods import range_method as range_method
    from trt_ptq.calibrators.statistics.statistics import Statistics as Statistics
    from trt_ptq.calibrators.statistics.statistics_file import load_statistics as load_statistics
    from trt_ptq.calibrators.statistics.statistics_file import save_statistics as save_statistics
    from trt_ptq.calibrators.table.calibration_table import CalibrationTable as CalibrationTable
    from trt_ptq.calibrators.table.calibration_table import derive_table as derive_table
    from trt_ptq.calibrators.table.table_file import load_table as load_table
    from trt_ptq.calibrators.table.table_file import save_table as save_table
    from trt_ptq.calibrators.table.tensorrt_cache import TensorRTCache as TensorRTCache
    from trt_ptq.config import QuantizeConfig as QuantizeConfig
    from trt_ptq.data.open import open_data as open_data
    from trt_ptq.engines.backends import build_engine as build_engine
    from trt_ptq.engines.spec import EngineSpec as EngineSpec
    from trt_ptq.errors import TrtPtqError as TrtPtqError
    from trt_ptq.evaluation.compare_models import Comparison as Comparison
    from trt_ptq.evaluation.compare_models import compare_models as compare_models
    from trt_ptq.evaluation.verdict import Verdict as Verdict
    from trt_ptq.onnx_io.load import load_model as load_model
    from trt_ptq.onnx_io.save import save_model as save_model
    from trt_ptq.pipeline import quantize as quantize
    from trt_ptq.qdq.insert import insert_qdq as insert_qdq
    from trt_ptq.types import Batch as Batch
    from trt_ptq.types import BatchSource as BatchSource

_HOME = {
    "calibration.collector": ("collect_statistics",),
    "calibration.tensors": ("select_calibration_tensors",),
    "calibrators.methods": (
        "Entropy",
        "MinMax",
        "Mse",
        "Percentile",
        "range_method",
    ),
    "calibrators.statistics.statistics": ("Statistics",),
    "calibrators.statistics.statistics_file": (
        "load_statistics",
        "save_statistics",
    ),
    "calibrators.table.calibration_table": (
        "CalibrationTable",
        "derive_table",
    ),
    "calibrators.table.table_file": (
        "load_table",
        "save_table",
    ),
    "calibrators.table.tensorrt_cache": ("TensorRTCache",),
    "config": ("QuantizeConfig",),
    "data.open": ("open_data",),
    "engines.backends": ("build_engine",),
    "engines.spec": ("EngineSpec",),
    "errors": ("TrtPtqError",),
    "evaluation.compare_models": (
        "Comparison",
        "compare_models",
    ),
    "evaluation.verdict": ("Verdict",),
    "onnx_io.load": ("load_model",),
    "onnx_io.save": ("save_model",),
    "pipeline": ("quantize",),
    "qdq.insert": ("insert_qdq",),
    "types": (
        "Batch",
        "BatchSource",
    ),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _HOME.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]  # noqa: PLE0604 - a test compares it with the imports above


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
