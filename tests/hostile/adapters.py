"""Adapter folders of peft whose settings or tensors ask for what no adapter needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from tests.hostile.checkpoints import JUNK, pipe, write

Change = Callable[[Path], None]
CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"


def setting(**changes: Any) -> Change:
    """Change settings of adapter_config.json."""

    def change(folder: Path) -> None:
        path = folder / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    """Change the adapter's tensors."""

    def changed(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS)

    return changed


def first(state: dict[str, torch.Tensor], part: str) -> str:
    """The first tensor whose name has a part."""
    return next(name for name in sorted(state) if part in name)


def base_of(content: dict[str, bytes]) -> Change:
    """A base model of these files."""

    def change(folder: Path) -> None:
        base = folder / "base"
        base.mkdir()
        for name, text in content.items():
            (base / name).write_bytes(text)
        setting(base_model_name_or_path=str(base))(folder)

    return change


SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "rank of a billion": {"r": 10**9},
    "rank of the largest number": {"r": 2**31 - 1},
    "rank too large": {"r": 4096},
    "rank as text": {"r": "8"},
    "no rank": {"r": 0},
    "negative rank": {"r": -8},
    "rank as list": {"r": [8]},
    "another rank": {"r": 4},
    "rank by pattern": {"rank_pattern": {"query": 10**9}},
    "pattern that takes for ever": {"rank_pattern": {"((((.+)+)+)+)+!": 8}},
    "pattern of alternatives": {"alpha_pattern": {"(a|b|t|e|r|.)*!": 8}},
    "pattern of many steps": {"rank_pattern": {".*" * 30 + "!": 8}},
    "patterns as list": {"rank_pattern": [1]},
    "alpha as text": {"lora_alpha": "x"},
    "alpha of a pattern as text": {"alpha_pattern": {"query": "x"}},
    "targets that take for ever": {"target_modules": "((((.+)+)+)+)+!"},
    "targets of many steps": {"target_modules": ".*" * 30 + "!"},
    "targets that are no pattern": {"target_modules": "((("},
    "targets as number": {"target_modules": 3},
    "targets of nothing": {"target_modules": []},
    "targets that are not there": {"target_modules": ["nothing"]},
    "exclusion that takes for ever": {"exclude_modules": "((((.+)+)+)+)+!"},
    "layers that take for ever": {"layers_to_transform": [0], "layers_pattern": "((((.+)+)+)+)+!"},
    "layers as text": {"layers_to_transform": "x"},
    "a million layers": {"layer_replication": [[0, 1_000_000]]},
    "a layer a million times": {"layer_replication": [[0, 1]] * 1_000_000},
    "a module to be imported": {"megatron_config": {"a": 1}, "megatron_core": "antigravity"},
    "unknown type": {"peft_type": "NOTHING"},
    "type as list": {"peft_type": ["LORA"]},
    "no type": {"peft_type": None},
    "another type": {"peft_type": "PROMPT_TUNING"},
    "no base": {"base_model_name_or_path": None},
    "base as list": {"base_model_name_or_path": ["a"]},
    "base as number": {"base_model_name_or_path": 3},
    "base of a device": {"base_model_name_or_path": "/dev/zero"},
    "base of a file": {"base_model_name_or_path": "/etc/passwd"},
    "base that is not there": {"base_model_name_or_path": "/nowhere"},
    "initial weights of nothing": {"init_lora_weights": "nothing"},
    "initial weights of data": {"init_lora_weights": "eva"},
    "initial weights as list": {"init_lora_weights": [1]},
    "scales that are not there": {"use_dora": True},
    "bias of nothing": {"bias": "nothing"},
    "whole modules that are not there": {"modules_to_save": ["nothing"]},
    "whole modules as number": {"modules_to_save": 3},
    "unknown setting": {"nothing_known": 3},
    "runtime as list": {"runtime_config": [1]},
    "parameters that are not there": {"target_parameters": ["nothing.weight"]},
    "tokens that are not there": {"trainable_token_indices": [10**8]},
    "task of nothing": {"task_type": "NOTHING"},
}

CHANGES: Final[dict[str, Change]] = {
    **{f"setting {name}": setting(**values) for name, values in SETTINGS.items()},
    **{f"adapter_config.json: {name}": write(CONFIG, content) for name, content in JUNK.items() if name != "large"},
    **{f"weights: {name}": write(WEIGHTS, content) for name, content in JUNK.items() if name != "large"},
    "weights: pipe": pipe(WEIGHTS),
    "weights: none": lambda folder: (folder / WEIGHTS).unlink(),
    "base: none of its files": base_of({}),
    "base: a million layers": base_of({"config.json": b'{"model_type": "bert", "num_hidden_layers": 1000000}'}),
    "base: list": base_of({"config.json": b"[]"}),
    "base: deep": base_of({"config.json": b"[" * 200_000}),
    "base: itself": lambda folder: setting(base_model_name_or_path=str(folder))(folder),
    "base: a kernel of the hub": base_of({"config.json": b'{"model_type": "bert", "attn_implementation": "a/b"}'}),
    "tensor: not finite": tensors(lambda state: state[first(state, "lora_A")].fill_(float("nan"))),
    "tensor: missing": tensors(lambda state: state.pop(first(state, "lora_B"))),
    "tensor: other width": tensors(lambda state: state.update({first(state, "lora_A"): torch.zeros(8, 7)})),
    "tensor: other rank": tensors(lambda state: state.update({first(state, "lora_A"): torch.zeros(3, 32)})),
    "tensor: empty": tensors(lambda state: state.update({first(state, "lora_A"): torch.zeros(0, 32)})),
    "tensor: numbers of another kind": tensors(
        lambda state: state.update({first(state, "lora_A"): torch.zeros(8, 32, dtype=torch.int64)})
    ),
    "tensor: of a layer that is not there": tensors(
        lambda state: state.update({first(state, "lora_A").replace("layer.0", "layer.9"): torch.zeros(8, 32)})
    ),
    "head: missing": tensors(lambda state: [state.pop(name) for name in list(state) if "classifier" in name]),
    "head: two outputs": tensors(lambda state: state.update({first(state, "classifier.weight"): torch.zeros(2, 32)})),
    "head: other width": tensors(lambda state: state.update({first(state, "classifier.weight"): torch.zeros(1, 31)})),
}
"""Changes of an adapter of 8 dimensions on a BERT of 32 with a head of one output."""
