"""A small BERT that classifies sequences: a torch module and a DataLoader go in, an INT8 model comes out.

The task is a toy, so that the model trains in seconds: which of two tokens is more frequent?

Run: python examples/bert_classifier.py [FOLDER]    (needs torch and transformers; about 40 seconds)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset
from transformers import BertConfig, BertForSequenceClassification

import trt_ptq

TOKENS, LENGTH = 32, 24


class Classifier(torch.nn.Module):
    """BERT with plain inputs and one plain output, the logits."""

    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=TOKENS,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
            max_position_embeddings=LENGTH,
            num_labels=2,
            attn_implementation="eager",
        )
        self.bert = BertForSequenceClassification(config)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.bert(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def samples(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids [count, LENGTH], a mask of the same shape, and labels [count]."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, TOKENS, (count, LENGTH), generator=generator)
    ids[:, ::2] = torch.randint(1, 3, (count, LENGTH // 2), generator=generator)
    labels = ((ids == 1).sum(1) > (ids == 2).sum(1)).long()
    return ids, torch.ones_like(ids), labels


def train(model: Classifier) -> Classifier:
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for step in range(100):
        ids, mask, labels = samples(64, seed=step)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(ids, mask), labels).backward()
        optimizer.step()
    return model.eval()


def main(folder: Path) -> trt_ptq.QuantizeResult:
    torch.manual_seed(0)
    model = train(Classifier())
    ids, mask, _ = samples(256, seed=1000)
    test_ids, test_mask, test_labels = (tensor.numpy() for tensor in samples(512, seed=1001))

    def accuracy(run) -> dict[str, float]:  # type: ignore[no-untyped-def]
        (logits,) = run({"input_ids": test_ids, "attention_mask": test_mask}).values()
        return {"accuracy": float(np.mean(logits.argmax(1) == test_labels))}

    return trt_ptq.quantize(
        model,
        DataLoader(TensorDataset(ids, mask), batch_size=16),
        evaluate=accuracy,
        example_inputs={"input_ids": ids[:2], "attention_mask": mask[:2]},
        output_dir=folder,
        config=trt_ptq.QuantizeConfig(max_drop=0.02),
    )


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="trt-ptq-bert-"))
    print(main(target))
