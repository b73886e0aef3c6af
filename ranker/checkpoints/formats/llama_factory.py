"""LLaMA-Factory's reward stage: a language model, and its head (``v_head.summary``) in a file of its own.

Its scores are read at the last token of the mask. The language-model head is not part of a reward model.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat, Description
from ranker.checkpoints.report import CheckpointReport
from ranker.checkpoints.weights import KeyMap

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec, Source

HEAD: Final = "v_head.summary"
FILE: Final = "value_head.safetensors"
PICKLE: Final = "value_head.bin"
CAUSAL: Final = {"gpt2": "GPT2LMHeadModel", "gemma3_text": "Gemma3ForCausalLM"}
"""Language-model classes whose name does not follow from the classifier's."""


class LlamaFactory(CheckpointFormat):
    """A language model with a value head beside it."""

    name = "LLaMA-Factory value head"
    about = Description(
        producers="LLaMA-Factory v0",
        recognised_by="file `value_head.safetensors` or `value_head.bin`",
        head="`v_head.summary` in a file of its own",
        scored="last token of the mask",
    )
    target = "llama-factory"
    head_name = HEAD
    scored_state = "last_token"

    def matches(self, files: Files) -> bool:
        """By the head's file."""
        return files.has_file(FILE, PICKLE)

    def load(self, folder: Path, values: dict[str, Any], report: CheckpointReport) -> LoadSpec:
        """A classifier whose head is in the second file."""
        from ranker.checkpoints.formats.classifiers import classifier
        from ranker.checkpoints.formats.spec import StoredHead

        bias = f"{HEAD}.bias" in report.tensors
        spec = classifier(folder, values, replace(StoredHead.of(report), has_bias=bias))
        file = FILE if (folder / FILE).is_file() else PICKLE
        return replace(spec, names=KeyMap({HEAD: "score"}), extra=(file,))

    def write(self, source: Source, folder: Path) -> list[str]:
        """The folder as LLaMA-Factory's ``stage: rm`` reads it.

        Raises:
            CheckpointError: not a decoder with one output.
        """
        import torch
        from safetensors.torch import save_file

        from ranker.checkpoints.formats.spec import decoder_config, write

        base = type(source.model).__name__.replace("ForSequenceClassification", "ForCausalLM")
        values = decoder_config(source, "llama-factory", CAUSAL.get(source.config.model_type, base))
        values["tie_word_embeddings"] = True
        tensors = dict(source.tensors)
        weight = tensors.pop("score.weight")
        bias = tensors.pop("score.bias", torch.zeros(1, dtype=weight.dtype))
        write(replace(source, tensors=tensors), folder, KeyMap({}), values)
        head = {f"{HEAD}.weight": weight.contiguous(), f"{HEAD}.bias": bias.contiguous()}
        save_file(head, folder / FILE, {"format": "pt"})
        return ["a language-model head: it is tied to the embeddings in the new folder, and no reward reads it"]
