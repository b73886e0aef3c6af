"""The rows of a run."""

import json

import pytest

from ranker.config import load_config
from ranker.training.rows import load

SPANS = [{"prompt": f"q{i}", "chosen": "in 1931", "rejected": "in 1913", "chosen_spans": [[3, 7]]} for i in range(3)]


@pytest.mark.parametrize(("recipe", "read"), [("decoder-token-pairwise", True), ("decoder-bradley-terry", False)])
def test_token_spans_are_read_by_the_token_loss_and_said_to_be_unread_elsewhere(recipe, read, tmp_path, caplog):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, SPANS)))
    files = [f"data.{part}=['{path}']" for part in ("train", "validation", "test")]
    training, _, _ = load(load_config(recipe, [*files, "data.train_eval_overlap=ignore"]))
    assert [bool(row.spans) for row in training] == [read] * 3
    assert ("3 of 3 training rows have token spans, which training.loss 'bradley_terry'" in caplog.text) is not read
