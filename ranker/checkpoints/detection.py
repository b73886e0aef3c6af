"""What a checkpoint's files say before any weight is read: its configuration, its tensors' names, its head.

Nothing here loads weights or needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

EMBEDDINGS: Final = (
    "embed_tokens.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "wte.weight",
    "shared.weight",
)

DECODER_EMBEDDINGS: Final = ("embed_tokens.weight", "wte.weight")
"""Ends of the names that decoders give their embeddings."""

MOST_OUTPUTS: Final = 64
"""Rows that a head may have, to be told from other matrices."""

WRAPPERS: Final = ("base_model.model.", "pretrained_model.", "module.", "_orig_mod.", "_fsdp_wrapped_module.")
"""Beginnings that wrappers put before names: peft, PairRM and trl's value heads, parallel training, torch.compile."""

LAYERS: Final = ("layers", "layer", "h", "blocks", "block")
"""Names of the lists of a backbone's layers."""

HEAD_NAMES: Final = (
    "score",
    "classifier",
    "value_head",
    "v_head",
    "v_head.summary",
    "reward_head",
    "regression_head",
    "regression_layer",
    "classifier.out_proj",
    "classification_head.out_proj",
    "head.out",
    "head_layer.4",
)
"""Modules that give the outputs, as the producers name them."""


@dataclass(frozen=True, slots=True)
class Files:
    """What a folder holds: configuration, names of its files, and its tensors' shapes (values may be absent)."""

    config: Mapping[str, Any]
    names: frozenset[str]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        """The class that the configuration names."""
        return str((self.config.get("architectures") or [""])[0])

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs: ``id2label``, or ArmoRM's aspects in our own folders; empty if neither is there."""
        return tuple((self.config.get("id2label") or {}).values()) or tuple(self.config.get("aspects") or ())

    @property
    def is_decoder(self) -> bool:
        """Whether the embeddings have a decoder's name."""
        return any(name.endswith(DECODER_EMBEDDINGS) for name in self.shapes)

    def has_tensor(self, *prefixes: str) -> bool:
        """Whether a tensor's name begins with one of these."""
        return any(bare(name).startswith(prefixes) for name in self.shapes)

    def has_file(self, *names: str) -> bool:
        """Whether the folder has one of these files."""
        return not self.names.isdisjoint(names)


def bare(stored: str) -> str:
    """A tensor's name without what peft and wrappers of the library put before and into it."""
    for wrapper in WRAPPERS:
        stored = stored.removeprefix(wrapper)
    return stored.replace(".modules_to_save.default", "")


def head_of(files: Files, *, prefix: str | None = None) -> str | None:
    """The name of the module that gives the outputs; None if the checkpoint has no head.

    Args:
        files: the checkpoint's.
        prefix: the head's name, and no other. Otherwise the configuration's ``value_head_prefix`` comes first.
    """
    modules = {bare(name).removesuffix(".weight") for name, s in files.shapes.items() if name.endswith(".weight") and s}
    configured = files.config.get("value_head_prefix")
    candidates = [prefix] if prefix else [*([configured] if configured else []), *HEAD_NAMES]
    return next((name for name in candidates if name in modules), None)


def candidates_for_head(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Tensors that may be a head: few rows over the hidden size outside of the layers, or a telling name."""
    return [
        name
        for name, shape in shapes.items()
        if len(shape) == 2
        and shape[0] <= MOST_OUTPUTS
        and "embed" not in name
        and not any(before in LAYERS and part.isdigit() for before, part in pairwise(name.split(".")))
        and (shape[0] < shape[1] or "head" in name or "score" in name)
    ][:5]
