"""Runs in LLaMA-Factory's environment (``make peers``): its reward stage trains, saves and scores, with its own code.

python run_llama_factory.py FOLDER

FOLDER holds ``base`` (a language model and its tokenizer) and ``task.json``: ``rows``, ``template``, ``lora``.
Written: ``FOLDER/model``, ``FOLDER/merged`` (after LoRA) and ``FOLDER/scores.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from absent import absent

absent("torchaudio")

from llamafactory.chat import ChatModel
from llamafactory.train.tuner import export_model, run_exp

TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


def write_dataset(folder: Path, rows: list[dict]) -> None:
    """Its ranking rows and their table."""
    lines = [
        {"messages": row["chosen"][:-1], "chosen": row["chosen"][-1], "rejected": row["rejected"][-1]} for row in rows
    ]
    (folder / "rows.json").write_text(json.dumps(lines), encoding="utf-8")
    columns = {"messages": "messages", "chosen": "chosen", "rejected": "rejected"}
    table = {"file_name": "rows.json", "ranking": True, "formatting": "sharegpt", "columns": columns}
    table["tags"] = {**TAGS, "system_tag": "system"}
    (folder / "dataset_info.json").write_text(json.dumps({"rows": table}), encoding="utf-8")


def main(folder: Path) -> None:
    """Train, save, score."""
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    write_dataset(folder, task["rows"])
    model = {"model_name_or_path": str(folder / "base"), "template": task["template"], "stage": "rm"}
    kind = (
        {"finetuning_type": "lora", "lora_rank": 4, "lora_alpha": 64} if task["lora"] else {"finetuning_type": "full"}
    )
    training = {
        "do_train": True,
        "dataset": "rows",
        "dataset_dir": str(folder),
        "output_dir": str(folder / "model"),
        "overwrite_output_dir": True,
        "max_steps": task["steps"],
        "learning_rate": task["learning_rate"],
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "preprocessing_num_workers": 1,
    }
    run_exp({**model, **kind, **training})
    if task["lora"]:
        scored = {**model, "adapter_name_or_path": str(folder / "model"), "finetuning_type": "lora"}
        export_model({**scored, "export_dir": str(folder / "merged"), "infer_dtype": "float32"})
    else:
        scored = {**model, "model_name_or_path": str(folder / "model")}
    chat = ChatModel({**scored, "infer_backend": "huggingface", "infer_dtype": "float32"})
    tokenizer = chat.engine.tokenizer
    texts = [tokenizer.apply_chat_template(row["chosen"], tokenize=False) for row in task["rows"]]
    scores = [float(score) for score in chat.get_scores(texts)]
    lines = [{"score": score, "text": text} for score, text in zip(scores, texts, strict=True)]
    (folder / "scores.json").write_text(json.dumps(lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
