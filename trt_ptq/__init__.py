"""INT8 post-training quantization for TensorRT: calibrate once, choose ranges, convert, build and verify.

    result = trt_ptq.quantize("model.onnx", data, evaluate=accuracy, output_dir="int8")

The public names below are imported when they are first used: importing trt_ptq itself imports next to nothing.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trt_ptq._internal.default_log import DefaultHandler
from trt_ptq.version import __version__

logging.getLogger(__name__).addHandler(DefaultHandler())  # silent where the application has configured logging
# Python shows log messages from WARNING on; those of calibrators are Python warnings as well, which is enough.
logging.getLogger(f"{__name__}.calibrators").addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from trt_ptq.api.apply_table import QuantizedModel as QuantizedModel
    from trt_ptq.api.calibrating import calibrate as calibrate
    from trt_ptq.api.calibrating import measure_sensitivity as measure_sensitivity
    from trt_ptq.api.calibrating_text import TextStatistics as TextStatistics
    from trt_ptq.api.calibrating_text import calibrate_text as calibrate_text
    from trt_ptq.api.comparing import compare as compare
    from trt_ptq.api.converting import lint_model as lint_model
    from trt_ptq.api.converting import quantize_model as quantize_model
    from trt_ptq.api.engine import build_engine as build_engine
    from trt_ptq.api.planning import compare_plans as compare_plans
    from trt_ptq.api.planning import plan_engine as plan_engine
    from trt_ptq.api.planning import read_plan as read_plan
    from trt_ptq.calibrators.statistics.statistics import Statistics as Statistics
    from trt_ptq.calibrators.statistics.statistics_file import load_statistics as load_statistics
    from trt_ptq.calibrators.table.calibration_table import CalibrationTable as CalibrationTable
    from trt_ptq.calibrators.table.table_file import load_table as load_table
    from trt_ptq.calibrators.tensorrt.batch import EntropyCalibrator as EntropyCalibrator
    from trt_ptq.calibrators.tensorrt.batch import MinMaxCalibrator as MinMaxCalibrator
    from trt_ptq.calibrators.tensorrt.percentile_calibrator import PercentileCalibrator as PercentileCalibrator
    from trt_ptq.calibrators.tensorrt.table_calibrator import TableCalibrator as TableCalibrator
    from trt_ptq.config import QuantizeConfig as QuantizeConfig
    from trt_ptq.data.open import open_data as open_data
    from trt_ptq.engines.manifest import EngineManifest as EngineManifest
    from trt_ptq.engines.plans.engine_plan import EnginePlan as EnginePlan
    from trt_ptq.engines.plans.plan_comparison import PlanComparison as PlanComparison
    from trt_ptq.engines.spec import BuilderConfig as BuilderConfig
    from trt_ptq.errors import ClusterError as ClusterError
    from trt_ptq.errors import DataError as DataError
    from trt_ptq.errors import EngineError as EngineError
    from trt_ptq.errors import MissingPackageError as MissingPackageError
    from trt_ptq.errors import ModelError as ModelError
    from trt_ptq.errors import OutputError as OutputError
    from trt_ptq.errors import StatisticsError as StatisticsError
    from trt_ptq.errors import TableError as TableError
    from trt_ptq.errors import TrtPtqError as TrtPtqError
    from trt_ptq.errors import UsageError as UsageError
    from trt_ptq.evaluation.comparison import Comparison as Comparison
    from trt_ptq.evaluation.metric_direction import Lower as Lower
    from trt_ptq.evaluation.verdict import Verdict as Verdict
    from trt_ptq.lint.finding import Finding as Finding
    from trt_ptq.onnx_io.load import Model as Model
    from trt_ptq.onnx_io.load import load_model as load_model
    from trt_ptq.pipeline import quantize as quantize
    from trt_ptq.pipeline.quantize_result import QuantizeResult as QuantizeResult
    from trt_ptq.recipe import Recipe as Recipe
    from trt_ptq.recipe import load_recipe as load_recipe
    from trt_ptq.report.schema import Report as Report
    from trt_ptq.report.schema import load_report as load_report
    from trt_ptq.sensitivity.measure import LayerSensitivity as LayerSensitivity
    from trt_ptq.types import Batch as Batch
    from trt_ptq.types import BatchSource as BatchSource
    from trt_ptq.types import ProgressCallback as ProgressCallback
    from trt_ptq.types import ShapeProfile as ShapeProfile
    from trt_ptq.types import TensorSpec as TensorSpec

_NAMES = {
    "api.calibrating": ("calibrate", "measure_sensitivity"),
    "api.calibrating_text": ("TextStatistics", "calibrate_text"),
    "api.apply_table": ("QuantizedModel",),
    "api.comparing": ("compare",),
    "api.converting": ("lint_model", "quantize_model"),
    "api.engine": ("build_engine",),
    "api.planning": ("compare_plans", "plan_engine", "read_plan"),
    "calibrators.statistics.statistics": ("Statistics",),
    "calibrators.statistics.statistics_file": ("load_statistics",),
    "calibrators.table.calibration_table": ("CalibrationTable",),
    "calibrators.table.table_file": ("load_table",),
    "calibrators.tensorrt.batch": ("EntropyCalibrator", "MinMaxCalibrator"),
    "calibrators.tensorrt.percentile_calibrator": ("PercentileCalibrator",),
    "calibrators.tensorrt.table_calibrator": ("TableCalibrator",),
    "config": ("QuantizeConfig",),
    "data.open": ("open_data",),
    "engines.manifest": ("EngineManifest",),
    "engines.plans.engine_plan": ("EnginePlan",),
    "engines.plans.plan_comparison": ("PlanComparison",),
    "engines.spec": ("BuilderConfig",),
    "errors": (
        "ClusterError",
        "DataError",
        "EngineError",
        "MissingPackageError",
        "ModelError",
        "OutputError",
        "StatisticsError",
        "TableError",
        "TrtPtqError",
        "UsageError",
    ),
    "evaluation.comparison": ("Comparison",),
    "evaluation.metric_direction": ("Lower",),
    "evaluation.verdict": ("Verdict",),
    "lint.finding": ("Finding",),
    "onnx_io.load": ("Model", "load_model"),
    "pipeline": ("quantize",),
    "pipeline.quantize_result": ("QuantizeResult",),
    "recipe": ("Recipe", "load_recipe"),
    "report.schema": ("Report", "load_report"),
    "sensitivity.measure": ("LayerSensitivity",),
    "types": ("Batch", "BatchSource", "ProgressCallback", "ShapeProfile", "TensorSpec"),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]  # noqa: PLE0604 - a test compares it with the imports above


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
