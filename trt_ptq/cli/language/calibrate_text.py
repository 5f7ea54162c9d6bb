"""trt-ptq calibrate --task text-generation: statistics of a language model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from trt_ptq._internal.files import check_writable
from trt_ptq.api.calibrating_text import TextStatistics, calibrate_text
from trt_ptq.api.inputs.language_input import check_text_task
from trt_ptq.cli import console
from trt_ptq.config import QuantizeConfig
from trt_ptq.data.user_function import read_from
from trt_ptq.errors import UsageError

_SHOWN = 10  # tensors whose ranges drift most


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
    model: Path, data: str, tokenizer: Path | None, out: Path, by_length: bool, json: bool, **options: Any
) -> None:
    """Calibrate, save the statistics (with `by_length` also those of each length), and print what was done."""
    inputs = (model, *read_from(data), *([] if tokenizer is None else [tokenizer]))
    check_writable(out, *inputs)
    result = calibrate_text(model, data, tokenizer=tokenizer, progress=console.progress, **options)
    files = {label: out.with_name(f"{out.stem}.{label}{out.suffix}") for label in result.by_length if by_length}
    for label, file in files.items():
        check_writable(file, *inputs)
        result.by_length[label].save(file)
    statistics = result.statistics
    statistics.save(out)
    if json:
        console.print_json(
            {
                "statistics": str(out),
                "tensors": len(statistics.tensors),
                "data": asdict(statistics.data),
                "text": asdict(result.audit),
                "by_length": {label: str(file) for label, file in files.items()},
                "drift": [asdict(drift) for drift in result.drift()] if by_length else [],
                "warnings": list(result.audit.findings),
            }
        )
        return
    if by_length:
        _show_drift(result)
    console.say(f"{out}: {len(statistics.tensors)} tensors; {result.audit}")
    for label, file in files.items():
        console.say(f"{file}: texts of {label} tokens")


def _show_drift(result: TextStatistics) -> None:
    """Print the tensors whose largest magnitudes depend most on the length of the text."""
    lengths = list(result.by_length)
    rows = [
        [drift.tensor, f"{drift.ratio:.2f}", *(f"{drift.amax[label]:.4g}" for label in lengths)]
        for drift in result.drift()[:_SHOWN]
    ]
    console.print_table(["tensor", "ratio", *lengths], rows, "largest magnitude by number of tokens")
