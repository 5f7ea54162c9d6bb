"""Options that several commands take, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Model = Annotated[Path, typer.Argument(help="The float ONNX model.", show_default=False)]
Data = Annotated[
    str,
    typer.Option(
        help="Representative inputs: a folder of .npz (one batch each), one .npz/.npy (first axis is the sample), a "
        "folder of images with --preprocess, file.py:function yielding feed dicts, or Polygraphy's JSON.",
        show_default=False,
    ),
]
TestData = Annotated[
    Optional[str],
    typer.Option(help="Inputs to compare on; without it one batch in five of --data is held out.", show_default=False),
]
BatchSize = Annotated[int, typer.Option(help="Samples a batch, where the data does not say.")]
Preprocess = Annotated[
    Optional[str],
    typer.Option(help="file.py:function from a PIL image to the input array of one sample.", show_default=False),
]
Method = Annotated[str, typer.Option(help="Range method: entropy, minmax, mse or percentile.")]
PercentileValue = Annotated[
    Optional[float],
    typer.Option("--percentile", help="For --method percentile: 99.99 unless given.", show_default=False),
]
Tensors = Annotated[
    list[str],
    typer.Option(help="fused (inputs of INT8 nodes), all (every float activation), or tensor names (repeat)."),
]
Attention = Annotated[
    bool,
    typer.Option("--attention", help="INT8 for the MatMuls of attention too, over sequences of up to 512."),
]
Nonfinite = Annotated[str, typer.Option(help="NaN and infinity in tensors: refuse, or skip (count and report).")]
MemoryLimit = Annotated[
    Optional[str],
    typer.Option(
        help="Keep calibration below this memory (800MB, 4GB), if need be by several passes over the data.",
        show_default=False,
    ),
]
UntilStable = Annotated[
    Optional[str],
    typer.Option(
        help="Stop when no tensor's range by --method has moved by more than this, e.g. 1%, since half as many "
        "samples. The data must be shuffled.",
        show_default=False,
    ),
]
Device = Annotated[
    str,
    typer.Option(help="cpu, or cuda: the model and the counting run on the GPU (torch, and onnxruntime-gpu)."),
]
Shapes = Annotated[
    Optional[list[str]],
    typer.Option(
        "--shape",
        help="name=MIN:OPT:MAX, e.g. x=1x3x48x160:8x3x48x320:16x3x48x640 (repeat).",
        show_default=False,
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        help="trt (TensorRT, on an NVIDIA GPU), rtx (TensorRT for RTX: needs no GPU to build), or auto: trt where it "
        "is installed and finds a GPU, else rtx."
    ),
]
Engine = Annotated[Path, typer.Argument(help="An engine file; its manifest (.json) beside it.", show_default=False)]
AllowOtherModel = Annotated[
    bool, typer.Option("--allow-other-model", help="Use a table or statistics of another model all the same.")
]
UNMEASURED = (
    "no activation was measured, so those beyond float16's range overflow: "
    "give --data to qdq, or use `trt-ptq quantize`"
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
TrtVersion = Annotated[
    str,
    typer.Option("--trt-version", help="TensorRT version in the header of a cache; its major must match."),
]
