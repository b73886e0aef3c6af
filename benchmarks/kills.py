"""A filter job that is killed again and again: no row lost, doubled or different.

    python benchmarks/kills.py runs/pairrm/model.int8.onnx [--rows 200000] [--kills 50] [--seed 0]

Each worker gets SIGKILL at a random moment; the next one continues. At the end every part is compared, byte for byte,
with those of an undisturbed job.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def job(model, rows, folder):
    command = [sys.executable, "-m", "ranker", "filter", rows, "--onnx", model, "-o", folder, "--part-rows", "1000"]
    return subprocess.Popen([*map(str, command), "--keep", "score > -100", "--quiet"], stderr=subprocess.DEVNULL)


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("part-*"))}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        rows, whole, killed = (Path(name) / part for part in ("rows.jsonl", "whole", "killed"))
        with rows.open("w") as file:
            for number in range(args.rows):
                file.write(json.dumps({"id": number, "prompt": f"p{number % 97}", "candidates": [f"a{number}"]}) + "\n")
        started = time.monotonic()
        assert job(args.model, rows, whole).wait() == 0
        undisturbed = time.monotonic() - started
        kills = starts = 0
        moments = []
        while not (killed / "_SUCCESS").exists():
            worker = job(args.model, rows, killed)
            starts += 1
            if kills < args.kills:
                moment = draw.uniform(0.5, 1.0 + 2 * undisturbed / args.kills)
                try:
                    worker.wait(moment)
                except subprocess.TimeoutExpired:
                    worker.send_signal(signal.SIGKILL)
                    moments.append(round(moment, 2))
                    kills += 1
                    worker.wait()
            else:
                assert worker.wait() == 0
        ids = [json.loads(line)["id"] for path in sorted(killed.glob("part-*")) for line in path.open()]
        report = {
            "seed": args.seed,
            "rows": args.rows,
            "kills": kills,
            "starts": starts,
            "undisturbed_seconds": round(undisturbed, 1),
            "lost": args.rows - len(set(ids)),
            "doubled": len(ids) - len(set(ids)),
            "parts_that_differ": sum(digests(killed).get(n) != d for n, d in digests(whole).items()),
            "parts": len(digests(whole)),
            "killed_after_seconds": moments,
        }
        print(json.dumps(report))
        sys.exit(bool(report["lost"] or report["doubled"] or report["parts_that_differ"]))


if __name__ == "__main__":
    main()
