"""Scoring speed on a GPU beside CrossEncoder, as a share of the GPU's own matrix product.

    python benchmarks/gpu.py [--shapes minilm bert-base deberta-v3-large] [--rows FILE] [--rounds 5] [--device cuda]

Random weights in the shapes of MiniLM, BERT-base and DeBERTa-v3-large score texts of natural lengths (those of
``--rows``, or seeded log-normal ones). Sides take turns within a round; figures are medians. The share is of the best
of several large bf16 products: operations of the layers and of attention on what is not padding, over time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from scoring import groups_of, table
from sentence_transformers import CrossEncoder
from transformers import AutoModel, AutoTokenizer, BertConfig, DebertaV2Config, PretrainedConfig

import ranker
from ranker.checkpoints import native
from ranker.export import graph
from ranker.extras import offline_backbone, require
from ranker.models import pointwise
from ranker.models.backbones import UNPACKABLE, family
from ranker.runtime.onnx_scorer import GraphScorer
from ranker.runtime.session import CUDA
from ranker.scoring.pipeline import TextPipeline

MAX_LENGTH = 512
WORDS = 30522


def main() -> None:
    """Run every shape and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--groups", type=int, default=1024, help="prompts of a pass, with two answers each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--out", type=Path, default=Path("runs/bench-gpu.json"))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device; --device cpu tries the script itself")
    peak = product(options.device)
    name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    report: dict[str, Any] = {"device": name, "torch": torch.__version__, "bf16_product_flops": peak}
    groups = groups_of(options.rows, options.groups, 2)
    for shape in options.shapes:
        with tempfile.TemporaryDirectory(prefix="ranker-gpu-") as folder:
            report[shape] = measured(SHAPES[shape](), groups, peak, options, Path(folder))
        print(f"\n## {shape}, {name}, bf16 product {peak / 1e12:.1f} TFLOP/s\n{table(report[shape])}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measured(
    config: PretrainedConfig, groups: list[Any], peak: float, options: argparse.Namespace, folder: Path
) -> dict[str, dict[str, Any]]:
    """Median speeds of all sides on one shape."""
    AutoModel.from_config(config).save_pretrained(folder / "backbone")
    AutoTokenizer.from_pretrained(offline_backbone()).save_pretrained(folder / "backbone")
    model, tokenizer = pointwise.from_backbone(str(folder / "backbone"), output="scalar", max_length=MAX_LENGTH)
    native.save(model.eval(), tokenizer, folder / "model")
    prompts, answers = (list(side) for side in zip(*groups, strict=True))
    rows = [(prompt, answer) for prompt, both in groups for answer in both]
    sides: dict[str, Callable[[], Any]] = {}
    free = family(config) not in UNPACKABLE
    ours = ranker.load(folder / "model", device=options.device, precision="bf16", padding_free=free)
    sides[f"ranker torch bf16{', no padding' if free else ''}"] = lambda: np.concatenate(
        ours.score_batch(prompts, answers)
    )
    if options.device == "cuda" and CUDA in require("onnxruntime").get_available_providers():
        graph.to_onnx(model, folder / "graph.onnx")
        half = require("ranker.export.half").fp16(folder / "graph.onnx")
        session = ranker.Ranker(GraphScorer(half, model.layout, tokenizer, device="cuda"))
        sides["ranker ONNX fp16"] = lambda: np.concatenate(session.score_batch(prompts, answers))
    half_type = "float16" if options.device == "cuda" else "bfloat16"
    cross_encoder = CrossEncoder(
        str(folder / "model"),
        max_length=MAX_LENGTH,
        device=options.device,
        activation_fn=torch.nn.Identity(),
        model_kwargs={"dtype": half_type},
    )
    sides[f"CrossEncoder {half_type}"] = lambda: cross_encoder.predict(rows, batch_size=128, show_progress_bar=False)
    scores = {name: side() for name, side in sides.items()}  # warm
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    work = operations(config, TextPipeline(model.layout, tokenizer), groups)
    *_, last = sides
    return {
        name: {
            "answers_per_second": len(rows) / median(times),
            "of_bf16_product": work / median(times) / peak,
            "speed_of_CrossEncoder": median(b / a for a, b in zip(times, seconds[last], strict=True)),
            "tau": float(kendalltau(scores[name], scores[last]).statistic),
            "rounds": len(times),
        }
        for name, times in seconds.items()
    }


def operations(config: PretrainedConfig, pipeline: TextPipeline, groups: list[Any]) -> float:
    """Floating-point operations of a pass without padding: products with weights, and attention."""
    tokens = pipeline.tokenize([ranker.Group(prompt, tuple(answers)) for prompt, answers in groups])
    lengths = [len(row.ids) for item in tokens for row in pipeline.pack(item).rows]
    hidden, depth = config.hidden_size, config.num_hidden_layers
    weights = depth * (4 * hidden * hidden + 2 * hidden * config.intermediate_size)
    return float(sum(2 * weights * n + 4 * n * n * hidden * depth for n in lengths))


def product(device: str) -> float:
    """Operations per second of a large bf16 matrix product, the best of several."""
    size = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(12):
        start = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def minilm() -> PretrainedConfig:
    """MiniLM-L6."""
    return BertConfig(
        vocab_size=WORDS, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )


def bert_base() -> PretrainedConfig:
    """BERT-base."""
    return BertConfig(vocab_size=WORDS)


def deberta_large() -> PretrainedConfig:
    """DeBERTa-v3-large with BERT's words."""
    return DebertaV2Config(
        vocab_size=WORDS,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        relative_attention=True,
        position_buckets=256,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        max_position_embeddings=512,
        type_vocab_size=0,
    )


SHAPES: dict[str, Callable[[], PretrainedConfig]] = {
    "minilm": minilm,
    "bert-base": bert_base,
    "deberta-v3-large": deberta_large,
}


if __name__ == "__main__":
    main()
