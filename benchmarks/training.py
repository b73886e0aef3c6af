"""Speed, tokens and held-out accuracy of training beside TRL, sentence-transformers and LLM-Blender.

    pip install trl sentence-transformers            # needed only by their sides
    python benchmarks/training.py DATA --out OUT.jsonl [--sets argconv wmt19] [--sides once pairs trl] [--seeds 0 1 2]
    python benchmarks/training.py --table OUT.jsonl [--json FILE] [--graphs FILE]

DATA holds ``<set>/train.jsonl.gz`` and ``val.jsonl.gz`` (or ``pairs_train`` and ``pairs_val``) with prompt, chosen and
rejected. All sides train the packaged MiniLM encoder on the same comparisons, each run in a process of its own, one
after the other: seed 0 of every side, then seed 1. One side reads each answer once and one reads pair by pair, both
with the recipe ``encoder-bradley-terry``; TRL and sentence-transformers train the same model by the same loss,
-log sigmoid(r_chosen - r_rejected). LLM-Blender's trainer trains the model and the loss of its published PairRM, in an
environment of its own (``--blender-python``); the recipe ``pairrm-original`` trains the same model and loss, but reads
every pair in both orders. The recipe ``pairrm`` is another model for the same purpose. All sides read each row once, at
the same learning rate, without dropout in the encoder.

Speed is real (non-padding) tokens of training passes per second after ``WARM`` steps. Accuracy is measured by each
side's own forward pass at every quarter of a run (``--points``); the clock stands still meanwhile. A run that is
already in OUT is not repeated. Differences of accuracy are paired, with a 95 % bootstrap interval over prompts (all
seeds together).

Sets: ``argconv`` trains on all of it; ``argconv-0``, ``-1``, ``-2`` hold out a third of the debate sides each, so that
together every side is held out once; ``wmt19`` has 250 training prompts, and is tested on the validation rows and on
800 further prompts of the training file.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from operator import itemgetter
from pathlib import Path
from statistics import mean, median

LEARNING_RATE = 1e-4
"""Of sides that read pair by pair."""
PAIRS = 8
"""Pairs of a step of the other libraries."""
WARM = 5
"""Steps before the clock of the speed runs."""
MAX_LENGTH = 384
PAIR_LENGTH = 512
"""Tokens of a row that holds both answers."""
SOURCE_LENGTH = 128
CANDIDATE_LENGTH = 190
"""Tokens of a prompt and of an answer in LLM-Blender's rows: 508 and 4 of structure."""
PACKAGES = ("torch", "transformers", "trl", "sentence-transformers", "llm-blender")
FOLDS = 3
WMT19_PROMPTS = 250
WMT19_TESTED = 800
"""Further prompts that are held out."""
RESAMPLES = 2000

Row = dict[str, str]
Side = Callable[..., None]
Leads = Callable[[Sequence[Row]], list[float]]
"""By how much the chosen answer of each row leads."""


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--table", type=Path, help="print what a file holds as Markdown, and stop")
    parser.add_argument("--json", type=Path, help="write the figures of runs of one set to a file")
    parser.add_argument("--graphs", type=Path, help="write the figures of each set to a file")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sets", nargs="+", default=["argconv", "wmt19", "oasst", "hh-harmless"])
    parser.add_argument("--sides", nargs="+", choices=[*SIDES], default=[*SIDES])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--points", type=int, default=4, help="measurements within a run")
    parser.add_argument("--pairs", type=int, help="train on so many random comparisons; default: all")
    parser.add_argument("--held-out", type=int, help="test on so many random comparisons; default: all")
    parser.add_argument("--model", help="the encoder: the packaged one, or a folder")
    parser.add_argument(
        "--deberta",
        type=int,
        metavar="LAYERS",
        help="in the place of the encoder a DeBERTa-v3-base of so many layers with random weights: speed only",
    )
    parser.add_argument("--bf16", action="store_true", help="train in bf16; default: fp32")
    parser.add_argument("--blender-python", default=sys.executable, help="an environment with llm-blender")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--label", default="", help="a name for these overrides in the table")
    parser.add_argument("--override", action="append", default=[], help="section.key=value, of our sides")
    parser.add_argument("--run", action="store_true", help="one run, used by this script itself")
    options = parser.parse_args()
    if options.run:
        result = one(options)
        print(json.dumps(result))
        return
    if not options.table:
        with tempfile.TemporaryDirectory() as folder:
            options.model = options.model or encoder(options.deberta, Path(folder))
            run_missing(options)
    results = read_results(options.table or options.out)
    print(table(results))
    for file, figures in ((options.json, summary), (options.graphs, graphs)):
        if file:
            file.write_text(json.dumps(figures(results), indent=1) + "\n", encoding="utf-8")


