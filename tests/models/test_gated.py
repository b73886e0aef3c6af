"""ArmoRM against its formulas."""

import numpy as np
import pytest
import torch

from ranker.checkpoints import native
from ranker.config import GateConfig
from ranker.errors import CheckpointError
from ranker.models import armorm as gated
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.scoring import batching
from tests.models.test_reward import ANSWERS, PROMPT, TEMPLATE, save_backbone

NAMES = ("a", "b", "c")


def armorm(tmp_path, family="llama", pooling="first_token", **kwargs):
    torch.manual_seed(0)
    folder = save_backbone(tmp_path / "backbone", family, **kwargs)
    model, tokenizer = gated.from_backbone(
        str(folder),
        aspects=NAMES,
        gate=GateConfig(hidden=16, temperature=0.5),
        pooling=pooling,
        max_length=128,
        prompt_reserve=16,
    )
    model.reward_transform_matrix.data[2] = torch.tensor([-0.2, -0.5, 0.0])
    return model.eval(), TorchScorer(model, tokenizer)


def arrays_of(scorer, group):
    packed = scorer.pipeline.pack(scorer.pipeline.tokenize([group])[0])
    arrays = batching.collate(scorer.model.layout, batching.units([packed]))
    return packed, {name: torch.from_numpy(a) for name, a in arrays.items()}


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "modernbert"])
def test_the_score_is_the_gated_sum_of_transformed_aspects(family, tmp_path):
    model, scorer = armorm(tmp_path, family)
    _, arrays = arrays_of(scorer, Group(PROMPT, ANSWERS))
    with torch.no_grad():
        answer, prompt = model.features(**arrays)
        out = model(**arrays)[:, 0]
        hidden = prompt
        for layer in list(model.gating.layers)[:-1]:
            hidden = torch.relu(hidden @ layer.weight.T + layer.bias)
        last = model.gating.layers[-1]
        gate = ((hidden @ last.weight.T + last.bias) / 0.5).softmax(-1)
        aspects = answer @ model.regression_layer.weight.T
    torch.testing.assert_close(out[:, 1:], aspects)
    torch.testing.assert_close(out[:, 0], (gate * (aspects @ model.reward_transform_matrix)).sum(-1))
    torch.testing.assert_close(gate.sum(-1), torch.ones(len(gate)))
    assert gate.std(dim=1).min() > 1e-4
    (result,) = scorer.score([Group(PROMPT, ANSWERS)])
    np.testing.assert_allclose(result.scores, out[:, 0], rtol=1e-5, atol=1e-5)


def test_the_gate_of_a_decoder_reads_the_token_that_closes_the_prompt_and_not_the_answer(tmp_path):
    model, scorer = armorm(tmp_path, "llama", template=TEMPLATE)
    packed, arrays = arrays_of(scorer, Group(PROMPT, ANSWERS))
    for row, ids in zip(packed.rows, arrays["input_ids"], strict=True):
        assert ids[row.readout[0]] == model.layout.gate_pattern[0]
    with torch.no_grad():
        _, prompt = model.features(**arrays)
    torch.testing.assert_close(prompt, prompt[:1].expand_as(prompt), atol=1e-5, rtol=1e-5)


def test_saved_and_reloaded_it_scores_the_same_and_a_missing_gate_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    model, scorer = armorm(tmp_path)
    groups = [Group(PROMPT, ANSWERS), Group("Hi", ("a",))]
    native.save(model, scorer.pipeline.tokenizer, tmp_path / "saved")
    assert native.check_reload(scorer, tmp_path / "saved", groups) <= 1e-6
    tensors = load_file(tmp_path / "saved" / "model.safetensors")
    assert {"regression_layer.weight", "reward_transform_matrix", "gating.logit_scale"} <= set(tensors)
    del tensors["gating.layers.0.weight"]
    save_file(tensors, tmp_path / "saved" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"gating\.layers\.0\.weight' is missing"):
        native.load(tmp_path / "saved")
