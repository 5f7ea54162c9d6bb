"""A decoder language model: a Hugging Face folder and text go in, an INT8 model judged by its perplexity comes out.

Run: python examples/smollm2.py MODEL_FOLDER TEXT [FOLDER]    (needs pip install "trt-ptq[llm]")

MODEL_FOLDER is SmolLM2-135M or another causal language model in float32, with its tokenizer; TEXT is a .txt, .jsonl or
.parquet file, or a folder of .txt files. With SmolLM2-135M it takes some minutes on two cores.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import trt_ptq


def main(model: Path, text: Path, folder: Path, samples: int = 64, max_length: int = 256) -> trt_ptq.QuantizeResult:
    result = trt_ptq.quantize(
        model,
        text,
        output_dir=folder,
        config=trt_ptq.QuantizeConfig(
            task="text-generation",
            samples=samples,
            max_length=max_length,
            method="minmax",  # a percentile clips the massive activations at the first token
            techniques="smoothquant",  # without rotation and GPTQ, which are defaults too, it loses more and is faster
            search=False,
            backend="none",
        ),
    )
    print(result)
    judged = result.report.language
    assert judged is not None
    everywhere = judged.agreement["int8"][-1]
    print(f"same next token as FP32: {everywhere.agreement:.1%}, KL divergence {everywhere.kl_divergence:.4f} nats")
    for generation in judged.generations:
        print(f"\n{generation.prompt} …")
        for precision, continuation in generation.continuations.items():
            print(f"  {precision}: {continuation}")
    return result


if __name__ == "__main__":
    target = Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp(prefix="trt-ptq-llm-"))
    main(Path(sys.argv[1]), Path(sys.argv[2]), target)
