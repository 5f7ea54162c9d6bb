"""What a run of `trt-ptq quantize` says about a language model."""

from __future__ import annotations

from trt_ptq.cli import console
from trt_ptq.language_models.judging.judgement import LanguageJudgement


def show_language(judgement: LanguageJudgement) -> None:
    """Print the next-token agreement with FP32 by position; generations are in the report."""
    rows = [
        [name.upper(), row.label, f"{row.agreement:.2%}", f"{row.kl_divergence:.3g}", str(row.positions)]
        for name, positions in judgement.agreement.items()
        for row in positions
    ]
    head = ["", "positions", "same next token", "KL to FP32 (nats)", "tokens"]
    console.print_table(head, rows, "next-token agreement with FP32")
