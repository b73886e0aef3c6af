#!/usr/bin/env bash
# GRPO in verl 0.9 on 4 GPUs, with a ranker as reward; its CPUs or another machine score (see reward.py).
set -euo pipefail
cd "$(dirname "$0")/../.."
export RANKER_MODEL=${RANKER_MODEL:-$PWD/runs/pairrm/model.onnx} ROLLOUTS=${ROLLOUTS:-8}
python examples/verl/rows.py data/train.jsonl runs/verl/train.parquet
python examples/verl/rows.py data/validation.jsonl runs/verl/validation.parquet

# All completions of a prompt come to one worker, in training and in validation.
python -m verl.trainer.main_ppo \
    algorithm.adv_estimator=grpo \
    data.train_files=runs/verl/train.parquet \
    data.val_files=runs/verl/validation.parquet \
    data.train_batch_size=128 \
    data.max_prompt_length=512 \
    data.max_response_length=512 \
    actor_rollout_ref.model.path="${POLICY:-Qwen/Qwen3-0.6B}" \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=64 \
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8 \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.n="$ROLLOUTS" \
    actor_rollout_ref.rollout.val_kwargs.n="$ROLLOUTS" \
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8 \
    actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8 \
    reward.num_workers=1 \
    reward.custom_reward_function.path=examples/verl/reward.py \
    reward.custom_reward_function.name=compute_score \
    trainer.n_gpus_per_node=4 \
    trainer.nnodes=1 \
    trainer.total_epochs=1 \
    trainer.logger='["console"]'
