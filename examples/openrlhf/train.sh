#!/usr/bin/env bash
# PPO in OpenRLHF 0.11 on 8 GPUs, with the reward of a ranker on the CPUs. For one that runs beside the trainer on another
# machine: ranker serve --model MODEL.onnx --host 0.0.0.0, and --reward.remote_url http://HOST:8000/get_reward
set -euo pipefail
cd "$(dirname "$0")/../.."
export RANKER_MODEL=${RANKER_MODEL:-$PWD/runs/encoder-bradley-terry/model.onnx}

ray job submit --address="${RAY_ADDRESS:-http://127.0.0.1:8265}" \
    --runtime-env-json="{\"env_vars\": {\"RANKER_MODEL\": \"$RANKER_MODEL\"}}" \
    -- python3 -m openrlhf.cli.train_ppo_ray \
    --actor.model_name_or_path "${POLICY:-Qwen/Qwen3-4B}" \
    --reward.remote_url "$PWD/examples/openrlhf/reward.py" \
    --reward.normalize_enable \
    --data.prompt_dataset "${PROMPTS:-OpenRLHF/prompt-collection-v0.1}" \
    --data.input_key context_messages \
    --data.apply_chat_template \
    --data.max_len 2048 \
    --data.max_samples 100000 \
    --actor.num_nodes 1 \
    --actor.num_gpus_per_node 4 \
    --ref.num_nodes 1 \
    --ref.num_gpus_per_node 4 \
    --critic.num_nodes 1 \
    --critic.num_gpus_per_node 2 \
    --train.colocate_actor_ref \
    --vllm.num_engines 2 \
    --vllm.tensor_parallel_size 1 \
    --rollout.batch_size 1024 \
    --rollout.micro_batch_size 16 \
    --train.batch_size 128 \
    --train.micro_batch_size 8 \
    --train.max_epochs 1 \
    --actor.adam.lr 5e-7 \
    --critic.adam.lr 9e-6 \
    --algo.kl.init_coef 0.01 \
    --ds.zero_stage 3 \
    --ds.param_dtype bf16 \
    --ds.packing_samples \
    --actor.gradient_checkpointing_enable \
    --ckpt.output_dir runs/openrlhf
