"""Options that several commands share, in the groups in which help shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from trt_ptq import choices

DATA, TEXT, CALIBRATION, ACCURACY, ENGINE, OUTPUT = "Data", "Text", "Calibration", "Accuracy", "Engine", "Output"

Model = Annotated[Path, typer.Argument(help="Float ONNX model.", show_default=False)]
ModelOrFolder = Annotated[
    Path,
    typer.Argument(help="Float ONNX model, or the Hugging Face folder of a language model.", show_default=False),
]
Engine = Annotated[Path, typer.Argument(help="Engine file, with its manifest (.json) beside it.", show_default=False)]

Data = Annotated[
    str,
    typer.Option(
        help="Representative inputs: a folder of .npz (one batch each), one .npz or .npy (samples along the first "
        "axis), a folder of images (with --preprocess), file.py:function that yields dicts of arrays, Polygraphy's "
        "JSON; with --task of quantize and calibrate, text.",
        rich_help_panel=DATA,
        show_default=False,
    ),
]
TestData = Annotated[
    Optional[str],
    typer.Option(
        help="Inputs to compare the models on. Default: every fifth batch of --data, which calibration leaves out.",
        rich_help_panel=DATA,
        show_default=False,
    ),
]
BatchSize = Annotated[
    int, typer.Option(help="Batch size, for data sources that do not define one.", rich_help_panel=DATA)
]
Preprocess = Annotated[
    Optional[str],
    typer.Option(
        help="file.py:function from a PIL image to the input array of one sample.",
        rich_help_panel=DATA,
        show_default=False,
    ),
]
Task = Annotated[
    Optional[choices.Task],
    typer.Option(
        help="text-generation: the model is a causal language model (a Hugging Face folder, or ONNX with past and "
        "present keys and values), and --data is text: .txt, a folder of .txt, .jsonl or .parquet.",
        rich_help_panel=TEXT,
        show_default=False,
    ),
]
Tokenizer = Annotated[
    Optional[Path],
    typer.Option(
        help="Folder of the Hugging Face tokenizer. Default: the folder of the model.",
        rich_help_panel=TEXT,
        show_default=False,
    ),
]
TextColumn = Annotated[
    Optional[str],
    typer.Option(
        metavar="COLUMN",
        help="Column that holds the text or chat. Default: text, prompt, content or messages.",
        rich_help_panel=TEXT,
        show_default=False,
    ),
]
GroupColumns = Annotated[
    Optional[list[str]],
    typer.Option(
        "--group-column",
        metavar="COLUMN",
        help="Draw texts of every value of this column (repeatable). Default: source, language and lang, if present.",
        rich_help_panel=TEXT,
        show_default=False,
    ),
]
MaxLength = Annotated[
    Optional[int],
    typer.Option(
        metavar="TOKENS",
        help="Cut longer texts into pieces of this many tokens.",
        rich_help_panel=TEXT,
        show_default=False,
    ),
]
Samples = Annotated[
    Optional[int],
    typer.Option(
        metavar="COUNT",
        help="Texts to calibrate with. Default: 100 below 1 billion parameters, 500 below 10 billion, else 1000.",
        rich_help_panel=TEXT,
        show_default=False,
    ),
]

Method = Annotated[
    choices.MethodName,
    typer.Option(
        metavar="METHOD", help="Range method: entropy, minmax, mse or percentile.", rich_help_panel=CALIBRATION
    ),
]
PercentileValue = Annotated[
    Optional[float],
    typer.Option(
        "--percentile",
        help="Percentile for --method percentile, in percent, above 1 and up to 100. Default: 99.99.",
        rich_help_panel=CALIBRATION,
        show_default=False,
    ),
]
Tensors = Annotated[
    list[str],
    typer.Option(
        metavar="NAME",
        help="Tensors to calibrate: fused (inputs of INT8 nodes), all (every float activation), or tensor names "
        "(repeatable).",
        rich_help_panel=CALIBRATION,
    ),
]
Attention = Annotated[
    bool,
    typer.Option(
        "--attention",
        help="Quantize the MatMuls of attention as well, for sequences of up to 512.",
        rich_help_panel=CALIBRATION,
    ),
]
Nonfinite = Annotated[
    choices.Nonfinite,
    typer.Option(
        help="Activations that are NaN or infinite: refuse, or skip (count and report them).",
        rich_help_panel=CALIBRATION,
    ),
]
MemoryLimit = Annotated[
    Optional[str],
    typer.Option(
        metavar="SIZE",
        help="Memory limit of calibration, such as 800MB or 4GB. Takes several passes over the data if necessary.",
        rich_help_panel=CALIBRATION,
        show_default=False,
    ),
]
UntilStable = Annotated[
    Optional[str],
    typer.Option(
        metavar="PERCENT",
        help="Stop early, when no range has moved by more than this (such as 1%) since half as many samples. The data "
        "must be shuffled.",
        rich_help_panel=CALIBRATION,
        show_default=False,
    ),
]
Device = Annotated[
    choices.DeviceName,
    typer.Option(
        help="Where calibration runs. cuda needs torch and onnxruntime-gpu.",
        rich_help_panel=CALIBRATION,
    ),
]

Exclude = Annotated[
    Optional[list[str]],
    typer.Option(
        metavar="NODE",
        help="Do not quantize these nodes: names of nodes or of their outputs, op types, or patterns with * "
        "(repeatable).",
        rich_help_panel=ACCURACY,
        show_default=False,
    ),
]
Include = Annotated[
    Optional[list[str]],
    typer.Option(
        metavar="NODE",
        help="Quantize only these nodes, named as for --exclude (repeatable).",
        rich_help_panel=ACCURACY,
        show_default=False,
    ),
]
MaxDrop = Annotated[
    str,
    typer.Option(
        metavar="PERCENT",
        help="The largest loss against the reference, relative to its metric: a percentage such as 1%, or a fraction "
        "below 0.1. Without --eval it bounds the fidelity of "
        "the outputs: 1% requires 20 dB SQNR and, where an output holds scores, 99% top-1 agreement.",
        rich_help_panel=ACCURACY,
    ),
]
LowerIsBetter = Annotated[
    Optional[list[str]],
    typer.Option(
        metavar="METRIC",
        help="A metric whose lower values are better (repeatable).",
        rich_help_panel=ACCURACY,
        show_default=False,
    ),
]
Evaluate = Annotated[
    Optional[str],
    typer.Option(
        "--eval",
        help="file.py:function that takes run(inputs) -> outputs and returns a dict of metrics, or yields scores of "
        "samples; higher values are better (see --lower-is-better). Default: fidelity of the outputs to FP32.",
        rich_help_panel=ACCURACY,
        show_default=False,
    ),
]

Shapes = Annotated[
    Optional[list[str]],
    typer.Option(
        "--shape",
        metavar="PROFILE",
        help="Shapes of an input, NAME=MIN:OPT:MAX, such as ids=1x8:8x64:16x512, or of all inputs that a pattern "
        "with * matches (repeatable).",
        rich_help_panel=ENGINE,
        show_default=False,
    ),
]
Gpu = Annotated[
    str,
    typer.Option(
        metavar="GPU",
        help="GPU that times are estimated for where none can measure them, such as rtx4090 or l4, or a YAML file with "
        "its figures.",
        rich_help_panel=ENGINE,
    ),
]
GpuOfBuild = Annotated[
    Optional[str],
    typer.Option(
        metavar="GPU",
        help="With --table: GPU that the time of the engine is estimated for, such as rtx4090 (default) or l4, or a "
        "YAML file with its figures.",
        rich_help_panel=ENGINE,
        show_default=False,
    ),
]
RequireSpeedup = Annotated[
    Optional[float],
    typer.Option(
        metavar="FACTOR",
        help="How many times as fast as the FP16 engine the INT8 engine must be, such as 1.1: measured, or else by the "
        "estimate for --gpu. Exit status 3 if it is not.",
        rich_help_panel=ENGINE,
        show_default=False,
    ),
]
Target = Annotated[
    Optional[choices.Target],
    typer.Option(
        help="Builder that the INT8 model is meant for: trt (TensorRT) or rtx (TensorRT for RTX), which run different "
        "forms of a convolution fast; rtx is for FP16 around INT8. Default: that of the recipe or table, else that of "
        "the engine that is built, else trt.",
        rich_help_panel=ENGINE,
        show_default=False,
    ),
]
Backend = Annotated[
    choices.BackendName,
    typer.Option(
        help="Engine builder: trt (TensorRT, needs an NVIDIA GPU), rtx (TensorRT for RTX, builds without a GPU), none "
        "(build no engine), or auto (trt if it is installed and finds a GPU, else rtx).",
        rich_help_panel=ENGINE,
    ),
]
BuilderName = Annotated[
    choices.BuilderName,
    typer.Option(
        help="Engine builder: trt (TensorRT, needs an NVIDIA GPU), rtx (TensorRT for RTX, builds without a GPU), or "
        "auto (trt if it is installed and finds a GPU, else rtx).",
        rich_help_panel=ENGINE,
    ),
]
AllowOtherModel = Annotated[
    bool,
    typer.Option("--allow-other-model", help="Accept a table of another model.", rich_help_panel=CALIBRATION),
]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.", rich_help_panel=OUTPUT)]
TrtVersion = Annotated[
    str,
    typer.Option(
        "--trt-version",
        metavar="VERSION",
        help="TensorRT version in the header of a cache; its major version must match that of the builder.",
        rich_help_panel=OUTPUT,
    ),
]
