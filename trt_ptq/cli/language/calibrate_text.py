"""trt-ptq calibrate --task text-generation: statistics of a language model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from trt_ptq._internal.files import check_writable
from trt_ptq._internal.listing import counted
from trt_ptq.api.calibrating_text import TextStatistics, collect_text
from trt_ptq.api.inputs.language_input import check_text_task
from trt_ptq.calibration.checkpoint import Checkpoint
from trt_ptq.cli import console
from trt_ptq.cli.calibration_checks import check_outputs, skipped_values
from trt_ptq.config import QuantizeConfig
from trt_ptq.data.shard import parse_shard
from trt_ptq.data.user_function import read_from
from trt_ptq.errors import UsageError
from trt_ptq.language_models.length_drift import MOST_SHOWN


def takes_text(model: Path, tokenizer: Path | None, config: QuantizeConfig, by_length: bool) -> bool:
    """Whether the task is text generation.

    Raises:
        UsageError: it is not, but an option for text was given; see `check_text_task`.
    """
    check_text_task(model, tokenizer, config)
    is_text = config.task is not None or tokenizer is not None
    if by_length and not is_text:
        raise UsageError("--by-length is for text: add --task text-generation")
    return is_text


def save_text_statistics(
    model: Path,
    data: str,
    tokenizer: Path | None,
    out: Path,
    config: QuantizeConfig,
    *,
    by_length: bool,
    shard: str | None,
    path: Path | None,
    json: bool,
) -> None:
    """Calibrate, save the statistics (with `by_length` also those of each length), and print what was done.

    Args:
        model: the model.
        data: the text.
        tokenizer: the folder of the tokenizer.
        out: the file to write.
        config: how text is drawn, and what is measured where.
        by_length: whether each length gets a file.
        shard: INDEX/COUNT.
        path: the checkpoint.
        json: whether to print JSON.
    """
    inputs = (model, *read_from(data), *([] if tokenizer is None else [tokenizer]))
    check_outputs(out, path, inputs)
    limit_bytes = None if config.memory_limit is None else int(config.memory_limit)
    checkpoint = None if path is None else Checkpoint(path, memory_limit=limit_bytes)
    part = None if shard is None else parse_shard(shard)
    with console.resumable(path):
        result = collect_text(model, data, tokenizer, config, console.progress, part, checkpoint)
    files = {label: out.with_name(f"{out.stem}.{label}{out.suffix}") for label in result.by_length if by_length}
    for label, file in files.items():
        check_writable(file, *inputs)
        result.by_length[label].save(file)
    result.statistics.save(out)
    if checkpoint is not None:
        checkpoint.remove()
    findings = [*result.findings, *skipped_values(result.statistics)]
    for finding in findings:
        console.warn(finding)
    if json:
        console.print_json(
            {
                "statistics": str(out),
                "tensors": len(result.statistics.tensors),
                "data": asdict(result.statistics.data),
                "text": asdict(result.audit),
                "by_length": {label: str(file) for label, file in files.items()},
                "drift": [asdict(drift) for drift in result.drift()] if by_length else [],
                "warnings": findings,
            }
        )
        return
    if by_length:
        _show_drift(result)
    console.say(f"{out}: {counted(len(result.statistics.tensors), 'tensor')}; {result.audit}")
    for label, file in files.items():
        console.say(f"{file}: texts of {label} tokens")


def _show_drift(result: TextStatistics) -> None:
    """Print the tensors whose largest magnitudes depend most on the length of the text."""
    drifts = result.drift()[:MOST_SHOWN]
    rows = [[drift.layers_text or drift.tensor, f"{drift.ratio:.2f}", *drift.amax_texts] for drift in drifts]
    console.print_table(["input of", "ratio", *result.by_length], rows, "largest magnitude by number of tokens")
