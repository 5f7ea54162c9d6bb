"""`calibrate_text`: the statistics of a language model, by the length of the text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.api.inputs.language_input import model_tokenizer
from trt_ptq.api.inputs.model_input import ModelLike, describe_model, opened_model
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.tensors import select_calibration_tensors
from trt_ptq.calibrators.statistics.statistics import Statistics, merge_statistics
from trt_ptq.config import QuantizeConfig
from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.language_models.language_data import TextOptions, open_calibration_text
from trt_ptq.language_models.length_drift import RangeDrift, range_drift
from trt_ptq.language_models.text.text_audit import TextAudit
from trt_ptq.onnx_io.check_loaded import check_loaded
from trt_ptq.types import ProgressCallback, no_progress

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextStatistics:
    """Statistics of a language model.

    Attributes:
        by_length: the statistics by length bucket of the texts, such as "32-63" tokens.
        audit: what the text consists of.
    """

    by_length: dict[str, Statistics]
    audit: TextAudit

    @property
    def statistics(self) -> Statistics:
        """The statistics of all texts: those of the buckets, merged."""
        return merge_statistics(self.by_length.values())

    def drift(self, method: str = "minmax") -> list[RangeDrift]:
        """How the range of each tensor changes with the length, the largest change first; see `range_drift`."""
        return range_drift(self.by_length, method)


def calibrate_text(
    model: ModelLike,
    data: Any,
    *,
    tokenizer: Any = None,
    text_column: str | None = None,
    group_columns: str | Sequence[str] = (),
    max_length: int | None = None,
    samples: int | None = None,
    tensors: str | Sequence[str] = ("fused",),
    attention: bool = False,
    batch_size: int = 8,
    progress: ProgressCallback | None = None,
) -> TextStatistics:
    """Run a causal language model over text, in prefill and decode, and collect the statistics of its tensors.

    What is suspicious about the text is logged as a warning.

    Args:
        model: path of an ONNX model with past and present keys and values, a Hugging Face folder, or the Hugging Face
            model itself.
        data: a .txt, .jsonl or .parquet file, a folder of .txt files, a Hugging Face dataset or a list of texts.
        tokenizer: the Hugging Face tokenizer, or the folder that has it; unless given, the folder of the model.
        text_column: column of the data that holds the text; see `QuantizeConfig`.
        group_columns: columns of whose values all are sampled; see `QuantizeConfig`.
        max_length: cut longer texts into pieces of this many tokens.
        samples: number of texts; see `QuantizeConfig`.
        tensors: "fused" (inputs of INT8 nodes), "all" (every float activation), or tensor names.
        attention: also measure the inputs of attention's MatMuls.
        batch_size: largest number of texts in a batch.
        progress: shows progress; see `quantize`.

    Returns:
        The statistics by length, and those of all texts.

    Raises:
        DataError: the text cannot be read, is too long, or does not fit the model.
        ModelError: the model cannot be read or run, or is no decoder with a cache.
        UsageError: an argument is invalid; names it.
    """
    config = QuantizeConfig(
        task="text-generation",
        text_column=text_column,
        group_columns=group_columns,
        max_length=max_length,
        samples=samples,
        tensors=tensors,
        attention=attention,
        batch_size=batch_size,
    )
    options = TextOptions(text_column, tuple(config.group_columns), max_length, samples, batch_size)
    with opened_model(model) as loaded, temporary_folder() as folder:
        text = open_calibration_text(
            loaded, describe_model(model), data, model_tokenizer(model, tokenizer), options, folder
        )
        sources = {label: ValidatedSource(batches, loaded.inputs) for label, batches in text.batches.items()}
        findings = [*check_loaded(loaded, next(iter(sources.values()))), *text.audit.findings]
        observed = select_calibration_tensors(loaded, tuple(config.tensors), attention)
        by_length = {
            label: collect_statistics(loaded, source, observed, progress=progress or no_progress)
            for label, source in sources.items()
        }
    for finding in findings:
        _logger.warning("%s", finding)
    return TextStatistics(by_length, text.audit)
