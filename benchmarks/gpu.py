"""Everything that a GPU decides, beside what a user could pick instead, in about a quarter of an hour.

    python benchmarks/gpu.py [--parts scoring training ...] [--shapes minilm bert-base] [--device cuda] [--out FILE]
    python benchmarks/gpu.py --smoke                         # every part on the CPU, with tiny shapes
    python benchmarks/gpu.py --report runs/bench-gpu.jsonl   # the lines of a run as Markdown tables

Every part is a process with a limit of its own, and prints a line of JSON for each result as soon as it is there: a
part that fails or takes too long leaves those of the others. Backbones have random weights in the shapes that they are
named after, so accuracy is not measured here. Sides of a part take turns; figures are medians. The share of the bf16
product is of the best of several large ones: operations on what is not padding, over time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import copy
import datetime
import io
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial, wraps
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import serving
import torch
from datasets import Dataset
from scipy.stats import kendalltau
from scoring import groups_of
from sentence_transformers import CrossEncoder
from shapes import deberta_v3, qwen3
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    PretrainedConfig,
    TrainerCallback,
)

import ranker
from ranker.checkpoints import native
from ranker.config import load_config
from ranker.export import graph, half, storage
from ranker.extras import offline_backbone, require
from ranker.models import memory, pairwise, pointwise
from ranker.models.backbones import UNPACKABLE, family
from ranker.models.torch_scorer import TorchScorer
from ranker.runtime import manifest as manifests
from ranker.runtime import modelfile
from ranker.runtime.onnx_scorer import GraphScorer
from ranker.runtime.session import CUDA
from ranker.scoring.executor import score_groups
from ranker.scoring.pipeline import TextPipeline
from ranker.training import train as training_run
from ranker.training.trainer import RankerTrainer

WORDS = 30522
MAX_LENGTH = 512
STRUCTURE = 3
"""Tokens of a row besides its texts."""

WARM = 5
"""Training steps before the clock starts."""

PROFILED = 6
"""Training steps of a profile."""


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    rows: int = 4096
    rounds: int = 3
    lengths: tuple[int, ...] = (70, 256, 512)
    pairs: int = 3000
    tokens: int = 16384
    trained_lengths: int = 256
    file_rows: int = 10_000
    connections: int = 64
    requests: int = 4000
    prompts: int = 64
    prompt_words: int = 300
    product: int = 8192


SMOKE = Scale(
    rows=16,
    rounds=1,
    lengths=(16,),
    pairs=48,
    tokens=512,
    trained_lengths=24,
    file_rows=8,
    connections=2,
    requests=6,
    prompts=2,
    prompt_words=12,
    product=128,
)


@dataclass
class Run:
    """What a part is given."""

    device: str
    shapes: tuple[str, ...]
    scale: Scale
    folder: Path
    smoke: bool
    peak: float = 0.0
    profiled: bool = False
    """Whether training steps are profiled, and not timed."""
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def on_card(self) -> bool:
        return self.device.startswith("cuda")

    def say(self, part: str, **figures: Any) -> None:
        """Print one result."""
        line = {"part": part, **{name: _short(value) for name, value in figures.items()}}
        self.lines.append(line)
        print(json.dumps(line), flush=True)


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    """Run the parts, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--shapes", nargs="+", default=["minilm", "bert-base", "deberta-v3-base"], choices=list(SHAPES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes on the CPU, all parts in this process")
    parser.add_argument("--run", action="store_true", help="be the process of a part; used by this script itself")
    parser.add_argument("--rounds", type=int, default=Scale.rounds, help="rounds that figures are medians of")
    parser.add_argument("--report", type=Path, help="print a run as Markdown; nothing is measured")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-gpu.jsonl"))
    options = parser.parse_args()
    if options.report:
        print(markdown([json.loads(line) for line in options.report.read_text(encoding="utf-8").splitlines()]))
        return
    if options.smoke:
        options.device, options.shapes = "cpu", ["tiny"]
    elif options.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device; --smoke tries the whole script on the CPU")
    if options.run or options.smoke:
        _here(options)
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", encoding="utf-8") as out:
        for name in options.parts:
            part, limit = PARTS[name]
            command = [sys.executable, str(Path(__file__).resolve()), "--run", "--parts", name]
            command += ["--device", options.device, "--rounds", str(options.rounds), "--shapes", *options.shapes]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            started = time.monotonic()
            for line in _lines(process, limit):
                print(line, end="", flush=True)
                out.write(line)
                out.flush()
            code = process.wait()
            if code:
                spent = time.monotonic() - started
                reason = f"more than {limit} s" if spent >= limit else f"exit code {code}"
                failed = json.dumps({"part": name, "failed": reason})
                print(failed, flush=True)
                out.write(failed + "\n")


def _lines(process: subprocess.Popen[str], limit: float) -> Iterator[str]:
    """The lines that a process prints, until it ends or has taken too long."""
    from threading import Timer

    timer = Timer(limit, process.kill)
    timer.start()
    try:
        yield from process.stdout or ()
    finally:
        timer.cancel()


def _here(options: argparse.Namespace) -> None:
    """Run parts in this process."""
    scale = SMOKE if options.smoke else Scale(rounds=options.rounds)
    with tempfile.TemporaryDirectory(prefix="ranker-gpu-") as folder:
        run = Run(options.device, tuple(options.shapes), scale, Path(folder), options.smoke)
        for name in options.parts:
            part, _ = PARTS[name]
            started = time.monotonic()
            try:
                part(run)
            except Exception as error:
                if run.smoke or len(options.parts) == 1:
                    raise
                run.say(name, failed=f"{type(error).__name__}: {error}"[:300])
            print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if options.smoke:
        print(markdown(run.lines))