def encoder(deberta_layers: int | None, folder: Path) -> str:
    """The packaged encoder, or random weights in the shape of DeBERTa-v3-base with its tokenizer; without dropout.

    Ours and TRL turn it off, the other libraries leave it as the checkpoint has it.
    """
    from shapes import deberta_v3
    from transformers import AutoModel, AutoTokenizer, DebertaV2Model

    from ranker.extras import offline_backbone

    tokenizer = AutoTokenizer.from_pretrained(offline_backbone())
    tokenizer.save_pretrained(folder)
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if deberta_layers is None:
        AutoModel.from_pretrained(offline_backbone(), **off).save_pretrained(folder)
    else:
        config = deberta_v3(len(tokenizer), layers=deberta_layers, pad_token_id=tokenizer.pad_token_id, **off)
        DebertaV2Model(config).save_pretrained(folder)
    return str(folder)


def run_missing(options: argparse.Namespace) -> None:
    """The runs that the file does not hold, one after the other."""
    for seed in options.seeds:
        for name in options.sets:
            for side in options.sides:
                key = {"set": name, "side": side, "seed": seed, "label": options.label} | asked(options)
                if any(key.items() <= result.items() for result in read_results(options.out)):
                    continue
                arguments = ["--sets", name, "--sides", side, "--seeds", str(seed), "--threads", str(options.threads)]
                arguments += ["--points", str(options.points), "--model", options.model]
                arguments += ["--bf16"] if options.bf16 else []
                for limit in ("pairs", "held_out"):
                    count = getattr(options, limit)
                    arguments += [] if count is None else [f"--{limit.replace('_', '-')}", str(count)]
                arguments += [part for override in options.override for part in ("--override", override)]
                python = options.blender_python if side == "blender" else sys.executable
                command = [python, __file__, str(options.data), "--run", *arguments]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(done.stderr[-3000:])
                result = key | json.loads(done.stdout.splitlines()[-1])
                with options.out.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(result) + "\n")
                last = result["points"][-1]
                print(f"{key} {last['accuracy']:.4f} {last['tokens']} tokens {last['seconds']:.0f} s", flush=True)


def asked(options: argparse.Namespace) -> dict:
    """What else decides a run."""
    names = ("pairs", "held_out", "deberta", "bf16", "override", "threads")
    return {"options": {name: getattr(options, name) for name in names}}


