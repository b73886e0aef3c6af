"""Whether a score depends on anything but its row: batches, batch sizes, threads, other processes, and load.

    python benchmarks/steadiness.py runs/pairrm/model.onnx runs/pairrm/model.int8.onnx --rows data/test.jsonl

Every answer is scored with its prompt alone, then in random batches under each condition. The figures are the number of
answers whose score differs, the largest difference in logits, and how many comparisons within a prompt change.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

import ranker
from ranker.data.formats import parse_group
from ranker.data.readers import read_rows
from ranker.runtime.session import processor
from ranker.scoring.token_budget import fixed_tokens

SPIN = "while True: pass"


def shuffled(scorer, groups, tokens, seed):
    """Scores in the order of ``groups``, which are read in random order and in batches of so many tokens."""
    order = random.Random(seed).sample(range(len(groups)), len(groups))
    with fixed_tokens(tokens):
        results = scorer.score([groups[place] for place in order])
    back = dict(zip(order, results, strict=True))
    return [back[place].scores for place in range(len(groups))]


def under_load(scorer, groups, tokens):
    """The same beside processes that spin."""
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(2)]
    try:
        return shuffled(scorer, groups, tokens, 5)
    finally:
        for other in others:
            other.kill()
            other.wait()


def elsewhere(model, rows):
    """Scores of another process, from the rows' file."""
    command = [sys.executable, "-m", "ranker", "score", "--input", str(rows), "--model", model]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [np.array(json.loads(line)["scores"], np.float32) for line in lines]


def served(model, groups):
    """Scores of a server whose eight clients send calls of 1 to 20 rows in random order at once."""
    port = free_port()
    command = [sys.executable, "-m", "ranker", "serve", "--model", model, "--port", str(port)]
    order = random.Random(9).sample(range(len(groups)), len(groups))
    sizes = random.Random(10)
    calls = []
    while order:
        size = sizes.randint(1, 20)
        calls.append(order[:size])
        order = order[size:]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            with ranker.Client(f"http://127.0.0.1:{port}", timeout=600) as client, ThreadPoolExecutor(8) as threads:
                client.wait_until_ready()

                def sent(places):
                    asked = [groups[place] for place in places]
                    return client.score_batch([g.prompt for g in asked], [list(g.candidates) for g in asked])

                results = [*zip(calls, threads.map(sent, calls), strict=True)]
        finally:
            server.terminate()
    back = {place: scores for call in results for place, scores in zip(*call, strict=True)}
    return [np.array(back[place], np.float32) for place in range(len(groups))]


def free_port():
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def compared(alone, others):
    """Answers that differ, the largest difference, and comparisons that change."""
    differences = [np.abs(a - b) for a, b in zip(alone, others, strict=True)]
    signs = [
        (np.sign(a[:, None] - a[None]) != np.sign(b[:, None] - b[None])) for a, b in zip(alone, others, strict=True)
    ]
    return {
        "answers_that_differ": int(sum((difference > 0).sum() for difference in differences)),
        "largest_difference": float(max(difference.max(initial=0) for difference in differences)),
        "comparisons_that_change": int(sum(sign.sum() for sign in signs) // 2),
    }


def measure(model, groups, rows):
    scorer = ranker.load(model).scorer
    alone = [scorer.score([group])[0].scores for group in groups]
    report = {
        "layout": scorer.info.layout,
        "precision": scorer.info.precision,
        "rows": len(groups),
        "answers": sum(map(len, alone)),
        "comparisons": sum(len(scores) * (len(scores) - 1) // 2 for scores in alone),
    }
    for tokens in (256, 1024, 8192):
        report[f"batches of {tokens} tokens"] = compared(alone, shuffled(scorer, groups, tokens, tokens))
    report["one thread"] = compared(alone, shuffled(ranker.load(model, threads=1).scorer, groups, 1024, 1))
    report["three threads"] = compared(alone, shuffled(ranker.load(model, threads=3).scorer, groups, 2048, 3))
    report["under load"] = compared(alone, under_load(scorer, groups, 1024))
    report["another process"] = compared(alone, elsewhere(model, rows))
    report["served to eight clients"] = compared(alone, served(model, groups))
    return report


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rows", type=Path, default=Path("data/test.jsonl"))
    parser.add_argument("--most", type=int, default=1000, help="rows of the file")
    parser.add_argument("-o", "--output", type=Path, help="JSON; models that were measured before stay in it")
    args = parser.parse_args()
    rows = [row for _, row in islice(read_rows(str(args.rows)), args.most)]
    part = Path("/tmp") / f"steadiness-{time.time_ns()}.jsonl"
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = [parse_group(row, str(number)) for number, row in enumerate(rows)]
    report = json.loads(args.output.read_text()) if args.output and args.output.exists() else {}
    try:
        for model in args.models:
            one = measure(model, groups, part)
            name = f"{one['layout']} {one['precision']}"
            report[name] = one | {"processor": processor(), "date": time.strftime("%Y-%m-%d")}
            print(name, json.dumps(one), flush=True)
    finally:
        part.unlink()
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
