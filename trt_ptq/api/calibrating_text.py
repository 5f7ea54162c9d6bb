"""`calibrate_text`: the statistics of a language model, by the length of the text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trt_ptq._internal.temporary import temporary_folder
from trt_ptq.api.inputs.language_input import model_tokenizer
from trt_ptq.api.inputs.model_input import ModelLike, describe_model, opened_model
from trt_ptq.calibration.checkpoint import Checkpoint
from trt_ptq.calibration.collector import collect_statistics
from trt_ptq.calibration.devices import open_device
from trt_ptq.calibration.measurements.grouped import GroupedStatistics
from trt_ptq.calibration.memory_planner import plan_calibration
from trt_ptq.calibrators.statistics.statistics import Statistics
from trt_ptq.choices import DeviceName, Nonfinite
from trt_ptq.config import QuantizeConfig
from trt_ptq.data.checks.validation import ValidatedSource
from trt_ptq.data.shard import ShardedSource
from trt_ptq.language_models.language_data import TextOptions, open_calibration_text
from trt_ptq.language_models.length_drift import RangeDrift, by_rising_length, range_drift
from trt_ptq.language_models.text.text_audit import TextAudit
from trt_ptq.onnx_io.check_loaded import check_loaded
from trt_ptq.provenance import join_shards
from trt_ptq.qdq.plan import plan_quantization
from trt_ptq.types import ProgressCallback, no_progress

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextStatistics:
    """Statistics of a language model.

    Attributes:
        statistics: those of all texts.
        by_length: the same by length bucket of the texts, such as "32-63" tokens, the shortest first.
        audit: what the text consists of.
        findings: what is suspicious about model and text, a sentence each.
        readers: the nodes that read each tensor in INT8, by their first outputs.
    """

    statistics: Statistics
    by_length: dict[str, Statistics]
    audit: TextAudit
    findings: tuple[str, ...]
    readers: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def drift(self, method: str = "minmax") -> list[RangeDrift]:
        """How the range of each tensor changes with the length, the largest change first; see `range_drift`."""
        return range_drift(self.by_length, method, self.readers)


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
    nonfinite: Nonfinite = "refuse",
    device: DeviceName = "cpu",
    memory_limit: int | str | None = None,
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
        nonfinite: NaN and infinity in activations: "refuse", or "skip" (count and report).
        device: "cpu" or "cuda".
        memory_limit: bytes, or text such as "4GB": stay below, by several passes over the data if need be.
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
        nonfinite=nonfinite,
        device=device,
        memory_limit=memory_limit,
        batch_size=batch_size,
    )
    collected = collect_text(model, data, tokenizer, config, progress or no_progress)
    for finding in collected.findings:
        _logger.warning("%s", finding)
    return collected


def collect_text(
    model: ModelLike,
    data: Any,
    tokenizer: Any,
    config: QuantizeConfig,
    progress: ProgressCallback = no_progress,
    shard: tuple[int, int] | None = None,
    checkpoint: Checkpoint | None = None,
) -> TextStatistics:
    """Calibrate a language model with text; see `calibrate_text`.

    Args:
        model: the model.
        data: the text.
        tokenizer: the tokenizer of the model.
        config: how text is drawn, and what is measured where; nothing else of it is used.
        progress: shows progress over the batches.
        shard: index and count: use every count-th batch only.
        checkpoint: file to save progress to, and to resume from.

    Returns:
        The statistics; `by_length` is empty with `shard`, whose parts merge to whole data, and with `checkpoint`, which
        keeps those of all texts only.

    Raises:
        DataError, ModelError, StatisticsError, UsageError: see `calibrate_text` and `collect_statistics`.
    """
    options = TextOptions(
        config.text_column, tuple(config.group_columns), config.max_length, config.samples, config.batch_size
    )
    with opened_model(model) as loaded, temporary_folder() as folder:
        text = open_calibration_text(
            loaded, describe_model(model), data, model_tokenizer(model, tokenizer), options, folder
        )
        used = text.batches if shard is None else text.batches.for_shard(*shard)
        used.fill_caches()
        batches = used if shard is None else ShardedSource(used, *shard)
        source = ValidatedSource(batches, loaded.inputs, allow_nonfinite=config.nonfinite == "skip")
        findings = (*check_loaded(loaded, source), *text.audit.findings)
        readers = plan_quantization(loaded.to_ir().graph, attention=config.attention).readers
        limit_bytes = None if config.memory_limit is None else int(config.memory_limit)
        observed, passes = plan_calibration(loaded, source, config.tensors, config.attention, limit_bytes)
        groups = GroupedStatistics()
        statistics = collect_statistics(
            loaded,
            source,
            observed,
            config.nonfinite,
            progress,
            passes,
            device=open_device(config.device),
            checkpoint=checkpoint,
            groups=groups,
        )
        if isinstance(batches, ShardedSource):
            statistics = replace(statistics, shards=join_shards((), [batches.shard]))
    by_length = {} if shard or checkpoint else by_rising_length(groups.statistics(statistics))
    return TextStatistics(statistics, by_length, text.audit, findings, readers)