def read_results(path: Path) -> list[dict]:
    """The runs of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def one(options: argparse.Namespace) -> dict:
    """Train one side once."""
    import torch

    torch.set_num_threads(options.threads)
    (name,), (side,), (seed,) = options.sets, options.sides, options.seeds
    training, held_out = rows_of(options.data, name)
    training = training[: options.pairs]  # in random order
    if options.held_out is not None:
        held_out = random.Random(0).sample(held_out, options.held_out)
    clock = Clock(held_out, options.points)
    with tempfile.TemporaryDirectory() as folder:
        SIDES[side](training, clock, seed, Path(folder), options)
    return {
        "comparisons": len(training),
        "points": clock.points,
        "tokens_per_second": clock.speed(),
        "prompts": [row["prompt"] for row in held_out],
        "credits": clock.credits,
        "threads": options.threads,
        "machine": machine(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": versions(),
    }


def machine() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    return named or platform.processor()


def versions() -> dict[str, str]:
    """The versions of what this environment has of ``PACKAGES``."""
    known = {}
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known


def rows_of(data: Path, name: str) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows of a set."""
    folder, _, fold = name.partition("-") if name.startswith("argconv") else (name, "", "")
    prefix = "" if (data / folder / "train.jsonl.gz").exists() else "pairs_"
    training, held_out = (read(data / folder / f"{prefix}{part}.jsonl.gz") for part in ("train", "val"))
    if fold:
        rows = [*training, *held_out]
        prompts = sorted({row["prompt"] for row in rows})
        random.Random(0).shuffle(prompts)
        tested = set(prompts[int(fold) :: FOLDS])
        training, held_out = ([row for row in rows if (row["prompt"] in tested) == part] for part in (False, True))
    if name == "wmt19":
        prompts = sorted({row["prompt"] for row in training})
        kept = set(random.Random(0).sample(prompts, WMT19_PROMPTS))
        tested = set(random.Random(1).sample([prompt for prompt in prompts if prompt not in kept], WMT19_TESTED))
        held_out += [row for row in training if row["prompt"] in tested]
        training = [row for row in training if row["prompt"] in kept]
    random.Random(0).shuffle(training)
    return training, held_out


