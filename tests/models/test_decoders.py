"""Answers that share a row with their prompt score as they do alone."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from ranker.export import graph
from ranker.models import pointwise
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.runtime.onnx_scorer import GraphScorer
from ranker.scoring.pipeline import TextPipeline
from tests.models.test_reward import ANSWERS, DECODERS, PROMPT, save_backbone
from tests.support.selection import cases

SEP = 3
"""The end of text of the tiny tokenizers."""

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
    model, tokenizer = pointwise.from_backbone(str(folder), output="scalar", max_length=LENGTH, prompt_reserve=16)
    sharing, alone = TorchScorer(model.eval(), tokenizer), TorchScorer(model, tokenizer)
    alone.pipeline = TextPipeline(model.layout, tokenizer)
    return sharing, alone


def read(pipeline):
    """Tokens of all rows of ``GROUPS``."""
    packed = [pipeline.pack(tokens) for tokens in pipeline.tokenize(GROUPS)]
    return sum(len(row.ids) for item in packed for row in item.rows)


@pytest.mark.parametrize("family", cases(DECODERS, "llama".__eq__))
def test_a_prompt_is_read_once_for_all_its_answers(family, tmp_path):
    sharing, alone = scorers(tmp_path / "model", family)
    graph.to_onnx(sharing.model, tmp_path / "graph.onnx")
    exported = GraphScorer(tmp_path / "graph.onnx", alone.pipeline.layout, alone.pipeline.tokenizer, device="cpu")
    assert exported.pipeline.prefix_sharing
    assert read(sharing.pipeline) < 0.9 * read(alone.pipeline)
    expected = alone.score(GROUPS)
    assert min(np.ptp(r.scores) for r in expected if len(r.scores) > 1) > 1e-3, "all the same would prove nothing"
    for scorer in (sharing, exported):
        for budget in (1, 100_000):
            scorer.max_tokens_per_forward = budget
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
    assert rows[1].readout == (LENGTH - 1, LENGTH + 1), "an answer of one token and the end of text"


def test_an_empty_answer_is_read_at_the_end_of_its_prompt(tmp_path):
    sharing, alone = scorers(tmp_path / "model", "llama")
    layout = sharing.model.layout
    without_end = layout.chat.model_copy(update={"skipped_ends": (SEP,)})
    layout = layout.model_copy(update={"chat": without_end})
    for scorer in (sharing, alone):
        scorer.pipeline = TextPipeline(layout, scorer.pipeline.tokenizer, prefix_sharing=scorer is sharing)
    group = Group("How many legs have three spiders?", ("twenty four", "", "8"))
    one, other = (scorer.score([group], preserve_order=True)[0].scores for scorer in (sharing, alone))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    (tokens,) = sharing.pipeline.tokenize([group])
    assert [row.candidates for row in sharing.pipeline.pack(tokens).rows] == [(0,), (1, 2)]


def test_a_shared_row_that_fails_is_read_answer_by_answer(tmp_path):
    sharing, alone = scorers(tmp_path / "model", "llama")
    forward, lengths = sharing._forward, []

    def short_of_memory(arrays):
        lengths.append(arrays["input_ids"].shape[1])
        if lengths[-1] > 32:
            raise MemoryError("out of memory")
        return forward(arrays)

    sharing._forward = short_of_memory
    group = Group(PROMPT, ANSWERS)
    (result,), (expected,) = sharing.score([group]), alone.score([group])
    assert result.error is None
    assert max(lengths) > 32
    np.testing.assert_allclose(result.scores, expected.scores, rtol=1e-4, atol=1e-4)


def test_a_row_of_many_answers_is_at_most_twice_as_long_as_others(tmp_path):
    sharing, _ = scorers(tmp_path / "model", "llama")
    (tokens,) = sharing.pipeline.tokenize([Group("x " * 180, tuple(f"{'y ' * 40}{i}" for i in range(12)))])
    rows = sharing.pipeline.pack(tokens).rows
    assert max(len(row.ids) for row in rows) <= 2 * LENGTH
    assert len(rows) > 1


def test_padding_of_a_short_row_beside_a_long_one_is_harmless(tmp_path):
    from ranker.models.attention.blocks import branch_mask

    blocks = torch.tensor([[0, 1, 2], [1, -1, -1]])
    mask = branch_mask(blocks, torch.tensor([[0, 1, 1], [0, 0, 0]]))[:, 0]
    assert mask.any(dim=-1).all()
    assert mask[0].tolist() == [[True, False, False], [True, True, False], [True, False, True]]


def test_a_row_takes_answers_up_to_twice_its_prompt(tmp_path):
    sharing, _ = scorers(tmp_path / "model", "llama")
    (tokens,) = sharing.pipeline.tokenize([Group("a b c d e f", tuple(f"{'x ' * 5}{i}" for i in range(7)))])
    rows = sharing.pipeline.pack(tokens).rows
    assert [c for row in rows for c in row.candidates] == list(range(7))
    for row in rows:
        prompt = int((row.blocks == 0).sum())
        assert len(row.ids) - prompt <= 2 * prompt
