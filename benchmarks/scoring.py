"""Scoring and ranking speed beside what a user could pick instead; ``make bench`` makes the environments and runs it.

    python benchmarks/scoring.py [--rows FILE...] [--rounds 5] [--threads N] [--onnx-python P] [--blender-python P]

Every contender is its own process with a loaded, warm model. In each round every contender makes one pass over the
same groups, one after the other, so that variations of the machine affect all of them alike; the order is another one
in every round, and before each pass is a pause in which the threads of the last one come to rest. Figures are medians
over rounds, ratios are medians of the ratios within a round. Texts have their natural lengths: those of ``--rows``, the
same number of prompts of each file, no prompt twice; or log-normal ones (seed 0, median 35 words, at most 60) made of
the sample's words. The ceiling is the engine's own matrix product of the run.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from scipy.stats import kendalltau
from shapes import deberta_v3, qwen3
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from ranker.checkpoints import native
from ranker.checkpoints.formats.pairrm import MARKERS, NAMES
from ranker.data.load import load_preferences
from ranker.data.sample import build
from ranker.export import graph
from ranker.export.graph import head_nodes
from ranker.export.write import export
from ranker.extras import offline_backbone
from ranker.layouts.layout import Arrays
from ranker.layouts.pointwise import Pointwise
from ranker.models import pairwise
from ranker.models import pointwise as reward
from ranker.records import Group
from ranker.runtime.onnx_scorer import OnnxScorer
from ranker.runtime.session import available_cores, open_session, processor
from ranker.scoring.executor import CHUNK_GROUPS, score_groups
from ranker.scoring.pipeline import TextPipeline
from ranker.text.templates import render_prompt
from ranker.text.tokenizer import TextTokenizer

ROOT = Path(__file__).parent.parent
WORKER = Path(__file__).with_name("contenders.py")
VALIDATION = str(ROOT / "data" / "validation.jsonl")
POINTWISE_ROWS = 192
PEAK = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)
HOST_PROMPTS = 4096
LENGTHS = (32, 128, 512)
LENGTH_TOKENS = 6144
CALL_LENGTHS = (32, 64, 128)
PAUSE = 0.1
"""Seconds before a pass: onnxruntime's threads spin for a while after the one before."""
PAUSE_OF_CALLS = 0.05
CALLS = 200
PROMPTS = {8: 4, 16: 1}
"""Prompts of a ranking pass by number of candidates."""
DECODER_PROMPTS = {128: 2, 512: 1}
"""Prompts of a pass of the decoder by their words."""
DECODER_ANSWERS = 8
DECODER_LENGTH = 1024
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}{{ eos_token }}"
)


def main() -> None:
    """Run all parts and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows",
        type=Path,
        nargs="+",
        help="files of groups whose texts are scored; default (and of lists): seeded log-normal lengths",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument(
        "--runs",
        type=Path,
        default=ROOT / "runs",
        help="folder with encoder-bradley-terry, pairrm, pairrm-shared-prompt",
    )
    parser.add_argument("--onnx-python", default=None, help="an environment with sentence-transformers[onnx]")
    parser.add_argument("--blender-python", default=None, help="an environment with llm-blender and transformers < 5")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--memory-rows", type=int, default=1_000_000)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "runs" / "bench.json", help="JSON; parts that were run before stay in it"
    )
    options = parser.parse_args()
    report: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    with tempfile.TemporaryDirectory(prefix="ranker-bench-") as folder:
        for part in options.parts:
            options.rows_read = {}
            sides = PARTS[part](options, Path(folder))
            report[part] = {
                "machine": machine(options.threads, options.onnx_python),
                "rows": options.rows_read,
                "sides": sides,
            }
            print(f"\n## {part}\n{table(sides)}", flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten: {options.out}")


def machine(threads: int, other: str | None) -> dict[str, Any]:
    """The machine and the versions of the measurement, also those of the other environment."""
    packages = ("torch", "transformers", "onnxruntime", "sentence-transformers")
    return {
        "cpu": processor(),
        "threads": threads,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        **{name: version(name) for name in packages},
        "other": {name: version_in(other, name) for name in (*packages[1:], "openvino")} if other else {},
    }


def version_in(python: str, package: str) -> str:
    """The version of a package in another environment."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def groups_of(
    files: list[Path] | None, count: int, candidates: int, within: OnnxScorer | None = None
) -> list[tuple[str, list[str]]]:
    """``count`` prompts with ``candidates`` answers each, of natural lengths; with ``within`` none is cut by it."""
    rng = random.Random(0)
    if files:
        return [
            group
            for number, file in enumerate(files)
            for group in groups_in(file, len(range(number, count, len(files))), candidates, within, rng)
        ]
    words = sorted({word for row in islice(build.rows("validation"), 400) for word in row["prompt"].split()})

    def text() -> str:
        return " ".join(rng.choices(words, k=max(3, min(60, round(rng.lognormvariate(np.log(35), 0.7))))))

    return [(text(), [text() for _ in range(candidates)]) for _ in range(count)]


