"""A few real GRPO and RLOO steps of a tiny policy with our rewards."""

import datasets
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import ranker
from ranker.integrations import trl
from tests.conftest import tokenizer_json


@pytest.fixture
def policy():
    torch.manual_seed(0)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[SEP]", "bos_token": "[CLS]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer_json()), **names)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    return LlamaForCausalLM(config), tokenizer


@pytest.mark.parametrize(("algorithm", "mode"), [("GRPO", "score"), ("GRPO", "win_rate"), ("RLOO", "bradley_terry")])
def test_steps_on_our_rewards(model, policy, tmp_path, algorithm, mode):
    import trl as library

    config, trainer_class = getattr(library, f"{algorithm}Config"), getattr(library, f"{algorithm}Trainer")
    network, tokenizer = policy
    reward, seen = trl.reward_function(model, mode=mode, name="helpful"), []

    def watched(prompts, completions, **kwargs):
        returned = reward(prompts, completions, **kwargs)
        seen.append((list(prompts), list(completions), returned))
        return returned

    watched.__name__ = reward.__name__
    before = {name: value.clone() for name, value in network.named_parameters()}
    trainer = trainer_class(
        model=network,
        reward_funcs=[watched],
        args=config(
            output_dir=str(tmp_path),
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=6,
            max_steps=2,
            learning_rate=0.1,
            beta=0.0,
            report_to=[],
            use_cpu=True,
            bf16=False,
            logging_steps=1,
            save_strategy="no",
        ),
        train_dataset=datasets.Dataset.from_list([{"prompt": "which are tools"}, {"prompt": "say hi"}] * 4),
        processing_class=tokenizer,
    )
    trainer.train()
    assert len(seen) == 2
    prompts, completions, returned = seen[0]
    assert len(set(prompts)) == 2
    for prompt in set(prompts):
        place = [i for i, other in enumerate(prompts) if other == prompt]
        scores = ranker.load(model).score(prompt, [completions[i] for i in place])
        rewards = np.array(returned)[place]
        if mode == "score":
            np.testing.assert_allclose(rewards, scores, atol=1e-5)
        for i, j in np.argwhere(scores[:, None] > scores[None, :] + 1e-4):
            assert rewards[i] > rewards[j]
    logged = [row for row in trainer.state.log_history if "rewards/helpful/mean" in row]
    assert logged[0]["rewards/helpful/mean"] == pytest.approx(np.mean(returned), abs=1e-4)
    assert any((value != before[name]).any() for name, value in network.named_parameters())
