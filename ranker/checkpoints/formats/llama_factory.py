"""LLaMA-Factory's reward stage: a language model, and its head (``v_head.summary``) in a separate file.

Scores are read at the last token of the mask. The language-model head is not part of a reward model.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from ranker.checkpoints.formats.classifiers import classifier
from ranker.checkpoints.formats.spec import Facts, LoadSpec, Source, decoder_config, write
from ranker.checkpoints.weights import KeyMap

HEAD: Final = "v_head.summary"
FILE: Final = "value_head.safetensors"
PICKLE: Final = "value_head.bin"
CAUSAL: Final = {"gpt2": "GPT2LMHeadModel", "gemma3_text": "Gemma3ForCausalLM"}
"""Language-model classes whose names do not follow from the classifier's name."""


def read(folder: Path, values: dict[str, Any], facts: Facts) -> LoadSpec:
    """A language model with a value head beside it."""
    spec = classifier(folder, values, facts, bias=f"{HEAD}.bias" in facts["tensors"])
    file = FILE if (folder / FILE).is_file() else PICKLE
    note = ("the language-model head is left out, because a reward model has no such head",) if has_words(facts) else ()
    names = KeyMap({HEAD: "score"}, ("lm_head.",))
    return replace(spec, names=names, extra=(file,), notes=(*spec.notes, *note))


def has_words(facts: Facts) -> bool:
    """Whether a language-model head is among the tensors."""
    return any(name.startswith("lm_head.") for name in facts["tensors"])


def write_model(source: Source, folder: Path) -> list[str]:
    """The folder as LLaMA-Factory's ``stage: rm`` reads it.

    Raises:
        CheckpointError: not a decoder with one output.
    """
    base = type(source.model).__name__.replace("ForSequenceClassification", "ForCausalLM")
    values = decoder_config(source, "llama-factory", CAUSAL.get(source.config.model_type, base))
    values["tie_word_embeddings"] = True
    tensors = dict(source.tensors)
    weight = tensors.pop("score.weight")
    bias = tensors.pop("score.bias", torch.zeros(1, dtype=weight.dtype))
    write(Source(source.model, source.tokenizer, tensors), folder, KeyMap({}), values)
    head = {f"{HEAD}.weight": weight.contiguous(), f"{HEAD}.bias": bias.contiguous()}
    save_file(head, folder / FILE, {"format": "pt"})
    return ["a language-model head: it is tied to the embeddings in the new folder, and no reward reads it"]
