"""One word for one thing: names that were given up are nowhere but in the changelog."""

import re
import subprocess

import pytest

from tests.conftest import ROOT

GIVEN_UP = (
    # functions and parameters
    "group_of", "preference_of", "make_room", "as_given", "share_prompts", "shares_prompts", "rank_with_ref_batch",
    # quantisation
    "_mended", "left_in_fp32", "quantize_steps",
    # checkpoints
    "checkpoints.foreign", "foreign.reading", "foreign.table", "Names.written",
    # settings
    "batch_tokens", "step_tokens", "group_size", "centring", "training.epochs", "training.scheduler", "training.patience",
    "training.compile", "training.tensorboard", "warmup_ratio", "training.gradient_checkpointing",
    "training.label_smoothing=", "training.evaluations", "data.limit", "data.validation_limit", "data.leaks",
    "adapter.rank", "adapter.alpha", "adapter.targets", "output=tasks", "output=classes", "output: classes",
    # recipes and command-line values
    "model.backbone=", "encoder-bt", "decoder-bt", "pairrm-published", "--orders", 'orders="one"', "schedule focus",
    # limits of the server
    "body_bytes", "limits.items", "limits.seconds", "limits.requests",
)  # fmt: skip


def files():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [
        ROOT / name
        for name in listed
        if name.endswith((".py", ".md", ".yaml", ".toml", "Makefile"))
        and name not in ("CHANGELOG.md", "tests/test_words.py")
    ]


@pytest.mark.parametrize("word", GIVEN_UP)
def test_a_name_that_was_given_up_is_nowhere(word):
    begin = r"(?<![\w])" if word[0].isalnum() or word[0] == "_" else ""
    end = r"(?![\w])" if word[-1].isalnum() else ""
    pattern = re.compile(begin + re.escape(word) + end)
    found = [path.relative_to(ROOT) for path in files() if pattern.search(path.read_text(encoding="utf-8"))]
    assert found == []