def groups_in(
    file: Path, count: int, candidates: int, within: OnnxScorer | None, rng: random.Random
) -> list[tuple[str, list[str]]]:
    """Random groups of a file; no prompt twice, and no answer twice in a group."""
    groups: dict[str, list[str]] = {}
    for preference in load_preferences([str(file)]).preferences:
        prompt, answers = render_prompt(preference.prompt), list(dict.fromkeys(preference.candidates))[:candidates]
        if len(answers) < candidates or prompt in groups:
            continue
        if within is None or max(row_lengths(within, prompt, answers)) <= within.info.max_length:
            groups[prompt] = answers
    if len(groups) < count:
        raise SystemExit(f"{file}: {len(groups)} prompts have {candidates} answers that fit, expected {count}")
    return rng.sample([*groups.items()], count)


def row_lengths(scorer: OnnxScorer, prompt: str, answers: Sequence[str]) -> list[int]:
    """Tokens of the rows [CLS] prompt [SEP] answer [SEP]."""
    start, *ends = scorer.token_counts(Group("", (prompt, *answers)))
    return [start + end + 3 for end in ends]


class Contender:
    """A process that holds one model and answers each line with a pass."""

    def __init__(
        self, side: str, model: Path, groups: Path, threads: int, python: str, max_length: int | None = None
    ) -> None:
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
        if max_length is not None:
            environment["BENCH_MAX_LENGTH"] = str(max_length)
        environment |= {"TOKENIZERS_PARALLELISM": "true"}
        command = [python, str(WORKER), side, str(model), str(groups), str(threads)]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment
        )
        self._answer()

    def run(self) -> dict[str, Any]:
        """One pass: its seconds and scores."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """End the process."""
        self.process.communicate()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise SystemExit(f"{self.process.args}\n{self.log.read()[-3000:]}")
        return json.loads(line)


Sides = dict[str, tuple[str, Path, str]]
"""By name: the function of ``contenders.py``, its model, and the Python of its environment."""


def in_turn(
    contenders: Sides,
    groups: list[Any],
    threads: int,
    rounds: int,
    folder: Path,
    max_length: int | None = None,
    pause: float = PAUSE,
) -> dict[str, list[dict[str, Any]]]:
    """The passes of every contender: in each round one of each, one after the other."""
    file = folder / "groups.json"
    file.write_text(json.dumps(groups), encoding="utf-8")
    running = {n: Contender(side, model, file, threads, py, max_length) for n, (side, model, py) in contenders.items()}
    passes: dict[str, list[dict[str, Any]]] = {name: [] for name in running}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample([*running], len(running)):
            time.sleep(pause)
            passes[name].append(running[name].run())
    for contender in running.values():
        contender.stop()
    return passes


def interleaved(
    contenders: Sides, groups: list[Any], options: argparse.Namespace, folder: Path
) -> dict[str, dict[str, Any]]:
    """Rounds of one pass each: medians, ratios to the first contender, and agreement with its scores."""
    passes = in_turn(contenders, groups, options.threads, options.rounds, folder)
    first = next(iter(passes))
    rows = sum(len(answers) for _, answers in groups)
    truth = passes[first][0]["scores"]
    result = {}
    for name, runs in passes.items():
        seconds = median(run["seconds"] for run in runs)
        faster = median(b["seconds"] / r["seconds"] for b, r in zip(passes[first], runs, strict=True))
        result[name] = {
            "answers_per_second": rows / seconds,
            "prompts_per_second": len(groups) / seconds,
            "speed_of_first": faster,
            **agreement(truth, runs[0]["scores"]),
            "rounds": len(runs),
        }
    return result


def agreement(truth: list[list[float]], scores: list[list[float]]) -> dict[str, float]:
    """Kendall tau over all answers of a prompt (or over all rows), and how often the top choice is the same."""
    same = np.mean([np.argmax(a) == np.argmax(b) for a, b in zip(truth, scores, strict=True)])
    if len(truth[0]) < 3:
        truth, scores = [sum(truth, [])], [sum(scores, [])]
    taus = [kendalltau(a, b).statistic for a, b in zip(truth, scores, strict=True)]
    return {"tau": float(np.mean(taus)), "same_top": float(same)}


def pointwise(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """A MiniLM reward model with one output, against every way to run the same checkpoint elsewhere."""
    run = options.runs / "encoder-bradley-terry"
    checkpoint = plain(run / "checkpoint", folder / "plain")
    here, other = sys.executable, options.onnx_python
    contenders = best_sides(options, checkpoint) | {
        "ranker torch bf16": ("ours_bf16", run / "checkpoint", here),
        "CrossEncoder torch bf16": ("cross_encoder_bf16", checkpoint, here),
        "transformers pipeline": ("pipeline", checkpoint, here),
    }
    if other:
        contenders |= {
            "CrossEncoder ONNX O3": ("cross_encoder_onnx_o3", checkpoint, other),
            "CrossEncoder ONNX int8 (no gate)": ("cross_encoder_int8", checkpoint, other),
            "one padded batch per prompt": ("single_batch", checkpoint, other),
        }
    scorer = OnnxScorer(run / "model.onnx")
    groups = groups_of(options.rows, POINTWISE_ROWS // 2, 2, scorer)
    tokens = [n for prompt, answers in groups for n in row_lengths(scorer, prompt, answers)]
    options.rows_read = {
        "files": [f"{path.parent.name}/{path.name}" for path in options.rows or []],
        "answers": len(tokens),
        "mean_tokens": sum(tokens) / len(tokens),
        "most_tokens": max(tokens),
        "sha256": hashlib.sha256(json.dumps(groups).encode()).hexdigest(),
    }
    results = interleaved(contenders, groups, options, folder)
    work, limits = flops(run / "model.onnx", groups), ceilings(options.threads)
    for name, row in results.items():
        if not name.startswith("ranker") or "bf16" in name:
            continue
        row["of_ceiling"] = (
            work * row["prompts_per_second"] / len(groups) / limits["int8" if "int8" in name else "fp32"]
        )
    return results


def best_sides(options: argparse.Namespace, checkpoint: Path) -> Sides:
    """The fastest ways to run a reward model, here and in sentence-transformers; ``checkpoint`` is of ``plain``."""
    run, here, other = options.runs / "encoder-bradley-terry", sys.executable, options.onnx_python
    sides = {"ranker fp32": ("ours", run / "model.onnx", here)}
    if (run / "model.int8.onnx").exists():
        sides["ranker int8"] = ("ours", run / "model.int8.onnx", here)
    sides["CrossEncoder torch fp32"] = ("cross_encoder", checkpoint, here)
    if other:
        sides |= {
            "CrossEncoder ONNX fp32": ("cross_encoder_onnx", checkpoint, other),
            "CrossEncoder OpenVINO fp32": ("cross_encoder_openvino", checkpoint, other),
            "CrossEncoder OpenVINO int8 (no gate)": ("cross_encoder_openvino_int8", checkpoint, other),
        }
    return sides


def lengths(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Milliseconds of a row of 32, 128 and 512 tokens, as many rows as make ``LENGTH_TOKENS``."""
    sides = best_sides(options, plain(options.runs / "encoder-bradley-terry" / "checkpoint", folder / "lengths"))
    result: dict[str, dict[str, Any]] = {name: {} for name in sides}
    for tokens in LENGTHS:
        rows = rows_of_length(options, tokens, LENGTH_TOKENS // tokens)
        for name, runs in in_turn(sides, rows, options.threads, options.rounds, folder, max(LENGTHS)).items():
            milliseconds = 1000 * median(run["seconds"] for run in runs) / len(rows)
            result[name] |= {f"ms_of_{tokens}_tokens": milliseconds, "rounds": len(runs)}
    return result


def rows_of_length(options: argparse.Namespace, tokens: int, count: int) -> list[tuple[str, list[str]]]:
    """Rows of exactly so many tokens, each of other words."""
    scorer = OnnxScorer(options.runs / "encoder-bradley-terry" / "model.onnx")
    words = sorted({word for row in islice(build.rows("validation"), 400) for word in row["prompt"].split()})
    rng = random.Random(tokens)

    def row() -> tuple[str, list[str]]:
        prompt, answer = rng.choice(words), ""
        while (length := row_lengths(scorer, prompt, [answer])[0]) < tokens:
            answer += " " + " ".join(rng.choices(words, k=max(1, (tokens - length) // 4)))
        return (prompt, [answer]) if length == tokens else row()

    return [row() for _ in range(count)]


def latency(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Milliseconds of one call with one answer of ``CALL_LENGTHS`` tokens: the median and the slowest in a hundred."""
    run = options.runs / "encoder-bradley-terry"
    sides = best_sides(options, plain(run / "checkpoint", folder / "latency"))
    for precision, name in {"fp32": "model.onnx", "int8": "model.int8.onnx"}.items():
        if (run / name).exists():
            sides[bare(precision)] = ("bare_session", run / name, sys.executable)
    result: dict[str, dict[str, Any]] = {name: {} for name in sides}
    for tokens in CALL_LENGTHS:
        row = rows_of_length(options, tokens, 1)
        passes = in_turn(sides, row, options.threads, CALLS, folder, pause=PAUSE_OF_CALLS)
        for name, runs in passes.items():
            middle, slow = np.percentile([1000 * run["seconds"] for run in runs], (50, 99))
            result[name] |= {f"p50_ms_of_{tokens}": float(middle), f"p99_ms_of_{tokens}": float(slow), "calls": CALLS}
        for precision in ("fp32", "int8"):
            name = f"ranker {precision}"
            if name in passes:
                result[name][f"of_bare_at_{tokens}"] = median(
                    run["seconds"] / other["seconds"]
                    for run, other in zip(passes[name], passes[bare(precision)], strict=True)
                )
                np.testing.assert_allclose(passes[name][0]["scores"], passes[bare(precision)][0]["scores"], atol=1e-4)
    return result


def bare(precision: str) -> str:
    """The name of the side that calls onnxruntime with one of our files, without us."""
    return f"bare onnxruntime session, our {precision} file"


def plain(checkpoint: Path, folder: Path) -> Path:
    """The checkpoint as transformers saves it, so that older versions read it."""
    AutoModelForSequenceClassification.from_pretrained(checkpoint).save_pretrained(folder)
    AutoTokenizer.from_pretrained(offline_backbone()).save_pretrained(folder)
    return folder


def flops(model: Path, groups: list[Any]) -> float:
    """Floating-point operations of one pass without padding: products with weights, and attention."""
    nodes = onnx.load(model).graph
    sizes = {i.name: i.dims for i in nodes.initializer if len(i.dims) == 2}
    head = set(head_nodes(model))
    products = [n for n in nodes.node if n.op_type == "MatMul" and n.input[1] in sizes and n.name not in head]
    layers = sum(int(np.prod(sizes[node.input[1]])) for node in products)
    hidden = sizes[products[0].input[1]][0]
    depth = sum(node.op_type == "MultiHeadAttention" for node in nodes.node)
    scorer = OnnxScorer(model)
    tokens = scorer.pipeline.tokenize([Group(prompt, tuple(answers)) for prompt, answers in groups])
    lengths = [len(row.ids) for item in tokens for row in scorer.pipeline.pack(item).rows]
    return float(sum(2 * layers * n + 4 * n * n * hidden * depth for n in lengths))


def ceilings(threads: int) -> dict[str, float]:
    """Operations per second of one large matrix product in onnxruntime, the best of several: fp32 and u8 x i8."""
    m = 2048
    k = 384
    n = 1536
    rng = np.random.default_rng(0)
    operations = {}
    for kind, op in (("fp32", "MatMul"), ("int8", "MatMulInteger")):
        weights = rng.normal(size=(k, n)).astype(np.float32)
        x = rng.normal(size=(m, k)).astype(np.float32)
        if kind == "int8":
            weights, x = (weights * 30).astype(np.int8), (x * 30 + 128).clip(0, 255).astype(np.uint8)
        types = (TensorProto.FLOAT, TensorProto.FLOAT) if kind == "fp32" else (TensorProto.UINT8, TensorProto.INT32)
        graph = helper.make_graph(
            [helper.make_node(op, ["x", "w"], ["y"])],
            "gemm",
            [helper.make_tensor_value_info("x", types[0], [m, k])],
            [helper.make_tensor_value_info("y", types[1], [m, n])],
            [numpy_helper.from_array(weights, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        times = []
        for _ in range(12):
            start = time.perf_counter()
            session.run(None, {"x": x})
            times.append(time.perf_counter() - start)
        operations[kind] = 2 * m * k * n / min(times)
    return operations


def ordered_pair(options: argparse.Namespace, folder: Path) -> Sides:
    """One model in the layout ordered_pair with random weights, in LLM-Blender and here."""
    model, tokenizer = pairwise.from_backbone(offline_backbone(), layout="ordered_pair", max_length=512)
    kinds = model.backbone.embeddings.token_type_embeddings.weight.data
    kinds[1] = kinds[0]  # LLM-Blender gives all segments the same type
    native.save(model.eval(), tokenizer, folder / "ordered_pair")
    file = folder / "ordered_pair.onnx"
    export(folder / "ordered_pair", {"fp32": file}, rows=load_preferences([VALIDATION], limit=64).preferences)
    contenders = {"ranker ordered_pair fp32, both orders": ("ours", file, sys.executable)}
    if options.blender_python:
        blender_folder(model, folder / "blender")
        contenders["LLM-Blender rank"] = ("blender", folder / "blender", options.blender_python)
    contenders["ranker ordered_pair fp32, one order"] = ("ours_one_order", file, sys.executable)
    return contenders


def ranking(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Prompts per second beside LLM-Blender's ``rank`` with the same backbone and, for ``ordered_pair``, weights."""
    contenders = ordered_pair(options, folder)
    for run in ("pairrm", "pairrm-shared-prompt"):
        contenders[f"ranker {run} torch bf16"] = ("ours_bf16", options.runs / run / "checkpoint", sys.executable)
        for precision, name in (("fp32", "model.onnx"), ("int8", "model.int8.onnx")):
            if (options.runs / run / name).exists():
                contenders[f"ranker {run} {precision}"] = ("ours", options.runs / run / name, sys.executable)
    result = {}
    for candidates, prompts in PROMPTS.items():
        rows = interleaved(contenders, groups_of(None, prompts, candidates), options, folder)
        slowest = rows.get("LLM-Blender rank")
        for name, row in rows.items():
            if slowest:
                row["speed_of_LLM-Blender"] = row["prompts_per_second"] / slowest["prompts_per_second"]
            if "ordered_pair" not in name and "Blender" not in name:
                del row["tau"], row["same_top"]  # other weights
            result[f"{name}, N={candidates}"] = row
    return result


def blender_folder(model: pairwise.PairwiseModel, folder: Path) -> None:
    """The same weights as LLM-Blender's own checkpoint of a BERT pair ranker."""
    folder.mkdir()
    tokenizer = AutoTokenizer.from_pretrained(offline_backbone())
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS.values())})
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    tensors = {NAMES.stored_name(name): tensor.contiguous() for name, tensor in model.state_dict().items()}
    words = "pretrained_model.embeddings.word_embeddings.weight"  # it adds a fourth marker, which pairs do not use
    tensors[words] = torch.cat([tensors[words], tensors[words].new_zeros(1, tensors[words].shape[1])])
    width = tensors[words].shape[1]
    pooler = {"weight": torch.zeros(width, width), "bias": torch.zeros(width)}  # asked for, and not read
    tensors |= {f"pretrained_model.pooler.dense.{name}": tensor for name, tensor in pooler.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {
        "ranker_type": "pairranker",
        "model_type": "bert",
        "model_name": offline_backbone(),
        "n_tasks": 1,
        "source_maxlength": 256,
        "candidate_maxlength": 256,
        "fp16": False,
        "device": "cpu",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def deberta(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """DeBERTa-v3-base's shape, random weights, a small vocabulary, 256 tokens, beside transformers' eager torch."""
    config = deberta_v3(2048, num_labels=1, pad_token_id=0)
    eager = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    text = Pointwise(max_length=256, prompt_reserve=64, pad_id=0)
    config.ranker = {"text": text.model_dump(), "head": "scalar", "pooling": "first_token", "aspects": []}
    ours = reward.prepare(reward.reward_class(config)(config)).eval()
    ours.load_state_dict(eager.state_dict())
    graph.to_onnx(ours, folder / "deberta.onnx")
    session = open_session(folder / "deberta.onnx", device="cpu", threads=options.threads)
    torch.set_num_threads(options.threads)
    ids = np.random.default_rng(0).integers(5, 2000, (4, 256))
    arrays = {"input_ids": ids, "block_ids": np.zeros_like(ids), "position_ids": np.tile(np.arange(256), (4, 1))}

    def run_torch() -> Any:
        with torch.inference_mode():
            return eager(input_ids=torch.from_numpy(ids)).logits.numpy()

    def run_ours() -> Any:
        with torch.inference_mode():
            return ours(**{name: torch.from_numpy(array) for name, array in arrays.items()}).numpy()[:, 0]

    sides = {
        "transformers eager": run_torch,
        "ranker torch fp32": run_ours,
        "ranker ONNX fp32": lambda: session.run(["scores"], arrays)[0][:, 0],
    }
    difference = float(np.abs(run_torch() - sides["ranker ONNX fp32"]()).max())
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - start)
    base = times["transformers eager"]
    return {
        name: {
            "rows_per_second": len(ids) / median(seconds),
            "speed_of_eager": median(b / f for b, f in zip(base, seconds, strict=True)),
            "largest_difference": difference,
            "rounds": len(seconds),
        }
        for name, seconds in times.items()
    }


def decoder(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Eight answers of 5 to 60 words to a long prompt, read by Qwen3-0.6B's shape with random weights in fp32.

    The words are few, so the embeddings are small. Beside it are transformers with the prompt in every row, and with
    the prompt's keys and values computed once. ``largest_difference`` is of the scores from those of transformers.
    """
    backbone, model = folder / "decoder", folder / "reward"
    tokenizer = AutoTokenizer.from_pretrained(offline_backbone(), eos_token="[SEP]", bos_token="[CLS]")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(backbone)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    torch.manual_seed(0)
    AutoModel.from_config(qwen3(len(tokenizer), **ids)).save_pretrained(backbone)
    reward_model, text_tokenizer = reward.from_backbone(str(backbone), output="scalar", max_length=DECODER_LENGTH)
    native.save(reward_model.eval(), text_tokenizer, model)
    del reward_model
    here = sys.executable
    contenders: Sides = {
        "transformers": ("transformers_classifier", model, here),
        "transformers, prompt's cache reused": ("transformers_prefix", model, here),
        "ranker torch fp32": ("ours_torch", model, here),
    }
    result: dict[str, dict[str, Any]] = {}
    for words, prompts in DECODER_PROMPTS.items():
        groups = long_prompts(words, prompts)
        passes = in_turn(contenders, groups, options.threads, options.rounds, folder)
        truth = np.concatenate(passes["transformers"][0]["scores"])
        for name, runs in passes.items():
            pairs = zip(passes["transformers"], runs, strict=True)
            result[f"{name}, prompts of {words} words"] = {
                "answers_per_second": len(truth) / median(run["seconds"] for run in runs),
                "speed_of_transformers": median(b["seconds"] / r["seconds"] for b, r in pairs),
                "peak_MiB": runs[-1]["peak_MiB"],
                "largest_difference": float(np.abs(np.concatenate(runs[0]["scores"]) - truth).max()),
                "rounds": len(runs),
            }
    return result


def long_prompts(words: int, prompts: int) -> list[tuple[str, list[str]]]:
    """Prompts of so many words of the sample, with ``DECODER_ANSWERS`` answers of 5 to 60 words."""
    rng = random.Random(words)
    known = sorted({word for row in islice(build.rows("validation"), 400) for word in row["prompt"].split()})

    def text(count: int) -> str:
        return " ".join(rng.choices(known, k=count))

    return [(text(words), [text(rng.randint(5, 60)) for _ in range(DECODER_ANSWERS)]) for _ in range(prompts)]


def start_up(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Eight rows as a whole process, from the command line to the last score: seconds, and the most memory."""
    checkpoint = plain(options.runs / "encoder-bradley-terry" / "checkpoint", folder / "started")
    rows = groups_of(options.rows, 8, 1)
    file = folder / "eight.jsonl"
    lines = [json.dumps({"prompt": prompt, "candidates": answers}) for prompt, answers in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def cross_encoder(backend: str) -> str:
        return (
            "import json; from sentence_transformers import CrossEncoder; "
            f"rows = [json.loads(line) for line in open({str(file)!r})]; "
            f"print(CrossEncoder({str(checkpoint)!r}, device='cpu', backend={backend!r})"
            ".predict([(r['prompt'], r['candidates'][0]) for r in rows]))"
        )

    score = [sys.executable, "-m", "ranker", "score", "--input", str(file), "--onnx"]
    commands = {
        "CrossEncoder": [sys.executable, "-c", cross_encoder("torch")],
        "ranker --help": [sys.executable, "-m", "ranker", "--help"],
    }
    for name, model in (("fp32", "model.onnx"), ("int8", "model.int8.onnx")):
        if (path := options.runs / "encoder-bradley-terry" / model).exists():
            commands[f"ranker score {name}"] = [*score, str(path)]
    if options.onnx_python:
        for name, side in (("ONNX", "cross_encoder_onnx"), ("OpenVINO", "cross_encoder_openvino")):
            (folder / "groups.json").write_text(json.dumps(rows), encoding="utf-8")
            Contender(side, checkpoint, folder / "groups.json", options.threads, options.onnx_python).stop()  # exports
            commands[f"CrossEncoder {name}"] = [options.onnx_python, "-c", cross_encoder(name.lower())]
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for command in commands.values():
        peak_of(command)  # the first start of each stores its bytecode
    for _ in range(options.rounds):
        for name, command in commands.items():
            start = time.perf_counter()
            peak = peak_of(command)
            runs[name].append((time.perf_counter() - start, peak))
    return {
        name: {
            "seconds": median(seconds for seconds, _ in measured),
            "speed_of_CrossEncoder": median(
                b / a for (a, _), (b, _) in zip(measured, runs["CrossEncoder"], strict=True)
            ),
            "peak_MiB": median(peak for _, peak in measured),
            "rounds": len(measured),
        }
        for name, measured in runs.items()
    }


def peak_of(command: list[str]) -> float:
    """Run a command; the most memory that it had, in MiB."""
    # A child's peak includes the memory of its parent at the fork, so a small parent starts it.
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users have stored bytecode
    starter = [sys.executable, "-S", "-c", PEAK, *command]
    run = subprocess.run(starter, check=True, capture_output=True, text=True, env=environment)
    return int(run.stdout.splitlines()[-1]) / 1024


def memory(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Most memory of ``ranker score`` over files of short rows; it must not grow with the file.

    The model has one of MiniLM's six layers and all of its words: memory is what is measured, not speed.
    """
    offline = offline_backbone()
    AutoModel.from_pretrained(offline, num_hidden_layers=1).save_pretrained(folder / "layer")
    AutoTokenizer.from_pretrained(offline).save_pretrained(folder / "layer")
    model, tokenizer = reward.from_backbone(str(folder / "layer"), output="scalar", max_length=256)
    native.save(model.eval(), tokenizer, folder / "one")
    onnx_file = folder / "one.onnx"
    export(folder / "one", {"fp32": onnx_file}, rows=load_preferences([VALIDATION], limit=64).preferences)
    rows = {}
    for count in (10_000, options.memory_rows):
        file = folder / "short.jsonl"
        with file.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps({"prompt": f"{i}?", "candidates": ["It is so."]}) + "\n" for i in range(count))
        command = [sys.executable, "-m", "ranker", "score", "--onnx", str(onnx_file), "--input", str(file)]
        start = time.perf_counter()
        command += ["--output", str(folder / "scored.jsonl")]
        peak = peak_of(command)
        rows[f"{count} rows"] = {
            "peak_MiB": peak,
            "over_the_file_MiB": peak - onnx_file.stat().st_size / 2**20,
            "rows_per_second": count / (time.perf_counter() - start),
        }
    return rows


def host(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Microseconds of an answer on the host: scoring with an engine that computes nothing, and the tokenizer's part."""
    tokenizer = TextTokenizer.from_folder(Path(offline_backbone()))
    parts = {"prefix": (101,), "between": (102,), "suffix": (102,)}
    pipeline = TextPipeline(Pointwise(max_length=256, pad_id=0, **parts), tokenizer)
    groups = [Group(prompt, tuple(answers)) for prompt, answers in groups_of(None, HOST_PROMPTS, 2)]
    texts = [text for group in groups for text in (group.prompt, *group.candidates)]
    answers = sum(len(group.candidates) for group in groups)

    def nothing(arrays: Arrays) -> Any:
        return np.zeros((len(arrays["input_ids"]), 1, 1), np.float32)

    def ids() -> None:
        for start in range(0, len(texts), 3 * CHUNK_GROUPS):
            encoded = tokenizer._tokenizer.encode_batch_fast(
                texts[start : start + 3 * CHUNK_GROUPS], add_special_tokens=False
            )
            for text in encoded:
                text.ids  # noqa: B018  the library makes the list when it is read

    sides = {
        "scoring with a null engine": lambda: score_groups(pipeline, groups, nothing, 16384),
        "of that, the tokenizer alone": ids,
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - start)
    rest = [whole - part for whole, part in zip(*times.values(), strict=True)]
    return {
        name: {"microseconds_of_an_answer": 1e6 * median(seconds) / answers, "rounds": len(seconds)}
        for name, seconds in (*times.items(), ("the rest", rest))
    }


def table(part: dict[str, dict[str, Any]]) -> str:
    """A Markdown table of a part."""
    columns = list(dict.fromkeys(key for row in part.values() for key in row))
    heading = " | ".join(column.replace("_", " ") for column in columns)
    lines = [f"| | {heading} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in part.items():
        cells = [f"{row[c]:.3g}" if isinstance(row.get(c), float) else str(row.get(c, "")) for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


PARTS = {
    "host": host,
    "pointwise": pointwise,
    "lengths": lengths,
    "latency": latency,
    "ranking": ranking,
    "deberta": deberta,
    "decoder": decoder,
    "start-up": start_up,
    "memory": memory,
}


if __name__ == "__main__":
    main()