def read(path: Path) -> list[Row]:
    """Rows with prompt, chosen and rejected."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in map(json.loads, lines)]


def now() -> tuple[float, float]:
    """The clock on the wall and that of this process, which other load does not move."""
    return time.perf_counter(), time.process_time()


def _reads_packed(model) -> bool:
    """Whether one of our models computes nothing for the padding of its rows."""
    from ranker.models.backbones import reads_packed

    return reads_packed(model.base_model)


class Clock:
    """Tokens and seconds of training, and accuracy on the held-out rows at every part of a run."""

    def __init__(self, held_out: Sequence[Row], parts: int) -> None:
        self.held_out = held_out
        self.parts = parts
        self.points: list[dict] = []
        self.credits: list[float] = []
        self.tokens = self.padded = 0
        self.seconds = self.cpu = 0.0
        self.started = (0.0, 0.0)
        self.warm = (0, 0.0)
        """Tokens and seconds of the steps that do not count for the speed."""

    def callback(self, mask: str, leads: Leads, encoder: Callable = lambda model: model):
        """A callback of transformers' trainers.

        Args:
            mask: the argument of ``encoder`` that tells tokens from padding.
            leads: compares with the model as it is now.
            encoder: the part of the model whose passes are counted.
        """
        from transformers import TrainerCallback

        clock = self

        class Timing(TrainerCallback):
            def on_train_begin(self, args, state, control, model, **_):
                encoder(model).register_forward_pre_hook(clock.counter(mask), with_kwargs=True)
                clock.started = now()

            def on_step_end(self, args, state, control, **_):
                wall, cpu = now()
                clock.seconds += wall - clock.started[0]
                clock.cpu += cpu - clock.started[1]
                if state.global_step == WARM:
                    clock.warm = (clock.tokens, clock.seconds)
                if state.global_step in {round(state.max_steps * k / clock.parts) for k in range(1, clock.parts + 1)}:
                    clock.measure(leads)
                clock.started = now()

        return Timing()

    def counter(self, mask: str):
        """A hook that counts the tokens of training passes."""

        def count(model, args, kwargs):
            if model.training:
                # sentence-transformers passes its inputs as one mapping
                inputs = args[0] if args and isinstance(args[0], Mapping) else kwargs
                values, is_ours = inputs[mask], mask == "block_ids"
                tokens = int((values >= 0).sum() if is_ours else values.sum())
                self.tokens += tokens
                self.padded += tokens if is_ours and _reads_packed(model) else values.numel()

        return count

    def speed(self) -> float:
        """Real tokens per second of the steps after the first ones."""
        if self.tokens == self.warm[0]:
            sys.exit(f"the run has no step after the first {WARM}; train on more comparisons")
        return (self.tokens - self.warm[0]) / (self.seconds - self.warm[1])

    def measure(self, leads: Leads) -> None:
        """Note the accuracy now."""
        self.credits = [0.5 if lead == 0 else float(lead > 0) for lead in leads(self.held_out)]
        figures = {"tokens": self.tokens, "padded": self.padded, "seconds": self.seconds, "cpu": self.cpu}
        self.points.append({**figures, "accuracy": mean(self.credits)})


def ours(recipe: str, *settings: str) -> Side:
    """One of our recipes."""

    def run(rows: list[Row], clock: Clock, seed: int, folder: Path, options: argparse.Namespace) -> None:
        from ranker.config import load_config
        from ranker.records import Group
        from ranker.training import train

        files = [folder / f"{name}.jsonl" for name in ("train", "val")]
        for file, part in zip(files, (rows, clock.held_out[:8]), strict=True):
            file.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
        config = load_config(
            recipe,
            [
                f"output_dir={folder}/run",
                f"data.train=[{files[0]}]",
                f"data.validation=[{files[1]}]",
                "data.train_eval_overlap=ignore",
                f"training.precision={'bf16' if options.bf16 else 'fp32'}",
                f"model.name_or_path={options.model}",
                f"model.max_length={MAX_LENGTH}",
                "training.eval_steps=1000000",
                "training.report_to=[]",
                f"training.seed={seed}",
                *settings,
                *options.override,
            ],
        )
        holder = {}

        def compared(held_out: Sequence[Row]) -> list[float]:
            pairs = [Group(row["prompt"], (row["chosen"], row["rejected"])) for row in held_out]
            return holder["trainer"].scorer.compare(pairs).tolist()

        def score(texts: list[tuple[str, str]]) -> list[float]:
            scored = holder["trainer"].scorer.score([Group(prompt, (answer,)) for prompt, answer in texts])
            return [float(result.scores[0]) for result in scored]

        leads = by_score(score) if config.model.type == "pointwise" else compared

        initialize = train.RankerTrainer.__init__

        def remembered(self, *args, **kwargs):
            initialize(self, *args, **kwargs)
            holder["trainer"] = self

        train.RankerTrainer.__init__ = remembered
        train.train(config, callbacks=[clock.callback("block_ids", leads)])

    return run


def trl(rows: list[Row], clock: Clock, seed: int, folder: Path, options: argparse.Namespace) -> None:
    """TRL's RewardTrainer, without gradient checkpointing, which it turns on by default and which costs speed."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    tokenizer.eos_token = tokenizer.sep_token
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=1)

    def text(prompt: str, answer: str) -> str:
        return f"{prompt} [SEP] {answer}"

    def score(texts: list[tuple[str, str]]) -> list[float]:
        full = [text(*pair) + tokenizer.eos_token for pair in texts]
        return classified(model, lambda part: tokenizer(part, **padded_tensors()), full)

    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(max_length=MAX_LENGTH, gradient_checkpointing=False, **pair_by_pair(folder, seed, options)),
        train_dataset=Dataset.from_list(
            [{side: text(row["prompt"], row[side]) for side in ("chosen", "rejected")} for row in rows]
        ),
        processing_class=tokenizer,
        callbacks=[clock.callback("attention_mask", by_score(score))],
    )
    left_out = len(rows) - len(trainer.train_dataset)
    if left_out:
        sys.exit(f"TRL leaves out {left_out} pairs with more than {MAX_LENGTH} tokens; take a set of shorter rows")
    trainer.train()


def pair_by_pair(folder: Path, seed: int, options: argparse.Namespace) -> dict:
    """Arguments of transformers that the other libraries share."""
    import torch

    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": PAIRS,
        "num_train_epochs": 1,
        "learning_rate": LEARNING_RATE,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": options.bf16,
        "save_strategy": "no",
        "report_to": [],
        "logging_steps": 1000,
        "disable_tqdm": True,
        "seed": seed,
    }


def by_score(score: Callable[[list[tuple[str, str]]], list[float]]) -> Leads:
    """Leads from the scores of (prompt, answer); every distinct one is scored once."""

    def leads(held_out: Sequence[Row]) -> list[float]:
        texts = list({(row["prompt"], row[side]): None for row in held_out for side in ("chosen", "rejected")})
        scores = dict(zip(texts, score(texts), strict=True))
        return [scores[row["prompt"], row["chosen"]] - scores[row["prompt"], row["rejected"]] for row in held_out]

    return leads


