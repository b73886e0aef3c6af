"""GRPO in TRL with a ranker as reward.

    python examples/trl_grpo.py MODEL.onnx                                  # a tiny random policy: minutes on a CPU
    python examples/trl_grpo.py MODEL.onnx --policy Qwen/Qwen3-0.6B --steps 500

With a model that compares answers (pairrm), the reward of a completion is the share of the prompt's other completions
that it beats. With a pointwise model (encoder-bradley-terry, ...), it is the score.
"""

import argparse

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer

import ranker
from ranker.extras import offline_backbone
from ranker.integrations.trl import reward_function

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="a model.onnx or a checkpoint folder")
parser.add_argument("--policy", help="a causal language model; default: a tiny one of random weights")
parser.add_argument("--steps", type=int, default=4)
parser.add_argument("--output", default="runs/grpo")
options = parser.parse_args()

if options.policy:
    policy = AutoModelForCausalLM.from_pretrained(options.policy)
    tokenizer = AutoTokenizer.from_pretrained(options.policy)
else:
    tokenizer = AutoTokenizer.from_pretrained(offline_backbone())
    tokenizer.eos_token = tokenizer.sep_token
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    policy = Qwen3ForCausalLM(config)

compares = ranker.load(options.model).info.scores_are_relative
reward = reward_function(options.model, mode="win_rate" if compares else "score", name="helpful")
prompts = [{"prompt": f"What is {a} + {b}?"} for a in range(4) for b in range(4)]
trainer = GRPOTrainer(
    model=policy,
    reward_funcs=[reward],
    args=GRPOConfig(
        output_dir=options.output,
        max_steps=options.steps,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=16,
        logging_steps=1,
        save_strategy="no",
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
    ),
    train_dataset=Dataset.from_list(prompts),
    processing_class=tokenizer,
)
trainer.train()
for step in trainer.state.log_history:
    if "reward" in step:
        print(f"step {step['step']}: mean reward {step['reward']:.3f}, its deviation {step['reward_std']:.3f}")
