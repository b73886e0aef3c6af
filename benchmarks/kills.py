"""Interrupts at random moments: what is lost, doubled or left behind by ``filter``, ``score`` and ``train``.

    python benchmarks/kills.py filter score train --each 50 --trainings 10 -o docs/kills.json

Every command is started, sent SIGINT, SIGTERM or SIGKILL after a random time, and started again (``train`` with the
command that it printed), until each signal has come often enough. The result is compared with that of a command that
was left alone. Moments within the start-up of Python count too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ranker.runtime.session import processor

ROOT = Path(__file__).parent.parent
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
FIXED = ["--option", "max_tokens_per_forward=2048"]
"""Batches of one size, so that results are equal to the last bit; otherwise the size is measured."""

RANKER = [sys.executable, "-m", "ranker"]


@dataclass
class Tally:
    """What was seen of one command."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    aborts: int = 0
    lost: int = 0
    doubled: int = 0
    leftovers: int = 0
    wrong_codes: int = 0
    no_command: int = 0
    before_start: int = 0
    """Signals that met Python's own start-up, which answers them with a message of its own; they are no kills."""

    results: int = 0
    equal: int = 0
    examples: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """The JSON object of the results."""
        return {**vars(self), "kills": dict(self.kills)}


@dataclass(frozen=True)
class Ended:
    """How a run ended: its code and standard error, and whether the signal came before that."""

    code: int
    stderr: str
    killed: bool


def run(command: list[str], number: signal.Signals | None, after: float) -> Ended:
    """Run a command, and send it a signal after so many seconds unless it has ended."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        stderr = process.communicate(timeout=after if number is not None else None)[1]
        return Ended(process.returncode, stderr, killed=False)
    except subprocess.TimeoutExpired:
        process.send_signal(number or signal.SIGTERM)
        stderr = process.communicate(timeout=300)[1]
        return Ended(process.returncode, stderr, killed=True)


def left_in(folder: Path, but: tuple[str, ...] = ()) -> list[str]:
    """Hidden files and folders, which no finished command leaves."""
    return [str(path) for path in folder.rglob(".*") if path.name not in but] if folder.exists() else []


def rows_of(folder: Path) -> bytes:
    """All rows of a job's parts, in order."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("part-*.jsonl")))


def count(tally: Tally, ended: Ended, number: signal.Signals) -> None:
    """Count a run and what is wrong with its end."""
    tally.runs += 1
    if not ended.killed:
        return
    if "Fatal Python error: init" in ended.stderr:
        tally.before_start += 1
        return
    tally.kills[number.name] += 1
    print(f"\r{sum(tally.kills.values())} interrupts in {tally.runs} runs", end="", file=sys.stderr, flush=True)
    expected = (SIGNALS[number], 0, 128 + number, -number)
    tally.aborts += ended.code in (-6, -11) or "Traceback" in ended.stderr
    tally.wrong_codes += ended.code not in expected
    if ended.code not in expected or "Traceback" in ended.stderr:
        tally.examples.append(f"{number.name} {ended.code} {ended.stderr[-4000:]}")


def next_signal(tally: Tally, each: int) -> signal.Signals | None:
    """The signal that has come least often; None when all have come often enough."""
    number = min(SIGNALS, key=lambda number: tally.kills[number.name])
    return signal.Signals(number) if tally.kills[signal.Signals(number).name] < each else None


def filters(model: Path, rows: Path, work: Path, each: int, seed: int) -> Tally:
    """``ranker filter`` with a selection: the same command until it is done, over and over."""
    tally, dice = Tally(), random.Random(seed)

    def command(folder: Path) -> list[str]:
        selection = ["--keep-top", "50%", "--part-rows", "60", "--quiet", *FIXED]
        return [*RANKER, "filter", str(rows), "--model", str(model), "-o", str(folder), *selection]

    started = time.monotonic()
    assert run(command(work / "all"), None, 0).code == 0
    seconds = time.monotonic() - started
    whole = rows_of(work / "all")
    folder = work / "kept"
    done: dict[str, str] = {}
    while (number := next_signal(tally, each)) is not None:
        before = left_in(folder)  # what SIGKILL left, which the run that finishes removes
        ended = run(command(folder), number, dice.uniform(0.1, 1.3 * seconds))
        count(tally, ended, number)
        parts = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("part-*.jsonl")}
        tally.lost += sum(parts.get(name) != digest for name, digest in done.items())
        done = parts
        if ended.killed and number != signal.SIGKILL:
            tally.leftovers += len(set(left_in(folder)) - set(before))
        if ended.code == 0:
            tally.results += 1
            tally.equal += rows_of(folder) == whole
            tally.doubled += max(0, rows_of(folder).count(b"\n") - whole.count(b"\n"))
            tally.leftovers += len(left_in(folder))
            shutil.rmtree(folder)
            done = {}
    return tally


