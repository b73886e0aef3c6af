"""Training steps of a decoder that reads a prompt once for several answers, beside one that reads it for every answer.

    python benchmarks/prefix_training.py [--prompt 384] [--answer 64] [--answers 2] [--layers 8] [--hidden 512]

A Qwen3 of random weights reads random words, in fp32 on a processor and in bf16 on a GPU. Both ways take the same rows
in turn. Printed are the median seconds of a forward and backward pass after one that is not counted, the tokens that
were read, and the largest difference between the gradients over the largest gradient. ``--json FILE`` writes them to a
file (docs/prefix_training.json).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from conditions import conditions
from transformers import AutoModel, AutoTokenizer, Qwen3Config

from ranker.extras import offline_backbone
from ranker.models.pointwise import from_backbone
from ranker.records import Preference
from ranker.scoring.pipeline import TextPipeline
from ranker.training import losses
from ranker.training.batches import Collator
from ranker.training.groups import Groups

WORDS = ("a", "the", "of", "to", "in", "and", "is", "it", "you", "that", "he", "was", "for", "on", "are", "with")
MAX_LENGTH = 2048


def main() -> None:
    """Time both ways in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("prompt", 384), ("answer", 64), ("answers", 2), ("prompts", 4), ("layers", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(offline_backbone())
    config = Qwen3Config(
        hidden_size=options.hidden,
        intermediate_size=3 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        num_key_value_heads=options.hidden // 128,
        head_dim=64,
        vocab_size=len(tokenizer),
    )
    tokenizer.eos_token = tokenizer.sep_token
    with tempfile.TemporaryDirectory(prefix="ranker-prefix-") as folder:
        AutoModel.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model, text_tokenizer = from_backbone(folder, output="scalar", max_length=MAX_LENGTH)
    model = model.to(device).train()
    batches = {}
    for sharing in (True, False):
        pipeline = TextPipeline(model.layout, text_tokenizer, prefix_sharing=sharing)
        groups = Groups(rows(options), pipeline, merge=True)
        batch = Collator(pipeline)(
            [groups[(number, tuple(range(options.answers)))] for number in range(options.prompts)]
        )
        batches[sharing] = {name: values.to(device) for name, values in batch.items()}
    seconds: dict[bool, list[float]] = {True: [], False: []}
    gradients = {}
    for _ in range(options.rounds + 1):
        for sharing, batch in batches.items():
            elapsed, gradients[sharing] = step(model, batch, device)
            seconds[sharing].append(elapsed)
    largest = max(float(gradient.abs().max()) for gradient in gradients[False])
    difference = max(float((a - b).abs().max()) for a, b in zip(gradients[True], gradients[False], strict=True))
    tokens = {sharing: int((batch["block_ids"] >= 0).sum()) for sharing, batch in batches.items()}
    for sharing, name in ((True, "prompt read once"), (False, "prompt read for every answer")):
        print(f"{name}: {median(seconds[sharing][1:]):.3f} s, {tokens[sharing]} tokens")
    speed = median(plain / shared for shared, plain in zip(seconds[True][1:], seconds[False][1:], strict=True))
    print(f"speed-up {speed:.2f} ({device}); gradients differ by {difference / largest:.1e} of the largest")
    if options.json:
        asked = {name: value for name, value in vars(options).items() if name != "json"}
        measured = {"tokens": tokens[True], "tokens_without": tokens[False], "speed": speed}
        facts = conditions() | {"device": device} | asked | measured | {"gradient_difference": difference / largest}
        options.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def rows(options: argparse.Namespace) -> list[Preference]:
    """Ranked lists of random words."""
    rng = random.Random(0)

    def words(count: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(count))

    scores = tuple((float(number),) for number in range(options.answers))
    return [
        Preference(words(options.prompt), tuple(words(options.answer) for _ in scores), scores)
        for _ in range(options.prompts)
    ]


def step(model: torch.nn.Module, batch: dict[str, torch.Tensor], device: str) -> tuple[float, list[torch.Tensor]]:
    """Seconds of a forward and backward pass, and the gradients."""
    inputs = {k: batch[k] for k in ("input_ids", "block_ids", "position_ids", "readout") if k in batch}
    model.zero_grad()
    start = time.perf_counter()
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        outputs = model(**inputs)
    losses.LOSSES["bradley_terry"]()(outputs, batch).backward()
    if device == "cuda":
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - start
    return elapsed, [p.grad.clone() for p in model.parameters() if p.grad is not None]


if __name__ == "__main__":
    main()
