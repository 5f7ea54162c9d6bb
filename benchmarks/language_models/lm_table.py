"""The section on language models of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.results_file import FAILED, Figures

FRACTIONS = (80, 90, 95, 100)  # percent of the MACs of linear layers in INT8
NEAREST, UNROTATED = (80, 100), (80, 90, 100)  # those measured with weights rounded to nearest, and without rotation
CONTEXTS = (256, 1024, 2048)
CACHE_TOKENS = 2048
PLANS = {"prefill": (256, 0), "decode": (1, 256)}  # tokens of the call, tokens in the cache
MODELS = ("fp16", "w8a8", "w8a16")
STEPS = {
    "export": "export by PyTorch, which holds the model too, and comparison with it",
    "calibrate": "`trt-ptq calibrate`, 4 texts of 32 tokens",
    "w8a8": "`trt-ptq qdq`, W8A8",
    "w8a16": "`trt-ptq qdq`, W8A16",
    "quantize": "`trt-ptq quantize --mode w8a16` with GPTQ, without engines; the same texts, and others judge",
}

_HEAD_LINES = 2
INTRODUCTION = """\
## Language models

SmolLM2-135M with its cache, on tales that it was not calibrated on (32 texts of 256 tokens calibrated it). GPTQ rounds
the weights, and rotation and SmoothQuant come before W8A8, as in `quantize` by default, unless the row says otherwise.
W8A8 excludes the `down_proj` layers that the tool ranks as most sensitive then, as long as the given fraction of the
MACs of linear layers is left in INT8; each row of a fraction excludes the same ones. Perplexity: 3072 tokens in windows
of 256; differences of a few tenths of a percent may be chance. KL divergence: of the next token from FP32, on 512 of
these tokens. The rest is FP32.
"""
CACHE_INTRODUCTION = """\
An INT8 cache of keys and values alone, on 2048 tokens in windows of the given length; keys and values of a prefill and
of a decode step are the same numbers.
"""
PLANS_INTRODUCTION = """\
What TensorRT for RTX moves in one call of the same models, with what is not INT8 in FP16, read from the builder's log:
a prefill of 256 tokens, and a decode step of one token on a cache of 256. Nothing was run.
"""
LARGE_INTRODUCTION = """\
A LLaMA of 1.1 billion parameters with random weights, 4.4 GB in FP32 with its weights in a file of their own. Each step
is a process of its own, Python and libraries included. Resident memory (VmHWM) includes the pages of mapped
files, which the system can take back; anonymous memory (RssAnon) does not.
"""


def sections(figures: Mapping[str, Figures]) -> Iterator[str]:
    """Introductions and tables; without the tables that no row was measured for."""
    for introduction, rows in (
        (INTRODUCTION, loss_rows(figures)),
        (CACHE_INTRODUCTION, cache_rows(figures)),
        (PLANS_INTRODUCTION, plan_rows(figures)),
        (LARGE_INTRODUCTION, large_rows(figures)),
    ):
        table = list(rows)
        if len(table) > _HEAD_LINES:
            yield introduction
            yield "\n".join(table)


def loss_rows(figures: Mapping[str, Figures]) -> Iterator[str]:
    """The table of perplexities."""
    titles = {
        "fp32": "FP32",
        "w8a16": "W8A16, all linear layers and embeddings",
        "w8a16-nearest": "the same, weights to nearest",
        **{f"w8a8-{percent}": f"W8A8, {percent} % of the MACs" for percent in FRACTIONS},
        "w8a8-80-kv8": "W8A8, 80 %, INT8 cache",
        **{f"w8a8-{percent}-nearest": f"W8A8, {percent} %, weights to nearest" for percent in NEAREST},
        **{f"w8a8-{percent}-unrotated": f"W8A8, {percent} %, without rotation" for percent in UNROTATED},
    }
    yield "| model | perplexity | against FP32 | KL divergence | excluded layers |"
    yield "|---|---|---|---|---|"
    baseline = figures.get("fp32", {}).get("perplexity")
    for name, title in titles.items():
        row = figures.get(name, {FAILED: ""})
        if FAILED in row or baseline is None:
            continue
        excluded = str(len(row["excluded"])) if "excluded" in row else ""
        change = f"{row['perplexity'] / baseline - 1:+.2%}" if name != "fp32" else ""
        yield f"| {title} | {row['perplexity']:.3f} | {change} | {row['kl_divergence']:.3g} | {excluded} |"


def cache_rows(figures: Mapping[str, Figures]) -> Iterator[str]:
    """The table of INT8 caches by context."""
    yield "| context | perplexity in FP32 | with an INT8 cache | change |"
    yield "|---|---|---|---|"
    for context in CONTEXTS:
        row = figures.get(f"kv8-{context}", {FAILED: ""})
        if FAILED not in row:
            fp32, int8 = row["fp32_perplexity"], row["perplexity"]
            yield f"| {context} | {fp32:.3f} | {int8:.3f} | {int8 / fp32 - 1:+.2%} |"


def plan_rows(figures: Mapping[str, Figures]) -> Iterator[str]:
    """The table of engine plans."""
    yield "| call | " + " | ".join(f"{name.upper()}: kernels, MB moved" for name in MODELS) + " |"
    yield "|---|" + "---|" * len(MODELS)
    for call in PLANS:
        rows = [figures.get(f"plan-{call}-{name}", {FAILED: ""}) for name in MODELS]
        if all(FAILED in row for row in rows):
            continue
        cells = ["" if FAILED in row else f"{row['kernels']}, {row['bytes_moved'] / 1e6:.0f}" for row in rows]
        yield f"| {call} | " + " | ".join(cells) + " |"


def large_rows(figures: Mapping[str, Figures]) -> Iterator[str]:
    """The table of what a model over 2 GB takes."""
    yield "| step | seconds | peak resident memory | of the model | peak anonymous memory | of the model |"
    yield "|---|---|---|---|---|---|"
    for step, title in STEPS.items():
        row = figures.get(f"large-{step}", {FAILED: ""})
        if FAILED in row:
            continue
        peaks = (row["peak_bytes"], row["anonymous_bytes"])
        cells = " | ".join(f"{peak / 1e9:.1f} GB | {peak / row['model_bytes']:.2f} x" for peak in peaks)
        yield f"| {title} | {row['seconds']:.0f} | {cells} |"
