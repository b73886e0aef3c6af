"""Checkpoints that OpenRLHF and LLaMA-Factory themselves train, save and score, in their own environments."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Model,
)

from tests.conftest import ROOT
from tests.references.conversations import Turn
from tests.references.producers import CHATML, ROWS, Produced, bert, bert_tokenizer, decoder
from tests.references.rerankers import PAIRS, Reranker
from tests.references.tokenizers import tokenizer_for

HERE = Path(__file__).parent
ENVIRONMENTS = ROOT / "build" / "peers"
STEPS = {"steps": 2, "learning_rate": 1e-2}


def python_of(peer: str) -> Path:
    """The interpreter of an environment that ``make peers`` makes."""
    return ENVIRONMENTS / peer / "bin" / "python"


def run(peer: str, folder: Path, task: dict[str, Any]) -> None:
    """The peer's script on a folder."""
    (folder / "task.json").write_text(json.dumps({**STEPS, **task}), encoding="utf-8")
    script = HERE / f"run_{peer}.py"
    process = subprocess.run([python_of(peer), script, folder], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-3000:]


def rows_of(conversations: Sequence[Sequence[Turn]]) -> list[dict[str, Any]]:
    """Each conversation preferred to one that ends in another answer."""
    return [
        {"chosen": list(turns), "rejected": [*turns[:-1], {"role": "assistant", "content": "No idea."}]}
        for turns in conversations
    ]


def scores_of(folder: Path, conversations: Sequence[Sequence[Turn]]) -> Callable[[Sequence[Turn]], float | None]:
    """What the peer's code said, by conversation."""
    lines = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    table = {repr(list(turns)): line["score"] for turns, line in zip(conversations, lines, strict=True)}
    return lambda turns: table.get(repr(list(turns)))


def openrlhf(tmp: Path, *, lora: bool = False, head: str = "value_head") -> Produced:
    """OpenRLHF's reward model, or an adapter that it trains on all linear layers of one, the head included."""
    folder = tmp / "openrlhf"
    folder.mkdir()
    tokenizer = tokenizer_for("qwen", CHATML)
    tokenizer.eos_token = "<|im_end|>"
    torch.manual_seed(0)
    Qwen2Model(decoder(len(tokenizer) + 8)).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    run("openrlhf", folder, {"rows": rows_of(ROWS), "head": head, "lora": False})
    if lora:
        adapted = tmp / "openrlhf-lora"
        shutil.copytree(folder / "model", adapted / "base")
        folder = adapted
        run("openrlhf", folder, {"rows": rows_of(ROWS), "head": head, "lora": True})
    return Produced(folder / "model", scores_of(folder, ROWS))


SPOKEN = tuple(turns for turns in ROWS if turns[0]["role"] != "developer" and all(turn["content"] for turn in turns))
"""Conversations that LLaMA-Factory's reader keeps: it knows no developer and drops rows with an empty turn."""


def llama_factory(tmp: Path, *, template: str = "qwen", lora: bool = False, merged: bool = False) -> Produced:
    """LLaMA-Factory's reward stage under one of its templates; with LoRA, also what its export merges."""
    kind, config, family = (
        ("qwen", Qwen2Config, Qwen2ForCausalLM) if template == "qwen" else ("llama3", LlamaConfig, LlamaForCausalLM)
    )
    folder = tmp / "llama_factory"
    folder.mkdir()
    tokenizer = tokenizer_for(kind, None)
    torch.manual_seed(0)
    family(decoder(len(tokenizer) + 16, config)).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    run("llama_factory", folder, {"rows": rows_of(SPOKEN), "template": template, "lora": lora})
    return Produced(folder / ("merged" if merged else "model"), scores_of(folder, SPOKEN))


def cross_encoder(tmp: Path, *, decodes: bool = False) -> Reranker:
    """A CrossEncoder of version 5.1, which knows no chat templates: every pair is read by the pair template."""
    folder = tmp / "sentence_transformers"
    folder.mkdir()
    torch.manual_seed(0)
    if decodes:
        tokenizer = tokenizer_for("llama3", CHATML, bos=True)
        config = decoder(len(tokenizer) + 8, LlamaConfig, pad_token_id=tokenizer.pad_token_id)
        LlamaForSequenceClassification(config).save_pretrained(folder / "base")
    else:
        tokenizer = bert_tokenizer()
        BertForSequenceClassification(bert(len(tokenizer))).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    settings = folder / "base" / "tokenizer_config.json"
    values = json.loads(settings.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    values.pop("backend", None)  # transformers 4 has one
    settings.write_text(json.dumps(values), encoding="utf-8")
    run("sentence_transformers", folder, {"pairs": PAIRS})
    lines = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    table = dict(zip(PAIRS, lines, strict=True))
    return Reranker(
        folder / "model", lambda pairs: [table[pair]["score"] for pair in pairs], lambda pair: table[pair]["ids"]
    )


CROSS_ENCODERS: dict[str, Callable[[Path], Reranker]] = {
    "sentence-transformers 5.1 CrossEncoder, BERT": cross_encoder,
    "sentence-transformers 5.1 CrossEncoder, decoder": lambda tmp: cross_encoder(tmp, decodes=True),
}

VERSIONS = {"OpenRLHF": "0.11.2", "LLaMA-Factory": "0.9.5", "sentence-transformers 5.1": "5.1.2"}
"""What ``make peers`` installs."""

PEERS: dict[str, Callable[[Path], Produced]] = {
    "OpenRLHF: whole model": openrlhf,
    "OpenRLHF: LoRA, the head adapted too": lambda tmp: openrlhf(tmp, lora=True, head="score"),
    "LLaMA-Factory: template qwen": llama_factory,
    "LLaMA-Factory: template llama3, LoRA": lambda tmp: llama_factory(tmp, template="llama3", lora=True),
    "LLaMA-Factory: template llama3, merged": lambda tmp: llama_factory(tmp, template="llama3", lora=True, merged=True),
}