def machine(run: Run) -> None:
    """The card, the versions and the product that shares are of."""
    card = torch.cuda.get_device_name() if run.on_card else platform.processor() or platform.machine()
    packages = ("torch", "transformers", "sentence-transformers", "trl")
    names = {name: version(name) for name in packages}
    names["onnxruntime"] = require("onnxruntime").__version__
    run.say("machine", device=card, date=datetime.date.today().isoformat(), product=product(run), **names)


def product(run: Run) -> float:
    """Operations per second of a large bf16 matrix product, the best of several."""
    if not run.peak:
        size = run.scale.product
        a, b = (torch.randn(size, size, device=run.device, dtype=torch.bfloat16) for _ in range(2))
        run.peak = 2 * size**3 / min(_seconds(run, lambda: a @ b) for _ in range(12))
    return run.peak


def _seconds(run: Run, work: Callable[[], Any]) -> float:
    _synchronize(run)
    start = time.perf_counter()
    work()
    _synchronize(run)
    return time.perf_counter() - start


def in_turns(run: Run, sides: Mapping[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of every side in every round; a first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(run.scale.rounds + 1):
        for name, side in sides.items():
            spent = _seconds(run, side)
            if number:
                times[name].append(spent)
    return times


def _synchronize(run: Run) -> None:
    if run.on_card:
        torch.cuda.synchronize()


def backbone(run: Run, shape: str) -> str:
    """A folder with a backbone of random weights and MiniLM's tokenizer."""
    folder = run.folder / f"backbone-{shape}"
    if not folder.exists():
        torch.manual_seed(0)
        AutoModel.from_config(SHAPES[shape]()).save_pretrained(folder)
        AutoTokenizer.from_pretrained(offline_backbone()).save_pretrained(folder)
    return str(folder)


def classifier(run: Run, shape: str) -> tuple[Any, Any, Path]:
    """A reward model of random weights, its tokenizer, and its folder, which transformers and CrossEncoder read."""
    folder = run.folder / f"model-{shape}"
    model, tokenizer = pointwise.from_backbone(backbone(run, shape), output="scalar", max_length=MAX_LENGTH)
    if not folder.exists():
        native.save(model.eval(), tokenizer, folder)
    return native.load(folder)[0].eval(), tokenizer, folder


def exported(run: Run, model: Any, tokenizer: Any, name: str, precision: str, **options: Any) -> Path:
    """A ``model.onnx`` of a model, without the parity gate, which ``parity`` measures here."""
    folder = run.folder / name
    target = folder / f"{precision}{'-lengths' if options.get('key_lengths') else ''}.onnx"
    if target.exists():
        return target
    folder.mkdir(exist_ok=True)
    if not (folder / "graph.onnx").exists():
        graph.to_onnx(model, folder / "graph.onnx")
    final = half.fp16(folder / "graph.onnx", **options) if precision == "fp16" else folder / "graph.onnx"
    beside = storage.save(storage.load(final), target, final.parent)
    stated = manifests.Manifest(
        **native.facts(model),
        text=model.layout,
        source=name,
        source_sha256="",
        tokenizer_sha256=manifests.sha256(tokenizer.text),
        precision=precision,
        weights=beside,
        graph_sha256=modelfile.read(target)[1],
    )
    modelfile.write(target, target, manifests.metadata(stated, tokenizer.text))
    return target


def texts_of(length: int | None, prompts: int) -> list[tuple[str, list[str]]]:
    """Prompts with two answers: of natural lengths, or all of ``length`` tokens as MiniLM's tokenizer counts."""
    if length is None:
        return groups_of(None, prompts, 2)
    words = tokenizer_words()
    rng = random.Random(length)
    asked = length // 4

    def text(count: int) -> str:
        return " ".join(rng.choices(words, k=count))

    return [(text(asked), [text(length - asked - STRUCTURE) for _ in range(2)]) for _ in range(prompts)]


def tokenizer_words() -> list[str]:
    """Words that MiniLM's tokenizer reads as one token each."""
    vocabulary = AutoTokenizer.from_pretrained(offline_backbone()).get_vocab()
    return sorted(word for word in vocabulary if word.isalpha() and word.isascii() and len(word) > 2)[:2000]


def operations(config: PretrainedConfig, lengths: list[int]) -> float:
    """Floating-point operations of a forward pass without padding: products with weights, and attention."""
    hidden, depth = config.hidden_size, config.num_hidden_layers
    weights = depth * (4 * hidden * hidden + 2 * hidden * config.intermediate_size)
    return float(sum(2 * weights * n + 4 * n * n * hidden * depth for n in lengths))


def lengths_of(layout: Any, tokenizer: Any, groups: list[Any]) -> list[int]:
    """Tokens of every row of a pass."""
    pipeline = TextPipeline(layout, tokenizer)
    tokens = pipeline.tokenize([ranker.Group(prompt, tuple(answers)) for prompt, answers in groups])
    return [len(row.ids) for item in tokens for row in pipeline.pack(item).rows]


def on_cuda(run: Run) -> bool:
    """Whether onnxruntime has the card, or the CPU is tried."""
    return not run.on_card or CUDA in require("onnxruntime").get_available_providers()


def parity(run: Run) -> None:
    """Scores of every precision beside fp32 on the CPU."""
    for shape in run.shapes:
        model, tokenizer, folder = classifier(run, shape)
        groups = [ranker.Group(p, tuple(a)) for p, a in texts_of(None, min(256, run.scale.rows))]
        truth = np.stack([result.scores for result in TorchScorer(model, tokenizer).score(groups)])
        spread = float(np.ptp(truth))
        sides: dict[str, Callable[[], Any]] = {
            "torch fp32": lambda f=folder: ranker.load(f, device=run.device).scorer,
            "torch bf16": lambda f=folder: ranker.load(f, device=run.device, precision="bf16").scorer,
        }
        if family(model.config) not in UNPACKABLE and run.on_card:
            sides["torch bf16, no padding"] = lambda f=folder: (
                ranker.load(f, device=run.device, precision="bf16", padding_free=True).scorer
            )
        if on_cuda(run):
            for name, precision, more in _files(model):
                file = exported(run, model, tokenizer, shape, precision, **more)
                sides[f"ONNX {name}"] = lambda f=file: ranker.load(f, device=run.device).scorer
        for name, load in sides.items():
            scores = np.stack([result.scores for result in load().score(groups)])
            run.say(
                "parity",
                shape=shape,
                side=name,
                largest_difference_of_spread=float(np.abs(scores - truth).max() / spread),
                tau=float(kendalltau(scores.ravel(), truth.ravel()).statistic),
                decisions_changed=int((np.sign(np.diff(scores)) != np.sign(np.diff(truth))).sum()),
                n=len(groups),
            )


def _files(model: Any) -> list[tuple[str, str, dict[str, Any]]]:
    files: list[tuple[str, str, dict[str, Any]]] = [("fp32", "fp32", {}), ("fp16", "fp16", {})]
    if family(model.config) in ("bert", "roberta", "electra"):
        files.append(("fp16, key lengths", "fp16", {"key_lengths": True}))
    return files


def scoring(run: Run) -> None:
    """Answers per second by shape and length: ways to score, beside CrossEncoder in half precision."""
    for shape in run.shapes:
        model, tokenizer, folder = classifier(run, shape)
        sides = _scoring_sides(run, model, tokenizer, folder, shape)
        for length in (None, *run.scale.lengths):
            # Every way at natural lengths, the main ones at the others.
            names = [name for name in sides if length is None or name in MAIN or name.startswith("CrossEncoder")]
            groups = texts_of(length, run.scale.rows // 2)
            work = operations(model.config, lengths_of(model.layout, tokenizer, groups))
            times = in_turns(run, {name: partial(sides[name], groups) for name in names})
            best = {name: median(seconds) for name, seconds in times.items()}
            fastest_other = min(spent for name, spent in best.items() if name.startswith("CrossEncoder"))
            for name, spent in best.items():
                run.say(
                    "scoring",
                    shape=shape,
                    length=length or "natural",
                    side=name,
                    answers_per_second=run.scale.rows / spent,
                    of_bf16_product=work / spent / product(run),
                    speed_of_CrossEncoder=fastest_other / spent,
                )


MAIN = ("torch bf16", "torch bf16, no padding", "ONNX fp16")


Scored = Callable[[list[Any]], Any]


def _scoring_sides(run: Run, model: Any, tokenizer: Any, folder: Path, shape: str) -> dict[str, Scored]:
    sides = _torch_sides(run, model, folder)
    if on_cuda(run):
        sides |= _onnx_sides(run, model, tokenizer, shape)
    for dtype in ("float16", "bfloat16") if run.on_card else ("bfloat16",):
        other = CrossEncoder(
            str(folder),
            max_length=MAX_LENGTH,
            device=run.device,
            activation_fn=torch.nn.Identity(),
            model_kwargs={"dtype": dtype},
        )
        sides[f"CrossEncoder {dtype}"] = lambda groups, other=other: other.predict(
            [(prompt, answer) for prompt, both in groups for answer in both], batch_size=128, show_progress_bar=False
        )
    return sides


def _scored_by(loaded: ranker.Ranker) -> Scored:
    return lambda groups: loaded.score_batch([p for p, _ in groups], [a for _, a in groups])


def _torch_sides(run: Run, model: Any, folder: Path) -> dict[str, Scored]:
    options: dict[str, dict[str, Any]] = {
        "torch bf16": {},
        "torch bf16, buckets": {"length_buckets": True},
        "torch bf16, buckets, 2 in flight": {"length_buckets": True, "passes_in_flight": 2},
    }
    if family(model.config) == "deberta-v2":
        options["torch bf16, compiled"] = {"attention_kernel": "compiled"}
    elif run.on_card:
        options["torch bf16, cuDNN"] = {"attention_kernel": "cudnn"}
    if family(model.config) not in UNPACKABLE:
        options["torch bf16, no padding"] = {"padding_free": True}
    load = partial(ranker.load, folder, device=run.device, precision="bf16")
    return {name: _scored_by(load(**more)) for name, more in options.items()}


def _onnx_sides(run: Run, model: Any, tokenizer: Any, shape: str) -> dict[str, Scored]:
    sides = {}
    for name, precision, more in _files(model):
        file = exported(run, model, tokenizer, shape, precision, **more)
        load = partial(ranker.load, file, device=run.device)
        sides[f"ONNX {name}"] = _scored_by(load())
        if precision == "fp16":
            sides[f"ONNX {name}, buckets"] = _scored_by(load(length_buckets=True))
            sides[f"ONNX {name}, buckets, 2 in flight"] = _scored_by(load(length_buckets=True, passes_in_flight=2))
    if run.on_card:
        file = exported(run, model, tokenizer, shape, "fp16")
        bound = {"device": run.device, "length_buckets": True, "bind_buffers": True}
        sides["ONNX fp16, buckets, bound"] = _scored_by(
            ranker.Ranker(GraphScorer(file, model.layout, tokenizer, **bound))
        )
    return sides


def budgets(run: Run) -> None:
    """Answers per second of a longer run, by the padded tokens of a pass, beside the host's work alone."""
    for shape in run.shapes:
        model, tokenizer, folder = classifier(run, shape)
        groups = texts_of(None, 4 * run.scale.rows)
        ranked = [ranker.Group(prompt, tuple(answers)) for prompt, answers in groups]
        pipeline = TextPipeline(model.layout, tokenizer)
        host = partial(score_groups, pipeline, ranked, _no_scores, 65536)
        spent = median(_seconds(run, host) for _ in range(run.scale.rounds))
        run.say(
            "budgets", shape=shape, side="the host alone, without a model", answers_per_second=2 * len(groups) / spent
        )
        sides: dict[str, Callable[..., ranker.Ranker]] = {
            "torch bf16": partial(ranker.load, folder, precision="bf16"),
            "torch bf16, buckets, 2 in flight": partial(
                ranker.load, folder, precision="bf16", length_buckets=True, passes_in_flight=2
            ),
        }
        if family(model.config) not in UNPACKABLE and run.on_card:
            sides["torch bf16, no padding"] = partial(ranker.load, folder, precision="bf16", padding_free=True)
            sides["torch bf16, no padding, 2 in flight"] = partial(
                ranker.load, folder, precision="bf16", padding_free=True, passes_in_flight=2
            )
        if on_cuda(run):
            file = exported(run, model, tokenizer, shape, "fp16" if run.on_card else "fp32")
            sides["ONNX fp16, buckets"] = partial(ranker.load, file, length_buckets=True)
            if run.on_card:
                more = {"length_buckets": True, "passes_in_flight": 2}
                sides["ONNX fp16, buckets, 2 in flight"] = partial(ranker.load, file, **more)
                sides["ONNX fp16, buckets, 2 in flight, efficient"] = partial(
                    ranker.load, file, attention_kernel="efficient", **more
                )
        for name, load in sides.items():
            for tokens in (16384, 131072) if run.on_card else (512,):
                loaded = load(device=run.device, max_tokens_per_forward=tokens)
                score = partial(_scored_by(loaded), groups)
                first = _seconds(run, score)
                spent = median(_seconds(run, score) for _ in range(run.scale.rounds - 1 or 1))
                run.say(
                    "budgets",
                    shape=shape,
                    side=name,
                    max_tokens_per_forward=tokens,
                    answers_per_second=2 * len(groups) / spent,
                    first_round_seconds=first,
                )


def _no_scores(arrays: Any) -> Any:
    return np.zeros((len(arrays["input_ids"]), 1, 1), np.float32)


def passes(run: Run) -> None:
    """One forward pass of one shape: what the host spends on launching it, and what it takes."""
    for shape in run.shapes:
        model, _, _ = classifier(run, shape)
        model = model.to(run.device)
        rows, length = (128, 128) if run.on_card else (2, 16)
        arrays = {
            "input_ids": torch.randint(1000, 20000, (rows, length), device=run.device),
            "block_ids": torch.zeros(rows, length, dtype=torch.long, device=run.device),
            "position_ids": torch.arange(length, device=run.device).repeat(rows, 1),
        }
        work = operations(model.config, [length] * rows)
        kind = run.device.partition(":")[0]
        half_model = copy.deepcopy(model)
        for name in ("embeddings", "encoder"):  # heads stay in fp32, as everywhere
            getattr(half_model.base_model, name).to(torch.bfloat16)
        if getattr(half_model.base_model, "pooler", None) is not None:
            half_model.base_model.pooler.register_forward_pre_hook(lambda _, states: states[0].float())
        sides: dict[str, tuple[Any, bool]] = {"autocast": (model, True), "bf16 weights": (half_model, False)}
        if run.on_card:
            sides["bf16 weights, compiled"] = (torch.compile(half_model), False)
        for name, (called, autocast) in sides.items():
            go = partial(_pass, called, arrays, torch.autocast(kind, torch.bfloat16, enabled=autocast))
            first = _seconds(run, go)
            for _ in range(3):
                go()
            _synchronize(run)
            started = time.perf_counter()
            for _ in range(20):
                go()
            launched = time.perf_counter() - started
            _synchronize(run)
            spent = (time.perf_counter() - started) / 20
            run.say(
                "passes",
                shape=shape,
                side=name,
                ms=1e3 * spent,
                host_ms=1e3 * launched / 20,
                of_bf16_product=work / spent / product(run),
                first_seconds=first,
            )


def _pass(called: Any, arrays: Any, autocast: Any) -> Any:
    with torch.inference_mode(), autocast:
        return called(**arrays)


def kernels(run: Run) -> None:
    """Padded tokens per second of onnxruntime's kernels of attention: passes of one shape, and each of a new one."""
    ort = require("onnxruntime")
    if not on_cuda(run):
        return
    ort.preload_dlls()
    for shape in run.shapes:
        model, tokenizer, _ = classifier(run, shape)
        for precision in ("fp16", "fp32"):
            file = exported(run, model, tokenizer, shape, precision)
            for name, number in SDPA.items():
                options = {"use_tf32": "0"} | ({"sdpa_kernel": number} if number else {})
                providers = [(CUDA, options)] if run.on_card else ["CPUExecutionProvider"]
                session = ort.InferenceSession(str(file), providers=providers)
                speeds = {}
                for kind, lengths in (("one", [128] * 16), ("new", [40 + 11 * n for n in range(16)])):
                    spent = done = 0.0
                    for number_of_pass, length in enumerate(lengths):
                        rows = run.scale.tokens // length
                        arrays = {
                            "input_ids": np.full((rows, length), 2000, np.int64),
                            "block_ids": np.zeros((rows, length), np.int64),
                            "position_ids": np.tile(np.arange(length, dtype=np.int64), (rows, 1)),
                        }
                        took = _seconds(run, lambda s=session, a=arrays: s.run(None, a))
                        if number_of_pass > 1:
                            spent, done = spent + took, done + rows * length
                    speeds[f"tokens_per_second_{kind}"] = done / spent
                run.say("kernels", shape=shape, precision=precision, kernel=name, **speeds)


SDPA = {"onnxruntime's choice": "", "efficient": "2", "flash, efficient": "3", "all but cuDNN": "247", "cuDNN": "8"}
"""Numbers of onnxruntime's ``sdpa_kernel``."""


def groups_of_eight(run: Run) -> None:
    """Prompts per second with eight answers each: models that read a group together."""
    shape = run.shapes[0]
    groups = [
        ranker.Group(prompt, tuple(f"{answer} {number}" for number in range(4) for answer in both))
        for prompt, both in texts_of(None, max(2, run.scale.rows // 8))
    ]
    for layout in ("set_encoder", "shared_prompt"):
        model, tokenizer = pairwise.from_backbone(backbone(run, shape), layout=layout, max_length=MAX_LENGTH)
        model = model.eval().to(run.device)
        for buckets in (False, True):
            scorer = TorchScorer(model, tokenizer, bf16=True, length_buckets=buckets)
            scorer.score(groups)
            spent = median(_seconds(run, lambda scorer=scorer: scorer.score(groups)) for _ in range(run.scale.rounds))
            run.say(
                "groups of eight", shape=shape, layout=layout, buckets=buckets, prompts_per_second=len(groups) / spent
            )


def training(run: Run) -> None:
    """Real tokens per second of training pairs, beside TRL and CrossEncoderTrainer, fp32 weights under bf16."""
    for shape in run.shapes:
        for length in (None,) if run.smoke or shape != run.shapes[0] else (None, run.scale.trained_lengths):
            rows = [
                {"prompt": prompt, "chosen": chosen, "rejected": rejected}
                for prompt, (chosen, rejected) in texts_of(length, run.scale.pairs)
            ]
            for name, side in TRAINING.items():
                if not _fits(run, shape, name):
                    continue
                try:
                    clock = timed(side, run, shape, rows)
                except Exception as error:
                    if run.smoke:
                        raise
                    reason = str(error).splitlines()[0][:200] if str(error) else ""
                    run.say("training", shape=shape, side=name, failed=f"{type(error).__name__}: {reason}")
                    continue
                work = 3 * operations(SHAPES[shape](), [length or int(clock.tokens / clock.rows)] * clock.rows)
                run.say(
                    "training",
                    shape=shape,
                    length=length or "natural",
                    side=name,
                    tokens_per_second=clock.tokens / clock.seconds,
                    of_bf16_product=work / clock.seconds / product(run),
                    padding=clock.padding,
                    shapes=len(clock.shapes),
                    steps=clock.steps,
                )


def _fits(run: Run, shape: str, side: str) -> bool:
    """Whether a way to train is one of this shape and device."""
    kind = family(SHAPES[shape]())
    if "no padding" in side:
        return run.on_card and kind not in UNPACKABLE
    if "compiled" in side:
        return kind == "deberta-v2"
    return run.on_card or "cuDNN" not in side


def timed(side: Side, run: Run, shape: str, rows: list[dict[str, str]]) -> Clock:
    """What a way to train took."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            side(run, shape, rows)
    except LastStepError as end:
        return end.clock
    raise RuntimeError("the run ended before its last step")


def profile(run: Run) -> None:
    """Where the time of a training step goes: the host's, the card's, launches, and the largest of each."""
    run.profiled = True
    for shape in run.shapes[:2]:
        rows = [
            {"prompt": prompt, "chosen": chosen, "rejected": rejected}
            for prompt, (chosen, rejected) in texts_of(None, run.scale.pairs // 2)
        ]
        for name in ("ranker", "TRL") if run.on_card else ("ranker",):
            clock = timed(TRAINING[name], run, shape, rows)
            run.say("profile", shape=shape, side=name, **clock.profile)
    run.profiled = False


def summary_of(profiler: Any, seconds: float, steps: int) -> dict[str, Any]:
    """Milliseconds of a step, and the operations that take most of it."""
    averages = profiler.key_averages()
    on_card = [e for e in averages if "CUDA" in str(e.device_type)]
    on_host = [e for e in averages if "CPU" in str(e.device_type)]

    def largest(events: list[Any], name: str, most: int = 10) -> dict[str, list[float]]:
        events = sorted(events, key=lambda e: -getattr(e, name))[:most]
        return {e.key[:60]: [round(getattr(e, name) / 1e3 / steps, 3), e.count / steps] for e in events}

    return {
        "ms": 1e3 * seconds / steps,
        "card_ms": sum(e.self_device_time_total for e in on_card) / 1e3 / steps,
        "host_ms": sum(e.self_cpu_time_total for e in on_host) / 1e3 / steps,
        "card": largest(on_card, "self_device_time_total"),
        "host": largest(on_host, "self_cpu_time_total", 16),
    }


class LastStepError(Exception):
    """Ends a run after its last step: neither side evaluates, nor writes a checkpoint."""

    def __init__(self, clock: Clock) -> None:
        super().__init__("the last step was timed")
        self.clock = clock


class Clock:
    """Real tokens and time of the training steps after the warm-up."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tokens = self.padded = self.rows = self.steps = 0
        self._masks: list[torch.Tensor] = []
        self.shapes: set[tuple[int, ...]] = set()
        self.started = self.ended = 0.0
        self.profile: dict[str, Any] = {}

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def padding(self) -> float:
        return 1 - self.tokens / self.padded

    def saw(self, mask: torch.Tensor) -> None:
        """Count a forward pass, by its mask of real tokens; it is looked at when the clock has stopped."""
        if self.started:
            self._masks.append(mask)

    def stop(self) -> None:
        """Stop, and count."""
        _synchronize(self.run)
        self.ended = time.perf_counter()
        for mask in self._masks:
            self.tokens += int(mask.sum())
            self.padded += mask.numel()
            self.rows += int(mask.any(dim=1).sum())
            self.shapes.add(tuple(mask.shape))

    def profiled(self, profiler: Any, step: int) -> None:
        """Profile ``PROFILED`` steps, once more than the warm-up has passed."""
        first = 1 if self.run.smoke else 2 * WARM
        last = first + (1 if self.run.smoke else PROFILED)
        if step == first:
            _synchronize(self.run)
            profiler.start()
            self.started = time.perf_counter()
        elif step == last:
            _synchronize(self.run)
            spent = time.perf_counter() - self.started
            profiler.stop()
            self.profile = summary_of(profiler, spent, last - first)
            raise LastStepError(self)

    def callback(self) -> TrainerCallback:
        """Starts the clock after the warm-up and stops it after the last step."""
        clock = self
        profiler = torch.profiler.profile() if self.run.profiled else None

        class Timing(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if profiler is not None:
                    clock.profiled(profiler, state.global_step)
                elif clock.started:
                    clock.steps += 1
                    if state.global_step >= state.max_steps:
                        clock.stop()
                        raise LastStepError(clock)
                elif state.global_step == (1 if clock.run.smoke else WARM):
                    _synchronize(clock.run)
                    clock.started = time.perf_counter()

        return Timing()


Side = Callable[["Run", str, list[dict[str, str]]], None]
"""A way to train; it ends with a ``LastStepError``."""


def ours(**settings: Any) -> Side:
    """The recipe ``encoder-bradley-terry`` with these settings of ``training``."""

    def side(run: Run, shape: str, rows: list[dict[str, str]]) -> None:
        clock = Clock(run)
        step = RankerTrainer.training_step

        def counted(self: Any, model: Any, inputs: Any, *args: Any) -> Any:
            clock.saw(inputs["block_ids"] >= 0)
            return step(self, model, inputs, *args)

        with tempfile.TemporaryDirectory(dir=run.folder) as folder:
            file = Path(folder, "rows.jsonl")
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            values = {
                "output_dir": f"{folder}/run",
                "data.train": [str(file)],
                "data.validation": [str(file)],
                "data.max_eval_samples": 4,
                "data.train_eval_overlap": "ignore",
                "model.name_or_path": backbone(run, shape),
                "model.max_length": MAX_LENGTH,
                "training.max_tokens_per_forward": run.scale.tokens,
                "training.tokens_per_step": run.scale.tokens,
                "training.precision": "bf16",
                "training.eval_steps": 100000,
                "training.report_to": [],
                **{f"training.{name}": value for name, value in settings.items()},
            }
            overrides = [f"{name}={json.dumps(value)}" for name, value in values.items()]
            RankerTrainer.training_step = counted  # type: ignore[method-assign]
            try:
                training_run.train(load_config("encoder-bradley-terry", overrides), callbacks=[clock.callback()])
            finally:
                RankerTrainer.training_step = step  # type: ignore[method-assign]

    return side


def pairs_of_a_step(run: Run, rows: list[dict[str, str]]) -> int:
    """Pairs that hold about as many real tokens as a step of ours."""
    words = sum(2 * len(row["prompt"].split()) + len(row["chosen"].split() + row["rejected"].split()) for row in rows)
    return max(1, round(run.scale.tokens / (1.2 * words / len(rows))))


def trl(run: Run, shape: str, rows: list[dict[str, str]]) -> None:
    """TRL's RewardTrainer without gradient checkpointing, which it turns on by default and which costs speed."""
    from trl import RewardConfig, RewardTrainer

    clock = Clock(run)
    tokenizer = AutoTokenizer.from_pretrained(backbone(run, shape))
    tokenizer.eos_token = tokenizer.sep_token
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(backbone(run, shape), num_labels=1, dtype=torch.float32)
    texts = [{side: f"{row['prompt']} [SEP] {row[side]}" for side in ("chosen", "rejected")} for row in rows]
    with tempfile.TemporaryDirectory(dir=run.folder) as folder:
        arguments = RewardConfig(
            output_dir=folder,
            per_device_train_batch_size=pairs_of_a_step(run, rows),
            num_train_epochs=1,
            max_length=MAX_LENGTH,
            bf16=True,
            gradient_checkpointing=False,
            use_cpu=not run.on_card,
            save_strategy="no",
            report_to=[],
            logging_steps=1000,
            disable_tqdm=True,
        )
        trainer = RewardTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(texts),
            processing_class=tokenizer,
            callbacks=[clock.callback()],
        )
        collate = trainer.data_collator

        def counted(examples: Any) -> Any:
            batch = collate(examples)
            clock.saw(batch["attention_mask"])
            return batch

        trainer.data_collator = counted
        trainer.train()


def cross_encoder_trainer(run: Run, shape: str, rows: list[dict[str, str]]) -> None:
    """sentence-transformers' CrossEncoderTrainer on single answers with labels 1 and 0."""
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    clock = Clock(run)
    model = CrossEncoder(backbone(run, shape), num_labels=1, max_length=MAX_LENGTH, device=run.device)
    answers = [
        {"query": row["prompt"], "answer": row[side], "label": float(side == "chosen")}
        for row in rows
        for side in ("chosen", "rejected")
    ]
    with tempfile.TemporaryDirectory(dir=run.folder) as folder:
        arguments = CrossEncoderTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=2 * pairs_of_a_step(run, rows),
            num_train_epochs=1,
            bf16=True,
            use_cpu=not run.on_card,
            save_strategy="no",
            report_to=[],
            logging_steps=1000,
            disable_tqdm=True,
        )
        forward = model.model.forward

        @wraps(forward)  # its arguments are asked for
        def counted(*args: Any, **kwargs: Any) -> Any:
            clock.saw(kwargs["attention_mask"])
            return forward(*args, **kwargs)

        model.model.forward = counted
        trainer = CrossEncoderTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(answers),
            loss=BinaryCrossEntropyLoss(model),
            callbacks=[clock.callback()],
        )
        trainer.train()


def without_cudnn(side: Side) -> Side:
    """Another library's training without cuDNN's attention, which its users can switch off too."""

    def called(run: Run, shape: str, rows: list[dict[str, str]]) -> None:
        torch.backends.cuda.enable_cudnn_sdp(False)
        try:
            side(run, shape, rows)
        finally:
            torch.backends.cuda.enable_cudnn_sdp(True)

    return called


TRAINING: dict[str, Side] = {
    "ranker": ours(),
    "ranker, prefetch": ours(prefetch_batches=4),
    "ranker, buckets, prefetch": ours(length_buckets=True, prefetch_batches=4),
    "ranker, compiled kernel, prefetch": ours(attention_kernel="compiled", prefetch_batches=4),
    "ranker, no padding, prefetch": ours(padding_free=True, prefetch_batches=4),
    "TRL": trl,
    "TRL, without cuDNN": without_cudnn(trl),
    "CrossEncoderTrainer": cross_encoder_trainer,
}


def decoder(run: Run) -> None:
    """Eight answers to one long prompt: a decoder that reads the prompt once, beside plain transformers."""
    shape = "tiny-decoder" if run.smoke else "qwen3-0.6b"
    model, tokenizer, folder = classifier(run, shape)
    rng = random.Random(0)
    words = [word for word in tokenizer_words() if len(word) < 6]
    groups = [
        (
            " ".join(rng.choices(words, k=run.scale.prompt_words)),
            [" ".join(rng.choices(words, k=rng.randint(5, 60))) for _ in range(8)],
        )
        for _ in range(run.scale.prompts)
    ]
    loaded = ranker.load(folder, device=run.device, precision="bf16")
    library = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16).to(run.device).eval()
    auto = AutoTokenizer.from_pretrained(folder)

    def plain() -> None:
        with torch.inference_mode():
            for prompt, answers in groups:
                texts = [f"{prompt}\n{answer}" for answer in answers]
                batch = auto(texts, padding=True, return_tensors="pt").to(run.device)
                batch.pop("token_type_ids", None)
                library(**batch).logits.float().cpu()

    sides = {
        "ranker torch bf16, prompt read once": lambda: loaded.score_batch(
            [p for p, _ in groups], [a for _, a in groups]
        ),
        "transformers bf16, a batch of eight": plain,
    }
    times = in_turns(run, sides)
    ours_first, library_next = times.values()
    ratio = median(b / a for a, b in zip(ours_first, library_next, strict=True))
    for name, seconds in times.items():
        run.say(
            "decoder",
            shape=shape,
            side=name,
            prompts_per_second=len(groups) / median(seconds),
            speed_of_transformers=ratio if name.startswith("ranker") else 1.0,
        )


def start_up(run: Run) -> None:
    """A whole ``ranker score`` process over a file, by precision."""
    shape = run.shapes[0]
    model, tokenizer, folder = classifier(run, shape)
    file = run.folder / "rows.jsonl"
    groups = texts_of(None, run.scale.file_rows // 2)
    lines = [json.dumps({"prompt": prompt, "candidates": answers}) for prompt, answers in groups]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    models = {} if run.smoke else {"torch": folder}
    if on_cuda(run):
        models |= {f"ONNX {p}": exported(run, model, tokenizer, shape, p) for p in ("fp32", "fp16")}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(max(1, run.scale.rounds - 1)):
        for name, source in models.items():
            command = [sys.executable, "-m", "ranker", "score", "--model", str(source), "-i", str(file), "-o"]
            command += [str(run.folder / "scored.jsonl"), "--device", run.device, "--quiet"]
            times[name].append(_seconds(run, lambda command=command: subprocess.run(command, check=True)))
    for name, seconds in times.items():
        run.say("whole process", shape=shape, side=name, answers=run.scale.file_rows, seconds=median(seconds))


def server(run: Run) -> None:
    """The server under many connections that are kept open: answers per second, p50 and p99."""
    shape = run.shapes[0]
    model, tokenizer, _ = classifier(run, shape)
    if not on_cuda(run):
        return
    file = exported(run, model, tokenizer, shape, "fp16" if run.on_card else "fp32")
    groups = texts_of(None, run.scale.requests)
    bodies = [json.dumps({"prompt": prompt, "candidates": answers}).encode() for prompt, answers in groups]
    process, port = serving.start(serving.served(str(file), "--device", run.device))
    try:
        asyncio.run(serving.closed_loop(port, "/v1/score", bodies[: len(bodies) // 4 + 1], run.scale.connections))
        load = asyncio.run(serving.closed_loop(port, "/v1/score", bodies, run.scale.connections))
    finally:
        process.terminate()
        process.wait(60)
    run.say(
        "serving",
        shape=shape,
        connections=run.scale.connections,
        answers_per_second=2 * load.rate,
        p50_ms=1e3 * load.percentile(0.5),
        p99_ms=1e3 * load.percentile(0.99),
        statuses=load.statuses,
    )


def memory_use(run: Run) -> None:
    """The estimated memory of training, and what a step takes."""
    shape = "tiny-decoder" if run.smoke else "qwen3-0.6b"
    model, _, _ = classifier(run, shape)
    model = model.to(run.device).train()
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        for rows in (2, 8):
            arrays = {
                "input_ids": torch.randint(5, 900, (rows, run.scale.trained_lengths), device=run.device),
                "block_ids": torch.zeros(rows, run.scale.trained_lengths, dtype=torch.long, device=run.device),
                "position_ids": torch.arange(run.scale.trained_lengths, device=run.device).repeat(rows, 1),
            }

            def loss(forward: Callable[..., torch.Tensor], inputs: Any) -> torch.Tensor:
                return forward(**inputs).pow(2).mean()

            expected = memory.training_memory(model, loss, arrays, autocast=torch.bfloat16)
            peak = _step(run, model, loss, arrays)
            run.say(
                "memory",
                shape=shape,
                tokens=rows * run.scale.trained_lengths,
                activation_checkpointing=checkpointing,
                estimated_GiB=expected.passing / 2**30,
                measured_GiB=peak / 2**30,
            )


def _step(run: Run, model: Any, loss: Callable[..., torch.Tensor], arrays: Any) -> int:
    """The most bytes that a forward and backward pass adds to the weights."""
    model.zero_grad(set_to_none=True)
    if run.on_card:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    counted = memory.LiveBytes() if not run.on_card else contextlib.nullcontext()
    with counted as bytes_:
        with torch.autocast(run.device.partition(":")[0], torch.bfloat16):
            value = loss(model, arrays)
        torch.autograd.backward(value)
    model.zero_grad(set_to_none=True)
    return torch.cuda.max_memory_allocated() - before if run.on_card else bytes_.peak


def tiny() -> PretrainedConfig:
    """For trying the script."""
    return BertConfig(
        vocab_size=WORDS, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )


def minilm() -> PretrainedConfig:
    """MiniLM-L6."""
    return BertConfig(
        vocab_size=WORDS, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )


def bert_base() -> PretrainedConfig:
    """BERT-base."""
    return BertConfig(vocab_size=WORDS)


def deberta(hidden: int, layers: int) -> PretrainedConfig:
    """DeBERTa-v3 with BERT's words."""
    return deberta_v3(WORDS, hidden=hidden, layers=layers)


def decoder_shape(**sizes: int) -> PretrainedConfig:
    """Qwen3 with BERT's words."""
    return qwen3(WORDS, pad_token_id=0, eos_token_id=102, bos_token_id=101, **sizes)


SHAPES: dict[str, Callable[[], PretrainedConfig]] = {
    "tiny": tiny,
    "tiny-decoder": lambda: decoder_shape(hidden=32, layers=1, heads=2),
    "minilm": minilm,
    "bert-base": bert_base,
    "deberta-v3-base": lambda: deberta(768, 12),
    "deberta-v3-large": lambda: deberta(1024, 24),
    "qwen3-0.6b": decoder_shape,
}

PARTS: dict[str, tuple[Callable[[Run], None], int]] = {
    "machine": (machine, 40),
    "parity": (parity, 70),
    "passes": (passes, 90),
    "scoring": (scoring, 150),
    "budgets": (budgets, 150),
    "kernels": (kernels, 60),
    "groups": (groups_of_eight, 40),
    "training": (training, 180),
    "profile": (profile, 60),
    "decoder": (decoder, 50),
    "start-up": (start_up, 90),
    "serving": (server, 60),
    "memory": (memory_use, 40),
}
"""Every part, and the seconds that it may take."""


def markdown(lines: list[dict[str, Any]]) -> str:
    """The lines of a run as a table for each part."""
    tables = []
    for part in dict.fromkeys(line["part"] for line in lines):
        rows = [
            {name: value for name, value in line.items() if name != "part"} for line in lines if line["part"] == part
        ]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        table = [f"| {' | '.join(column.replace('_', ' ') for column in columns)} |", "|---" * len(columns) + "|"]
        table += [f"| {' | '.join(str(row.get(column, '')) for column in columns)} |" for row in rows]
        tables.append(f"### {part}\n\n" + "\n".join(table))
    return "\n\n".join(tables)


if __name__ == "__main__":
    main()