def scores(model: Path, rows: Path, work: Path, each: int, seed: int) -> Tally:
    """``ranker score``: a file that is complete or not there."""
    tally, dice = Tally(), random.Random(seed)
    target = work / "out" / "scored.jsonl"
    target.parent.mkdir()
    command = [*RANKER, "score", "--model", str(model), "-i", str(rows), "-o", str(target), "--quiet", *FIXED]
    started = time.monotonic()
    assert run(command, None, 0).code == 0
    seconds = time.monotonic() - started
    whole = target.read_bytes()
    target.unlink()
    while (number := next_signal(tally, each)) is not None:
        before = left_in(target.parent)
        ended = run(command, number, dice.uniform(0.1, 1.3 * seconds))
        count(tally, ended, number)
        if target.exists():
            tally.results += 1
            tally.equal += target.read_bytes() == whole
            target.unlink()
        if number != signal.SIGKILL:
            tally.leftovers += len(set(left_in(target.parent)) - set(before))
    assert run(command, None, 0).code == 0
    tally.leftovers += len(left_in(target.parent))  # the next run removes what SIGKILL left
    return tally


def trainings(work: Path, each: int, seed: int) -> Tally:
    """``ranker train``: continued with the command that it prints, until its weights are compared."""
    tally, dice = Tally(), random.Random(seed)

    def command(output: Path) -> list[str]:
        more = ("data.max_train_samples=40", "data.max_eval_samples=10", "data.max_test_samples=10")
        settings = (
            "training.save_steps=1",
            "training.precision=fp32",
            "export.precisions=[fp32]",
            "model.max_length=128",
            "model.prompt_reserve=32",
        )
        return [*RANKER, "train", "pairrm", *more, *settings, f"output_dir={output}", "--offline"]

    started = time.monotonic()
    assert run(command(work / "whole"), None, 0).code == 0
    seconds = time.monotonic() - started
    weights = work / "whole" / "checkpoint" / "model.safetensors"
    whole = weights.read_bytes()
    output = work / "run"
    current = command(output)
    while (number := next_signal(tally, each)) is not None:
        ended = run(current, number, dice.uniform(1.0, 1.2 * seconds))
        count(tally, ended, number)
        printed = re.findall(r"continue with: (ranker train .*)", ended.stderr)
        if printed:
            current = [*RANKER, *shlex.split(printed[-1])[1:]]
        elif ended.killed and (number == signal.SIGKILL or "all of its files are in" in ended.stderr):
            saved = list((output / "steps").glob("checkpoint-*")) or (output / "checkpoint").exists()
            current = [*command(output), *(["--resume"] if saved else ["--overwrite"])]
        elif ended.killed and ended.code != 0 and not re.search("nothing was trained|stopped by", ended.stderr):
            tally.no_command += 1
            tally.examples.append(f"{number.name} {ended.code} {ended.stderr[-4000:]}")
        if ended.code == 0:
            tally.results += 1
            tally.equal += (output / "checkpoint" / "model.safetensors").read_bytes() == whole
            tally.leftovers += len(left_in(output, (".lock",)))
            shutil.rmtree(output)
            current = command(output)
        elif not ended.killed:
            raise SystemExit(f"{shlex.join(current)}\n{ended.stderr}")
    return tally


def main() -> None:
    """Run the parts that are named, and write their counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["filter", "score", "train"])
    parser.add_argument("--model", type=Path, help="a model.onnx; filter and score need one")
    parser.add_argument("--each", type=int, default=50, help="interrupts of filter and score by each signal")
    parser.add_argument("--trainings", type=int, default=10, help="interrupts of train by each signal")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="JSON; parts that were run before stay in it")
    options = parser.parse_args()
    if options.model is None and options.parts != ["train"]:
        parser.error("filter and score need --model")
    results = json.loads(options.output.read_text()) if options.output and options.output.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        rows = work / "rows.jsonl"
        lines = (ROOT / "data" / "test.jsonl").read_text(encoding="utf-8").splitlines()
        rows.write_text("".join(f"{lines[number % len(lines)]}\n" for number in range(options.rows)), encoding="utf-8")
        model = (options.model or Path()).absolute()
        parts: dict[str, Callable[[], Tally]] = {
            "filter": lambda: filters(model, rows, work, options.each, options.seed),
            "score": lambda: scores(model, rows, work, options.each, options.seed),
            "train": lambda: trainings(work, options.trainings, options.seed),
        }
        for part in options.parts:
            started = time.monotonic()
            tally = parts[part]()
            facts = {
                **tally.facts(),
                **({} if part == "train" else {"rows": options.rows}),
                "seconds": round(time.monotonic() - started),
                "cpu": processor(),
                "date": time.strftime("%Y-%m-%d"),
            }
            print(part, json.dumps(facts))
            if options.output:
                current = json.loads(options.output.read_text()) if options.output.exists() else results
                options.output.write_text(json.dumps({**current, part: facts}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