def padded_tensors() -> dict:
    """Options of a tokenizer."""
    return {"padding": True, "truncation": True, "max_length": MAX_LENGTH, "return_tensors": "pt"}


def classified(model, tokenize: Callable, texts: list, size: int = 32) -> list[float]:
    """Logits of a classifier with one output, texts of like length together."""
    import torch

    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    scores = [0.0] * len(texts)
    model.eval()
    with torch.no_grad():
        for start in range(0, len(order), size):
            part = order[start : start + size]
            batch = tokenize([texts[i] for i in part]).to(model.device)
            for i, score in zip(part, model(**batch).logits[:, 0].tolist(), strict=True):
                scores[i] = score
    model.train()
    return scores


def cross_encoder(rows: list[Row], clock: Clock, seed: int, folder: Path, options: argparse.Namespace) -> None:
    """sentence-transformers' CrossEncoderTrainer with RankNetLoss on lists of two."""
    import torch
    from datasets import Dataset
    from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import RankNetLoss

    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = CrossEncoder(options.model, num_labels=1, max_length=MAX_LENGTH, device=device)

    def score(texts: list[tuple[str, str]]) -> list[float]:
        return model.predict(texts, activation_fn=torch.nn.Identity(), show_progress_bar=False).tolist()

    trainer = CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(**pair_by_pair(folder, seed, options)),
        train_dataset=Dataset.from_list(
            [{"query": row["prompt"], "docs": [row["chosen"], row["rejected"]], "labels": [1.0, 0.0]} for row in rows]
        ),
        loss=RankNetLoss(model),
        callbacks=[clock.callback("attention_mask", by_score(score))],
    )
    trainer.train()


def blender(rows: list[Row], clock: Clock, seed: int, folder: Path, options: argparse.Namespace) -> None:
    """LLM-Blender's trainer of a PairRM, with the published one's loss; decisions are averaged over orders."""
    import torch
    from llm_blender.pair_ranker.config import RankerConfig
    from llm_blender.pair_ranker.model_util import build_collator, build_ranker, build_tokenizer
    from llm_blender.pair_ranker.trainer import RerankerTrainer
    from transformers import AutoConfig, TrainingArguments

    def items(part: Sequence[Row]) -> list[dict]:
        """Rows as its ``Dataset`` returns them; the module of that needs packages for metrics of text."""
        return [
            {
                "index": index,
                "source": row["prompt"],
                "target": None,
                "candidates": [row["chosen"], row["rejected"]],
                "scores": [[1.0], [0.0]],
            }
            for index, row in enumerate(part)
        ]

    torch.manual_seed(seed)
    encoder_type = AutoConfig.from_pretrained(options.model).model_type.removesuffix("-v2")
    config = RankerConfig(
        ranker_type="pairranker",
        model_type=encoder_type,
        model_name=options.model,
        source_maxlength=SOURCE_LENGTH,
        candidate_maxlength=CANDIDATE_LENGTH,
        inference_mode="full",
        fp16=False,
    )
    tokenizer = build_tokenizer(options.model)
    collate = build_collator("pairranker", tokenizer, SOURCE_LENGTH, CANDIDATE_LENGTH)
    model = build_ranker("pairranker", encoder_type, options.model, None, config, tokenizer)

    def leads(held_out: Sequence[Row]) -> list[float]:
        logits = trainer.predict(items(held_out)).predictions  # (pairs, 2, 2): row against column
        return (logits[:, 0, 1] - logits[:, 1, 0]).tolist()

    trainer = RerankerTrainer(
        model=model,
        args=TrainingArguments(
            remove_unused_columns=False, label_names=["scores"], **pair_by_pair(folder, seed, options)
        ),
        train_dataset=items(rows),
        data_collator=collate,
        tokenizer=tokenizer,
        callbacks=[clock.callback("attention_mask", leads, lambda ranker: ranker.pretrained_model)],
    )
    trainer.train()


