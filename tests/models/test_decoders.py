"""Answers that share a row with their prompt score as they do alone."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from ranker.export import graph
from ranker.models import reward
from ranker.models.scorer import TorchScorer
from ranker.records import Group
from ranker.runtime.scorer import GraphScorer
from ranker.text.pipeline import TextPipeline
from tests.models.test_reward import ANSWERS, DECODERS, PROMPT, save_backbone

GROUPS = [
    Group(PROMPT, ANSWERS),
    Group("Hi", ("a",)),
    Group("How many legs have three spiders? " * 2, ("24", "twenty four", "x " * 300, "8")),
    Group("", ("a", "b")),
]
LENGTH = 240
WINDOW = 16
"""Positions that a layer with a sliding window looks back; prompts are longer."""


def scorers(folder, family):
    """The same random model reading answers after one prompt, and each after its own."""
    save_backbone(folder, family)
    config = AutoConfig.from_pretrained(folder)
    if getattr(config, "sliding_window", None) is not None:
        config.sliding_window = WINDOW
        AutoModel.from_pretrained(folder, config=config).save_pretrained(folder)
    torch.manual_seed(1)
    model, tokenizer = reward.from_backbone(str(folder), output="tasks", max_length=LENGTH, prompt_reserve=16)
    sharing, alone = TorchScorer(model.eval(), tokenizer), TorchScorer(model, tokenizer)
    alone.pipeline = TextPipeline(model.layout, tokenizer)
    return sharing, alone


def read(pipeline):
    """Tokens of all rows of ``GROUPS``."""
    packed = [pipeline.pack(tokens) for tokens in pipeline.tokenize(GROUPS)]
    return sum(len(row.ids) for item in packed for row in item.rows)


@pytest.mark.parametrize("family", DECODERS)
def test_a_prompt_is_read_once_for_all_its_answers(family, tmp_path):
    sharing, alone = scorers(tmp_path / "model", family)
    graph.to_onnx(sharing.model, tmp_path / "graph.onnx")
    exported = GraphScorer(tmp_path / "graph.onnx", alone.pipeline, device="cpu")
    assert exported.pipeline.share_prompts
    assert read(sharing.pipeline) < 0.9 * read(alone.pipeline)
    expected = alone.score(GROUPS)
    assert min(np.ptp(r.scores) for r in expected if len(r.scores) > 1) > 1e-3, "all the same would prove nothing"
    for scorer in (sharing, exported):
        for budget in (1, 100_000):
            scorer.batch_tokens = budget
            for a, b in zip(expected, scorer.score(GROUPS), strict=True):
                np.testing.assert_allclose(b.scores, a.scores, rtol=1e-4, atol=1e-4)
                np.testing.assert_array_equal(b.truncated, a.truncated)
                assert b.prompt_truncated == a.prompt_truncated


def test_answers_whose_prompts_were_cut_differently_do_not_share_one(tmp_path):
    sharing, _ = scorers(tmp_path / "model", "llama")
    (tokens,) = sharing.pipeline.tokenize([Group("word " * 300, ("a " * 200, "b", "c"))])
    rows = sharing.pipeline.pack(tokens).rows
    assert [row.candidates for row in rows] == [(0,), (1, 2)]
    assert len(rows[0].ids) == LENGTH
    assert rows[1].readout == (LENGTH - 1, LENGTH + len(sharing.model.layout.suffix))


def test_a_row_takes_answers_up_to_twice_its_prompt(tmp_path):
    sharing, _ = scorers(tmp_path / "model", "llama")
    (tokens,) = sharing.pipeline.tokenize([Group("a b c d e f", tuple(f"{'x ' * 5}{i}" for i in range(7)))])
    rows = sharing.pipeline.pack(tokens).rows
    assert [c for row in rows for c in row.candidates] == list(range(7))
    for row in rows:
        prompt = int((row.blocks == 0).sum())
        assert len(row.ids) - prompt <= 2 * prompt
