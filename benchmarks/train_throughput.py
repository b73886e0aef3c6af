"""Training throughput and held-out accuracy beside TRL's RewardTrainer: same backbone, same rows, interleaved runs.

    pip install trl                                  # needed only by the TRL side
    python benchmarks/train_throughput.py ROWS.jsonl.gz HELD_OUT.jsonl.gz [--pairs 800] [--seeds 0 1 2] [--out FILE]

Both sides train a BERT classifier with one output by -log sigmoid(r_chosen - r_rejected) for one epoch. Speed is real
(non-padding) tokens per second of the training steps, after a warm-up of ``WARM`` steps. Every run is its own process,
in the order ours, TRL, ours, TRL, ...; precisions and TRL's batch size are arguments, so that each side can run at its
best. Ratios are of runs with the same seed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from ranker.extras import offline_backbone

WARM = 5
LEARNING_RATE = 1e-4
MAX_LENGTH = 384


def main() -> None:
    """Run the sides in turn and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--pairs", type=int, default=800)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trl-batch", type=int, default=8, help="pairs of one TRL step")
    parser.add_argument("--trl-precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--max-tokens-per-forward", type=int, default=2048)
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    parser.add_argument("--sides", nargs="+", default=["ours", "trl"])
    parser.add_argument("--model", default="offline", help="the encoder: the packaged one, or a folder")
    parser.add_argument(
        "--deberta",
        type=int,
        metavar="LAYERS",
        help="in the place of the encoder a DeBERTa-v3-base of so many layers with random weights: speed only",
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--run", choices=["ours", "trl"], help="one run, used by this script itself")
    options = parser.parse_args()
    options.rows, options.held_out = options.rows.resolve(), options.held_out.resolve()
    if options.run:
        if options.model == "offline":
            options.model = offline_backbone()
        print(json.dumps(SIDES[options.run](options, options.seeds[0])))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.deberta:
            deberta(Path(folder), options.deberta)
            options.model = folder
        run_all(options)


def run_all(options: argparse.Namespace) -> None:
    """One run after the other, each in a process of its own."""
    results = []
    for seed in options.seeds:
        for side in options.sides:
            command = [
                sys.executable,
                str(Path(__file__).resolve()),
                *sys.argv[1:],
                "--run",
                side,
                "--seeds",
                str(seed),
                "--model",
                options.model,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            results.append({"side": side, "seed": seed} | json.loads(done.stdout.splitlines()[-1]))
            print(results[-1], flush=True)
    report(results)
    if options.out:
        options.out.write_text("".join(json.dumps(result) + "\n" for result in results))


def deberta(folder: Path, layers: int) -> None:
    """Random weights in the shape of DeBERTa-v3-base, with the packaged encoder's tokenizer."""
    from shapes import deberta_v3
    from transformers import AutoTokenizer, DebertaV2Model

    tokenizer = AutoTokenizer.from_pretrained(offline_backbone())
    tokenizer.save_pretrained(folder)
    DebertaV2Model(deberta_v3(len(tokenizer), layers=layers, pad_token_id=tokenizer.pad_token_id)).save_pretrained(
        folder
    )


def report(results: list[dict]) -> None:
    """Medians, and the median of the ratios of runs with the same seed."""
    for side in dict.fromkeys(r["side"] for r in results):
        runs = [r for r in results if r["side"] == side]
        speed = median(r["tokens_per_second"] for r in runs)
        accuracy = ", ".join(f"{r['accuracy']:.3f}" for r in runs)
        print(f"{side}: {speed:.0f} real tokens/s (median of {len(runs)}), accuracy {accuracy} (n={runs[0]['n']})")
    speeds = {(r["side"], r["seed"]): r["tokens_per_second"] for r in results}
    ratios = [speeds["ours", s] / speeds["trl", s] for side, s in speeds if side == "ours" and ("trl", s) in speeds]
    if ratios:
        print(f"ratio ours / TRL: {median(ratios):.2f} (each: {', '.join(f'{r:.2f}' for r in ratios)})")


class Clock:
    """Tokens and time of the steps after the warm-up."""

    def __init__(self, mask: str) -> None:
        self.mask = mask
        self.tokens = self.padded = 0
        self.started = self.ended = 0.0

    def counting(self, collate):
        """The collator, with its real tokens counted once the clock runs."""

        def counted(examples):
            batch = collate(examples)
            if self.started:
                mask = batch[self.mask] >= 0 if self.mask == "block_ids" else batch[self.mask]
                self.tokens += int(mask.sum())
                self.padded += mask.numel()
            return batch

        return counted

    def callback(self):
        """Starts the clock after the warm-up, stops it with every step."""
        from transformers import TrainerCallback

        clock = self

        class Timing(TrainerCallback):
            def on_step_end(self, args, state, control, **_):
                clock.ended = time.perf_counter()
                if state.global_step == WARM:
                    clock.started = clock.ended

        return Timing()

    def figures(self) -> dict:
        """Tokens per second and the share of padding."""
        seconds = self.ended - self.started
        return {
            "tokens_per_second": self.tokens / seconds,
            "padding": 1 - self.tokens / self.padded,
            "seconds": seconds,
        }


def ours(options: argparse.Namespace, seed: int) -> dict:
    """The recipe ``encoder-bradley-terry``."""
    from ranker.config import load_config
    from ranker.data.load import load_preferences
    from ranker.evaluation.evaluate import evaluate
    from ranker.training import train
    from ranker.training.trainer import RankerTrainer

    clock = Clock("block_ids")
    initialize = RankerTrainer.__init__

    def timed(self, *args, callbacks, **kwargs):
        initialize(self, *args, callbacks=[*callbacks, clock.callback()], **kwargs)
        self.layout, self.data_collator = self.data_collator.layout, clock.counting(self.data_collator)
        self.data_collator.layout = self.layout

    RankerTrainer.__init__ = timed
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.jsonl")
        rows.write_text("".join(json.dumps(row) + "\n" for row in sample(options.rows, options.pairs)))
        overrides = [
            f"output_dir={folder}/run",
            f"data.train=[{rows}]",
            f"data.validation=[{options.held_out}]",
            "data.max_eval_samples=8",
            f"model.name_or_path={options.model}",
            f"model.max_length={MAX_LENGTH}",
            f"training.learning_rate={LEARNING_RATE}",
            f"training.max_tokens_per_forward={options.max_tokens_per_forward}",
            f"training.precision={options.precision}",
            "training.eval_steps=100000",
            "training.report_to=[]",
            f"training.seed={seed}",
        ]
        trained = train.train(load_config("encoder-bradley-terry", overrides))
        held_out = load_preferences([str(options.held_out)]).preferences
        share = evaluate(trained.scorer, held_out).report.accuracy
    return {**clock.figures(), "steps": trained.steps, "accuracy": share.value, "n": share.n}


def trl(options: argparse.Namespace, seed: int) -> dict:
    """TRL's RewardTrainer, without gradient checkpointing, which it turns on by default and which costs speed."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    tokenizer.eos_token = tokenizer.sep_token
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=1)

    def text(row, side):
        return f"{row['prompt']} [SEP] {row[side]}"

    rows = [{side: text(row, side) for side in ("chosen", "rejected")} for row in sample(options.rows, options.pairs)]
    clock = Clock("attention_mask")
    with tempfile.TemporaryDirectory() as folder:
        arguments = RewardConfig(
            output_dir=folder,
            per_device_train_batch_size=options.trl_batch,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            max_length=MAX_LENGTH,
            bf16=options.trl_precision == "bf16",
            gradient_checkpointing=False,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to=[],
            logging_steps=1000,
            disable_tqdm=True,
            seed=seed,
        )
        trainer = RewardTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[clock.callback()],
        )
        trainer.data_collator = clock.counting(trainer.data_collator)
        trainer.train()
    model.eval()
    right = total = 0
    with torch.no_grad():
        for row in read(options.held_out):
            texts = [text(row, side) + tokenizer.eos_token for side in ("chosen", "rejected")]
            batch = tokenizer(texts, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
            batch = batch.to(model.device)  # where the trainer left it
            chosen, rejected = model(**batch).logits[:, 0].tolist()
            right, total = right + (chosen > rejected) + 0.5 * (chosen == rejected), total + 1
    return {**clock.figures(), "steps": trainer.state.global_step, "accuracy": right / total, "n": total}


SIDES = {"ours": ours, "trl": trl}


def read(path: Path) -> list[dict]:
    """Rows with prompt, chosen and rejected."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def sample(path: Path, count: int) -> list[dict]:
    """The same random rows for both sides and all seeds."""
    return random.Random(0).sample(read(path), count)


if __name__ == "__main__":
    main()