PAIR_BY_PAIR = ("training.merge_rows=false", f"training.learning_rate={LEARNING_RATE}", "training.num_train_epochs=1")
"""Settings of ours that the other libraries have too."""

SIDES: dict[str, Side] = {
    "once": ours("encoder-bradley-terry"),
    "pairs": ours("encoder-bradley-terry", *PAIR_BY_PAIR),
    "trl": trl,
    "cross_encoder": cross_encoder,
    "pairrm": ours("pairrm", *PAIR_BY_PAIR),
    "pairrm_original": ours(
        "pairrm-original", *PAIR_BY_PAIR, f"model.max_length={PAIR_LENGTH}", "training.loss={type: bradley_terry}"
    ),
    "blender": blender,
}

BESIDE = {"trl": ("once", "pairs"), "cross_encoder": ("once", "pairs"), "blender": ("pairrm_original", "pairrm")}
"""Our sides with which another library's side is compared; the model of ``pairrm`` is another one."""


def summary(results: list[dict]) -> dict:
    """The figures of each side, and the speed of ours over its: the median of runs of one seed.

    The runs must be of one set and the same options.
    """
    kinds = {json.dumps([result[name] for name in ("set", "label", "options")]) for result in results}
    if len(kinds) > 1:
        sys.exit(f"expected runs of one set with the same options, found {sorted(kinds)}")
    sides = {}
    for side in dict.fromkeys(result["side"] for result in results):
        runs = [result for result in results if result["side"] == side]
        last = [run["points"][-1] for run in runs]
        beside = [ours for ours in BESIDE.get(side, ()) if paired(results, ours, side)]
        sides[side] = {
            "tokens_per_second": median(run["tokens_per_second"] for run in runs),
            "tokens": [point["tokens"] for point in last],
            "padding": 1 - sum(point["tokens"] for point in last) / sum(point["padded"] for point in last),
            "seconds": [round(point["seconds"], 1) for point in last],
            "accuracy": [point["accuracy"] for point in last],
            "speed_of_ours": {ours: times_faster(results, ours, side) for ours in beside},
            "accuracy_of_ours_less_its": {ours: lead(results, ours, side) for ours in beside},
            "versions": runs[0]["versions"],
        }
    shared = {name: results[0][name] for name in ("machine", "date", "threads", "comparisons")}
    return shared | {
        "held_out": len(results[0]["credits"]),
        "seeds": sorted({r["seed"] for r in results}),
        "sides": sides,
    }


def paired(results: list[dict], first: str, second: str) -> list[tuple[dict, dict]]:
    """The runs of two sides that have the set and the seed in common."""
    key = itemgetter("set", "seed", "label")
    others = {key(result): result for result in results if result["side"] == second}
    return [(r, others[key(r)]) for r in results if r["side"] == first and key(r) in others]


def times_faster(results: list[dict], first: str, second: str) -> dict[str, float]:
    """The ratio of their tokens per second, and the inverse ratio of their seconds for the same rows."""
    pairs = paired(results, first, second)
    return {
        "tokens_per_second": median(a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs),
        "seconds": median(b["points"][-1]["seconds"] / a["points"][-1]["seconds"] for a, b in pairs),
    }


def lead(results: list[dict], first: str, second: str) -> dict[str, float]:
    """The paired difference of the accuracy of two sides, with its interval over prompts."""
    value, low, high, _, _ = difference(paired(results, first, second))
    return {"value": value, "low": low, "high": high}


