"""Prompts as rows for verl: a Parquet file whose ``extra_info`` holds the prompt, which verl does not pass to rewards.

python examples/verl/rows.py data/train.jsonl runs/verl/train.parquet
"""

import sys
from pathlib import Path

from datasets import Dataset

source, target = map(Path, sys.argv[1:3])
prompts = dict.fromkeys(Dataset.from_json(str(source))["prompt"])
rows = [
    {
        "data_source": source.stem,
        "prompt": [{"role": "user", "content": prompt}],
        "reward_model": {"style": "model", "ground_truth": ""},
        "extra_info": {"prompt": prompt},
    }
    for prompt in prompts
]
target.parent.mkdir(parents=True, exist_ok=True)
Dataset.from_list(rows).to_parquet(str(target))
print(f"{target}: {len(rows)} prompts")
