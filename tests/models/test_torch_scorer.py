"""How the torch scorer runs its passes."""

import torch

from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from tests.conftest import tiny


def test_weights_are_cast_to_bf16_once_in_a_call_and_not_in_every_pass():
    model, tokenizer = tiny("pointwise")
    scorer = TorchScorer(model, tokenizer, bf16=True, max_tokens_per_forward=64)
    groups = [Group(f"What is {n}?", ("the answer", "cats of 2", "why not reading")) for n in range(20)]
    with torch.profiler.profile() as profile:
        scorer.score(groups)
    counts = {event.key: event.count for event in profile.key_averages()}
    matrices = sum(parameter.dim() == 2 for parameter in model.parameters())
    assert counts["aten::linear"] > 5 * matrices
    assert counts["aten::_to_copy"] < counts["aten::linear"]  # inputs are cast, and each weight once
