"""Runs in the environment of sentence-transformers 5.1 (``make peers``): saves a CrossEncoder and scores pairs.

python run_sentence_transformers.py FOLDER

FOLDER holds ``base`` (a classifier and its tokenizer) and ``task.json``: ``pairs``. Written: ``FOLDER/model`` and
``FOLDER/scores.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from sentence_transformers import CrossEncoder


def main(folder: Path) -> None:
    """Save, load again, score."""
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    CrossEncoder(str(folder / "base"), num_labels=1, device="cpu").save_pretrained(str(folder / "model"))
    model = CrossEncoder(str(folder / "model"), device="cpu")
    pairs = [tuple(pair) for pair in task["pairs"]]
    scores = model.predict(pairs, activation_fn=torch.nn.Identity(), batch_size=1, show_progress_bar=False)
    ids = [model.tokenizer([pair[0]], [pair[1]], truncation="longest_first").input_ids[0] for pair in pairs]
    lines = [{"score": float(score), "ids": row} for score, row in zip(scores.reshape(-1), ids, strict=True)]
    (folder / "scores.json").write_text(json.dumps(lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
