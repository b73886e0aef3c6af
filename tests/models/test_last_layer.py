"""The last layer, computed for the read tokens alone, gives what the library's own gives for all tokens."""

import pytest
import torch
from transformers import AutoConfig

from ranker.models import backbones
from ranker.models.attention import last_layer
from ranker.models.attention.blocks import row_mask
from ranker.models.attention.reading import Reading
from ranker.models.torch_scorer import TorchScorer
from tests.conftest import backbone_config, tiny
from tests.models.test_padding_free import arrays_of
from tests.models.test_reward import FAMILIES, trained

ENCODERS = [family for family in FAMILIES if family in backbones.FAMILIES]


def same_states_and_gradients(backbone, arrays, mask, reading):
    """Compare with all states, of which those of ``reading`` are taken; returns the shape of the states."""
    read = (arrays["input_ids"], arrays["block_ids"], arrays["position_ids"], mask, arrays.get("members"))
    results = []
    for alone in (True, False):
        backbone.zero_grad()
        states = (
            backbones.encode(backbone, *read, reading) if alone else reading.of(backbones.encode(backbone, *read, None))
        )
        (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
        results.append(
            (states, {name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None})
        )
    (one, gradients), (other, expected) = results
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-3, rtol=1e-3, msg=name)
    return one.shape


@pytest.mark.parametrize("family", ENCODERS)
def test_reward_models(family, tmp_path):
    _, scorer = trained(tmp_path, family)
    arrays = arrays_of(scorer.model, scorer.pipeline)
    shape = same_states_and_gradients(scorer.model.base_model, arrays, row_mask(arrays["block_ids"]), Reading())
    assert shape[1] == 1
    assert last_layer.reads_alone(scorer.model.base_model, family) == (family != "modernbert")


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "mpnet", "modernbert"])
@pytest.mark.parametrize("layout", ["set_encoder", "shared_prompt", "ordered_pair"])
def test_pair_rankers(layout, family):
    model, tokenizer = tiny(layout, family=family)
    arrays = arrays_of(model.eval(), TorchScorer(model, tokenizer).pipeline)
    reading = model.readout.reading(arrays.get("readout"))
    shape = same_states_and_gradients(model.backbone, arrays, model.readout.mask(arrays["block_ids"]), reading)
    assert shape[1] == (1 if layout == "set_encoder" else arrays["readout"].shape[1])


@pytest.mark.parametrize("layout", ["set_encoder", "ordered_pair"])
def test_rows_without_padding(layout):
    model, tokenizer = tiny(layout)
    arrays = arrays_of(model.eval(), TorchScorer(model, tokenizer).pipeline)
    backbones.read_without_padding(model)
    reading = model.readout.reading(arrays.get("readout"))
    assert backbones.reads_packed(model.backbone)
    same_states_and_gradients(model.backbone, arrays, None, reading)


def test_the_last_layer_keeps_the_name_by_which_libraries_shard_it():
    model, _ = tiny("set_encoder")
    first, *_, last = model.backbone.encoder.layer
    assert type(last) is not type(first)
    assert type(last).__name__ == type(first).__name__ == "BertLayer"
    assert isinstance(last, type(first))


def test_the_last_layer_computes_few_tokens():
    model, tokenizer = tiny("set_encoder")
    seen = {}
    for number in (0, -1):
        layer = model.backbone.encoder.layer[number]
        layer.output.dense.register_forward_hook(lambda _, inputs, out, number=number: seen.update({number: out.shape}))
    arrays = arrays_of(model.eval(), TorchScorer(model, tokenizer).pipeline)
    model(**arrays)
    rows, length = arrays["input_ids"].shape
    assert seen[0][:2] == (rows, length)
    assert seen[-1][:2] == (rows, 1)


@pytest.mark.parametrize("family", last_layer.LAST_LAYERS)
def test_a_model_of_a_single_layer(family):
    config = AutoConfig.for_model(**backbone_config(family) | {"num_hidden_layers": 1, "n_layers": 1})
    ids, blocks = torch.randint(5, 50, (2, 9)), torch.tensor([[0] * 9, [0] * 6 + [-1] * 3])
    arrays = {"input_ids": ids, "block_ids": blocks, "position_ids": torch.arange(9).repeat(2, 1) + 2}
    backbone = backbones.build(config).eval()
    assert last_layer.reads_alone(backbone, family)
    assert same_states_and_gradients(backbone, arrays, row_mask(blocks), Reading())[1] == 1


def test_a_convolution_in_a_single_layer_reads_all_tokens():
    two_layers, _ = tiny("set_encoder", family="deberta-v2")
    shape = two_layers.config.backbone_config().to_dict() | {"conv_kernel_size": 3, "conv_act": "gelu"}
    for layers in (1, 2):
        backbone = backbones.build(AutoConfig.for_model(**shape | {"num_hidden_layers": layers}))
        assert last_layer.reads_alone(backbone, "deberta-v2") == (layers == 2)
        ids, blocks = torch.randint(5, 50, (2, 9)), torch.tensor([[0] * 9, [0] * 6 + [-1] * 3])
        arrays = {"input_ids": ids, "block_ids": blocks, "position_ids": torch.arange(9).repeat(2, 1)}
        assert same_states_and_gradients(backbone.eval(), arrays, row_mask(blocks), Reading())[1] == 1
