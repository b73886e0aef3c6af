"""Runs in OpenRLHF's environment (``make peers``): trains a reward model, saves it and scores rows, with its own code.

python run_openrlhf.py FOLDER

FOLDER holds ``base`` (a backbone and its tokenizer) and ``task.json``: ``rows``, ``steps``, ``head``, ``lora``.
Written: ``FOLDER/model`` and ``FOLDER/scores.json``. flash-attn needs CUDA to install; nothing here calls it.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

from absent import absent

absent("flash_attn", "flash_attn.bert_padding", "flash_attn.utils", "flash_attn.utils.distributed")

import torch
from datasets import Dataset
from openrlhf.cli.serve_rm import RewardModelProxy
from openrlhf.datasets.reward_dataset import RewardDataset
from openrlhf.models import PairWiseLoss, get_llm_for_sequence_regression
from openrlhf.utils import get_tokenizer
from openrlhf.utils.deepspeed import deepspeed as strategies


def reward_model(folder: Path, **options: object) -> torch.nn.Module:
    """Its model in fp32 on weights that it rounded to bf16."""
    return get_llm_for_sequence_regression(
        str(folder), "reward", attn_implementation="eager", param_dtype="bf16", **options
    ).float()


def reward_dataset(rows: list[dict], tokenizer: object) -> RewardDataset:
    """Its dataset of whole conversations."""
    data = types.SimpleNamespace(
        prompt_key=None, chosen_key="chosen", rejected_key="rejected", apply_chat_template=True
    )
    strategy = types.SimpleNamespace(args=types.SimpleNamespace(data=data))
    return RewardDataset(Dataset.from_list(rows), tokenizer, 512, strategy, num_processors=1)


def save(model: torch.nn.Module, tokenizer: object, folder: Path) -> None:
    """As its trainer saves, on one process and without CUDA."""
    strategies.torch_dist_barrier_and_cuda_sync = lambda: None
    alone = types.SimpleNamespace(
        is_rank_0=lambda: True,
        _unwrap_model=lambda wrapped: wrapped,
        stage=0,
        ds_tensor_parallel_size=1,
        args=types.SimpleNamespace(ds=types.SimpleNamespace(zero_stage=0, tensor_parallel_size=1)),
    )
    strategies.DeepspeedStrategy.save_model(alone, model, tokenizer, str(folder))


def served_model(folder: Path, head: str) -> RewardModelProxy:
    """Its server's model."""
    sections = {
        "reward": {"model_name_or_path": str(folder), "normalize_enable": False},
        "ds": {
            "attn_implementation": "eager",
            "experts_implementation": None,
            "param_dtype": "bf16",
            "load_in_4bit": False,
            "value_head_prefix": head,
            "packing_samples": False,
        },
        "data": {"max_len": 2048, "disable_fast_tokenizer": False},
    }
    named = {name: types.SimpleNamespace(**section) for name, section in sections.items()}
    return RewardModelProxy(types.SimpleNamespace(**named, batch_size=4))


def main(folder: Path) -> None:
    """Train, save, score."""
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    torch.manual_seed(0)
    lora = {"lora_rank": 4, "lora_alpha": 64, "target_modules": "all-linear"} if task["lora"] else {}
    model = reward_model(folder / "base", init_value_head=not task["lora"], value_head_prefix=task["head"], **lora)
    tokenizer = get_tokenizer(str(folder / "base"), model, "left")
    dataset = reward_dataset(task["rows"], tokenizer)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=task["learning_rate"])
    loss_function = PairWiseLoss()
    model.train()
    for _ in range(task["steps"]):
        chosen, chosen_mask, rejected, rejected_mask, _ = dataset.collate_fn([dataset[i] for i in range(8)])
        loss = loss_function(model(chosen, chosen_mask), model(rejected, rejected_mask))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    written = model if task["lora"] else model.bfloat16()
    save(written, tokenizer, folder / "model")

    if task["lora"]:  # its server reads whole models only
        proxy = object.__new__(RewardModelProxy)
        proxy.reward_model, proxy.tokenizer, proxy.max_length, proxy.batch_size = model, tokenizer, 2048, 4
    else:
        proxy = served_model(folder / "model", task["head"])
    scorer = proxy.reward_model.float().eval()
    scores = []
    with torch.no_grad():
        for i in range(len(dataset)):
            chosen, mask, *_ = dataset[i]
            scores.append({"score": scorer(chosen, mask).item(), "ids": chosen[0].tolist()})
    texts = [tokenizer.apply_chat_template(row["chosen"], tokenize=False) for row in task["rows"]]
    served = proxy.get_reward(texts)
    for row, score, text in zip(scores, served, texts, strict=True):
        row |= {"served": score, "text": text}
    (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