def table(results: list[dict]) -> str:
    """Per set and side: tokens, seconds and accuracy; then the paired differences from ``once``."""
    names = list(dict.fromkeys((r["set"].split("-")[0], r["side"], r["label"]) for r in results))
    lines = [
        "| set | side | runs | real tokens, M | padding | seconds (median) | tokens/s | accuracy (each) | best point |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, side, label in names:
        runs = [r for r in results if (r["set"].split("-")[0], r["side"], r["label"]) == (name, side, label)]
        last = [r["points"][-1] for r in runs]
        each = ", ".join(f"{point['accuracy']:.3f}" for point in last)
        best = mean(max(point["accuracy"] for point in r["points"]) for r in runs)
        lines.append(
            f"| {name} | {side} {label} | {len(runs)} | {mean(p['tokens'] for p in last) / 1e6:.3f} "
            f"| {1 - sum(p['tokens'] for p in last) / sum(p['padded'] for p in last):.0%} "
            f"| {median(p['seconds'] for p in last):.0f} | {median(r['tokens_per_second'] for r in runs):.0f} | {each} "
            f"| {best:.3f} |"
        )
    lines += ["", "| set | difference of accuracy, 95 % over prompts | comparisons | prompts |", "|---|---|---|---|"]
    for d in leads_of_once(results):
        title = f"{d['set']}: {d['once']} - {d['side']}"
        interval = f"{d['value']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]"
        lines.append(f"| {title} | {interval} | {d['comparisons']} | {d['prompts']} |")
    return "\n".join(lines)


def leads_of_once(results: list[dict]) -> list[dict]:
    """By set, the accuracy of reading each answer once less that of each other side, over runs of one seed."""
    names = list(dict.fromkeys((r["set"].split("-")[0], r["side"], r["label"]) for r in results))
    leads = []
    for name, side, label in names:
        for other in names:
            if other[0] == name and side == "once" and other[1] != "once":
                pairs = [
                    (a, b)
                    for a in results
                    for b in results
                    if (a["set"], a["seed"]) == (b["set"], b["seed"])
                    and a["set"].split("-")[0] == name
                    and (a["side"], a["label"]) == (side, label)
                    and (b["side"], b["label"]) == other[1:]
                ]
                if pairs:
                    sides = {"set": name, "once": f"{side} {label}".strip(), "side": " ".join(other[1:]).strip()}
                    keys = ("value", "low", "high", "comparisons", "prompts")
                    leads.append(sides | dict(zip(keys, difference(pairs), strict=True)))
    return leads


def graphs(results: list[dict]) -> dict:
    """For each set, what each side read, its processor time and accuracies; the paired differences from ``once``."""
    sets: dict[str, dict] = {}
    for name, side in dict.fromkeys((r["set"].split("-")[0], r["side"]) for r in results):
        runs = [r for r in results if (r["set"].split("-")[0], r["side"]) == (name, side)]
        last = [r["points"][-1] for r in runs]
        splits = {r["set"] for r in runs}
        of_set = sets.setdefault(
            name,
            {
                "runs": f"{len(splits)} splits by side" if len(splits) > 1 else f"{len(runs)} seeds",
                "comparisons": sum(len(r["credits"]) for r in runs),
                "prompts": len({prompt for r in runs for prompt in r["prompts"]}),
                "sides": {},
            },
        )
        of_set["sides"][side] = {
            "tokens": mean(point["tokens"] for point in last),
            "seconds": [round(point["cpu"]) for point in last],
            "accuracy": [point["accuracy"] for point in last],
        }
    shared = {name: results[0][name] for name in ("machine", "threads", "date")}
    versions = {name: version for r in results for name, version in r["versions"].items()}
    return shared | {"versions": versions, "sets": sets, "differences": leads_of_once(results)}


def difference(pairs: list[tuple[dict, dict]]) -> tuple[float, float, float, int, int]:
    """The mean paired difference, a bootstrap interval over prompts, and the number of comparisons and of prompts."""
    import numpy as np

    sums: dict[str, list[float]] = {}
    for a, b in pairs:
        for prompt, left, right in zip(a["prompts"], a["credits"], b["credits"], strict=True):
            total = sums.setdefault(prompt, [0.0, 0.0])
            total[0] += left - right
            total[1] += 1
    values = np.array(list(sums.values()))
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    means = values[drawn].sum(axis=1)
    low, high = np.quantile(means[:, 0] / means[:, 1], [0.025, 0.975])
    value = values[:, 0].sum() / values[:, 1].sum()
    return float(value), float(low), float(high), int(values[:, 1].sum()), len(values)


if __name__ == "__main__":
    main()
