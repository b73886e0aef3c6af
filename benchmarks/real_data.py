"""Trains the layouts of the pairwise ranker on real preference pairs and reports held-out accuracy.

    python benchmarks/real_data.py DATA OUT.jsonl [--seeds 0 1 2] [--sets argconv wmt19] [--models set pointwise ...]
    python benchmarks/real_data.py --summary OUT.jsonl > docs/real_data.json

DATA holds ``<set>/train.jsonl.gz`` and ``<set>/val.jsonl.gz`` with prompt, chosen and rejected. Every run is one line
of OUT; a run that is already there is not repeated. The same rows are drawn for every model.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from conditions import conditions

from ranker.config import load_config
from ranker.data.load import load_preferences
from ranker.evaluation.evaluate import evaluate
from ranker.metrics import wilson
from ranker.training.train import train

ROWS = {"argconv": 2000, "wmt19": 4000}
MODELS = {
    "set_encoder": ["model.type=set_encoder"],
    "pointwise": ["model.type=pointwise"],
    "shared_prompt": ["model.type=shared_prompt"],
    "ordered_pair": ["model.type=ordered_pair"],
}
SETTINGS = [
    "model.max_length=384",
    "training.num_train_epochs=1",
    "training.learning_rate=1e-4",
    "training.head_lr_multiplier=10",
    "training.max_tokens_per_forward=2048",
    "training.eval_steps=100000",
    "training.report_to=[]",
    "data.max_eval_samples=64",
]


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--summary", type=Path, help="print the figures of a file as JSON, and stop")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", default=list(ROWS))
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("overrides", nargs="*", help="section.key=value, after --")
    options = parser.parse_args()
    if options.summary:
        print(json.dumps(summary([json.loads(line) for line in options.summary.read_text().splitlines()]), indent=1))
        return
    done = {
        (r["set"], r["model"], r["seed"], tuple(r["overrides"]))
        for r in map(json.loads, options.out.read_text().splitlines() if options.out.exists() else [])
    }
    for seed in options.seeds:
        for name in options.sets:
            for model in options.models:
                if (name, model, seed, tuple(options.overrides)) not in done:
                    result = one(options.data, name, model, seed, options.overrides)
                    with options.out.open("a") as out:
                        out.write(json.dumps(result) + "\n")
                    print(result["set"], result["model"], seed, result["accuracy"], f"{result['seconds']:.0f} s")


def one(data: Path, name: str, model: str, seed: int, overrides: list[str]) -> dict:
    """Train and evaluate one model."""
    with tempfile.TemporaryDirectory() as folder:
        rows = sample_rows(data / name / "train.jsonl.gz", ROWS[name], Path(folder, "train.jsonl"))
        config = load_config(
            "pairrm",
            [
                f"output_dir={folder}/run",
                f"data.train=[{rows}]",
                f"data.validation=[{data / name / 'val.jsonl.gz'}]",
                "data.test=[]",
                "model.name_or_path=offline",
                f"training.seed={seed}",
                *SETTINGS,
                *MODELS[model],
                *overrides,
            ],
        )
        started = time.monotonic()
        trained = train(config)
        seconds = time.monotonic() - started
        validation = load_preferences([str(data / name / "val.jsonl.gz")]).preferences
        report = evaluate(trained.scorer, validation, train=trained.train).report.to_dict()
    return {
        "set": name,
        "model": model,
        "seed": seed,
        "overrides": overrides,
        "rows": ROWS[name],
        "steps": trained.steps,
        "seconds": seconds,
        "conditions": conditions(),
        **{key: report[key] for key in ("accuracy", "log_loss", "brier", "order_flips", "baselines")},
    }


def summary(results: list[dict]) -> dict:
    """The means over seeds, each accuracy with the 95 % interval of its mean over pairs, and the baselines."""
    sets: dict[str, dict] = {}
    for name, model in dict.fromkeys((r["set"], r["model"]) for r in results):
        runs = [r for r in results if (r["set"], r["model"]) == (name, model)]
        accuracies = [r["accuracy"]["value"] for r in runs]
        n = runs[0]["accuracy"]["n"]
        of_set = sets.setdefault(name, {"models": {}, "baselines": runs[0]["baselines"]})
        of_set["models"][model] = {
            "accuracies": accuracies,
            "accuracy": asdict(wilson(mean(accuracies) * n, n)),
            "log_loss": mean(r["log_loss"]["value"] for r in runs),
            "order_flips": mean(r["order_flips"]["value"] for r in runs),
            "steps": runs[0]["steps"],
            "seconds": round(mean(r["seconds"] for r in runs)),
        }
    return results[-1]["conditions"] | {"rows": {r["set"]: r["rows"] for r in results}, "sets": sets}


def sample_rows(source: Path, count: int, target: Path) -> Path:
    """The same random rows for every model: files are often sorted by topic or language."""
    import gzip

    with gzip.open(source, "rt", encoding="utf-8") as lines:
        rows = list(lines)
    random.Random(0).shuffle(rows)
    target.write_text("".join(rows[:count]), encoding="utf-8")
    return target


if __name__ == "__main__":
    main()
