"""Trains the layouts of the pairwise ranker on groups of several sizes and ranks real lists of N candidates with them.

    python benchmarks/group_sizes.py DATA OUT.jsonl [--rows 600] [--models set_encoder-2 set_encoder-8]
    python benchmarks/group_sizes.py --summary OUT.jsonl > docs/group_sizes.json

DATA holds lists: ``gsm8k``, ``truthfulqa``, ``oasst`` (``listwise_*``) and ``summeval``, ``cdm``, ``newsroom``
(``aspects_*``, whose aspects are averaged). A model is a layout and the most candidates that training showed together.
Lists are drawn at N candidates with a seed; what reads groups reads each in one pass and also plays the default
schedule, what reads ordered pairs plays three schedules. Every row of OUT is one model.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import real_data
from conditions import conditions
from scipy.stats import kendalltau

from ranker.config import load_config
from ranker.evaluation.statistics.bootstrap import clustered
from ranker.ranking.tournament import Played, ranked
from ranker.records import Group
from ranker.scoring.protocol import Scorer
from ranker.training.train import train

SETS = ("gsm8k", "truthfulqa", "oasst", "summeval", "cdm", "newsroom")
SIZES = (4, 8, 16)
DRAWS = {4: 1, 8: 3, 16: 1}
"""How often each list is drawn at N; only the two sets of long lists have more than five candidates."""

LISTS = 120
"""Lists of a size that are ranked."""

SETTINGS = [*real_data.SETTINGS, "model.max_length=256", "training.num_train_epochs=2", "training.learning_rate=2e-4"]


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--summary", type=Path, help="print the figures of a file as JSON, and stop")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument(
        "--models",
        nargs="+",
        default=["set_encoder-2", "set_encoder-4", "set_encoder-8", "shared_prompt-8", "ordered_pair-4"],
    )
    options = parser.parse_args()
    if options.summary:
        print(json.dumps(summary([json.loads(line) for line in options.summary.read_text().splitlines()]), indent=1))
        return
    held = list(lists(options.data, "val"))
    for model in options.models:
        layout, most = model.split("-")
        with tempfile.TemporaryDirectory() as folder:
            files = {part: Path(folder, f"{part}.jsonl") for part in ("train", "val")}
            for part, path in files.items():
                rows = list(lists(options.data, part))
                random.Random(0).shuffle(rows)
                path.write_text("".join(json.dumps(row) + "\n" for row in rows[: options.rows]), encoding="utf-8")
            config = load_config(
                "pairrm",
                [
                    f"output_dir={folder}/run",
                    f"data.train=[{files['train']}]",
                    f"data.validation=[{files['val']}]",
                    "data.test=[]",
                    "model.name_or_path=offline",
                    f"model.type={layout}",
                    f"training.candidates_per_prompt=[2,{most}]",
                    *SETTINGS,
                ],
            )
            started = time.monotonic()
            trained = train(config)
            seconds = time.monotonic() - started
        facts = {"model": model, "rows": options.rows, "steps": trained.steps, "seconds": round(seconds)}
        facts |= {"conditions": conditions()}
        with options.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(facts | {"figures": list(figures(trained.scorer, held, layout))}) + "\n")
        print(facts, flush=True)


def lists(data: Path, part: str) -> Iterator[dict]:
    """Rows with one score per candidate, from all sets."""
    for name in SETS:
        for path in sorted((data / name).glob(f"*_{part}.jsonl.gz")):
            if path.name.startswith(("listwise", "aspects")):
                with gzip.open(path, "rt", encoding="utf-8") as lines:
                    for line in lines:
                        row = json.loads(line)
                        scores = row["scores"]
                        if isinstance(scores, dict):
                            scores = np.mean([*scores.values()], axis=0).tolist()
                        yield {k: row[k] for k in ("id", "prompt", "candidates")} | {"scores": scores, "subset": name}


def figures(scorer: Scorer, held: list[dict], layout: str) -> Iterator[dict]:
    """Top-1 hit and tau-b per N and way of ranking, on the held-out lists that are long enough."""
    ways = (None, "auto") if layout != "ordered_pair" else ("all", "auto", "knockout")
    for n in SIZES:
        rng = random.Random(n)
        long = [(number, row) for number, row in enumerate(held) if len(row["candidates"]) >= n]
        drawn = []
        for number, row in rng.sample(long, min(LISTS, len(long))):
            for _ in range(DRAWS[n]):
                chosen = rng.sample(range(len(row["candidates"])), n)
                gold = [row["scores"][i] for i in chosen]
                if len(set(gold)) > 1:
                    drawn.append((number, Group(row["prompt"], tuple(row["candidates"][i] for i in chosen)), gold))
        prompts = np.array([number for number, _, _ in drawn])
        for way in ways:
            results = ranked(scorer, [group for _, group, _ in drawn], schedule=way)
            pairs = [(r.scores, gold) for r, (_, _, gold) in zip(results, drawn, strict=True)]
            hit = np.array([gold[int(scores.argmax())] == max(gold) for scores, gold in pairs])
            tau = np.nan_to_num([kendalltau(scores, gold).statistic for scores, gold in pairs])
            counts = [r.comparisons if isinstance(r, Played) else 0 for r in results]
            chance = float(np.mean([gold.count(max(gold)) / n for _, _, gold in drawn]))
            yield {
                "n": n,
                "way": way or "one pass",
                "comparisons": float(np.mean(counts)),
                "random": chance,
                "hit": asdict(clustered(prompts, lambda rows, hit=hit: float(hit[rows].mean()))),
                "tau_b": asdict(clustered(prompts, lambda rows, tau=tau: float(tau[rows].mean()))),
            }


def summary(results: list[dict]) -> dict:
    """The figures by N and layout; ``random`` is how often a random choice hits the best."""
    lines = []
    for n in SIZES:
        for result in results:
            layout, most = result["model"].split("-")
            lines += [{"layout": layout, "most": int(most)} | f for f in result["figures"] if f["n"] == n]
    chance = {str(line["n"]): line.pop("random") for line in lines}
    return results[-1]["conditions"] | {"rows": results[-1]["rows"], "random": chance, "figures": lines}


if __name__ == "__main__":
    main()
