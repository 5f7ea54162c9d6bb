"""Messages of the library name its parameters; the command line shows the options instead."""

from __future__ import annotations

import re
import shlex

_OPTIONS = {  # parameters whose option has another name
    "evaluate": "--eval",
    "nodes_to_exclude": "--exclude",
    "nodes_to_include": "--include",
    "output_dir": "--out",
    "search": "--no-search",
    "shapes": "--shape",
    "techniques": "--technique",
    "group_columns": "--group-column",
}
_SAME = (
    "attention",
    "backend",
    "batch_size",
    "data",
    "device",
    "dla_core",
    "effort",
    "gpu",
    "hardware_compatibility",
    "high_precision",
    "layers",
    "kv_cache",
    "lower_is_better",
    "max_drop",
    "max_length",
    "memory_limit",
    "method",
    "mode",
    "nonfinite",
    "percentile",
    "precision",
    "preprocess",
    "recipe",
    "require_speedup",
    "samples",
    "scratch_limit",
    "stats",
    "table",
    "target",
    "task",
    "tensors",
    "test_data",
    "text_column",
    "time_limit",
    "tokenizer",
    "until_stable",
)
OPTIONS = _OPTIONS | {name: "--" + name.replace("_", "-") for name in _SAME}
_PARAMETER = re.compile(rf"`({'|'.join(OPTIONS)})(?:=([^`]+))?`")

_PATTERN = re.compile(r"[*?\[]")


def with_options(text: str) -> str:
    """Replace parameters in backticks: "`max_drop=1%`" becomes "--max-drop 1%"."""
    return _PARAMETER.sub(lambda match: " ".join(filter(None, (OPTIONS[match[1]], _quoted(match[2] or "")))), text)


def _quoted(value: str) -> str:
    """`value` as a shell takes it, which replaces patterns by names of files."""
    return shlex.quote(value) if _PATTERN.search(value) else value
