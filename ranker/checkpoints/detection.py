"""The known checkpoint formats: how each is recognised from its files, and where it keeps its head.

One entry per producer; this module loads no weights and needs no torch. Source: the producers' savers and loaders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Scored = Literal["first_token", "mean", "last_token", "last_nonpad", "markers", "answer_token", "unknown"]
"""The state that the head reads. ``last_nonpad`` is the rule of transformers: the last id that is not padding."""

EMBEDDINGS: Final = (
    "embed_tokens.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "wte.weight",
    "shared.weight",
)

MOST_OUTPUTS: Final = 64
"""Most rows of a head, which separates it from other matrices."""

WRAPPERS: Final = ("base_model.model.", "pretrained_model.", "module.")
"""Prefixes of names from wrappers: peft, PairRM and trl's value heads, data-parallel training."""

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
"""The producers' names of the module that gives the outputs."""


@dataclass(frozen=True, slots=True)
class Files:
    """The contents of a folder: its configuration, the names of its files, and its tensors' shapes."""

    config: Mapping[str, Any]
    names: frozenset[str]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        """The first class in the configuration."""
        return str((self.config.get("architectures") or [""])[0])

    def has(self, *prefixes: str) -> bool:
        """Whether a tensor's name begins with one of these."""
        return any(name.startswith(prefixes) for name in self.shapes)


@dataclass(frozen=True, slots=True)
class Format:
    """A producer's format: how to recognise it, the state its head reads, and whether it is native or readable."""

    name: str
    matches: Callable[[Files], bool]
    scored: Callable[[Files], Scored]
    native: bool = False
    readable: bool = True


def _ours(files: Files) -> Scored:
    return str((files.config.get("ranker") or {}).get("pooling", "unknown"))  # type: ignore[return-value]


def _classifier(files: Files) -> Scored:
    decoder = "score.weight" in files.shapes
    pooled = files.config.get("classifier_pooling")
    return "last_nonpad" if decoder else "mean" if pooled == "mean" else "first_token"


FORMATS: Final[tuple[Format, ...]] = (
    Format("ranker adapter", lambda f: "ranker_adapter.json" in f.names, lambda _: "unknown", native=True),
    Format(
        "LLaMA-Factory value head",
        lambda f: _any(f, "value_head.safetensors", "value_head.bin"),
        lambda _: "last_token",
    ),
    Format("PEFT adapter", lambda f: "adapter_config.json" in f.names, lambda _: "unknown"),
    Format(
        "ranker pairwise", lambda f: f.config.get("model_type") == "ranker_pairwise", lambda _: "markers", native=True
    ),
    Format(
        "ranker gated",
        lambda f: f.config.get("model_type") == "ranker_gated",
        lambda f: f.config["pooling"],
        native=True,
    ),
    Format(
        "ranker seq2seq",
        lambda f: (f.config.get("ranker") or {}).get("head") == "answer_token",
        lambda _: "answer_token",
        native=True,
    ),
    Format("ranker reward", lambda f: "ranker" in f.config, _ours, native=True),
    Format(
        "LLM-Blender PairRM",
        lambda f: f.config.get("ranker_type") == "pairranker" or f.has("head_layer."),
        lambda _: "markers",
    ),
    Format(
        "ArmoRM",
        lambda f: f.architecture.endswith("WithGating") or (f.has("regression_layer.") and f.has("gating.")),
        lambda _: "last_nonpad",
    ),
    Format("trlx", lambda f: f.has("v_head.weight"), lambda _: "last_nonpad"),
    Format(
        "OpenRLHF",
        lambda f: (
            f.architecture in ("RewardModel", "LLMForSequenceRegression")
            or "value_head_prefix" in f.config
            or f.has("value_head.")
        ),
        lambda _: "last_token",
    ),
    Format(
        "HF token classification", lambda f: f.architecture.endswith("ForTokenClassification"), lambda _: "last_token"
    ),
    Format("sentence-transformers CrossEncoder", lambda f: "sentence_transformers" in f.config, _classifier),
    Format("HF sequence classification", lambda f: f.architecture.endswith("ForSequenceClassification"), _classifier),
    Format(
        "T5 (SteamSHP)",
        lambda f: f.architecture in ("T5ForConditionalGeneration", "EncoderDecoderModel"),
        lambda _: "answer_token",
    ),
    Format(
        "language model without a head",
        lambda f: f.architecture.endswith(("ForCausalLM", "LMHeadModel")),
        lambda _: "unknown",
        readable=False,
    ),
)
"""All formats; the first match counts."""


HEADS: Final = {
    "LLaMA-Factory value head": "v_head.summary",
    "LLM-Blender PairRM": "head_layer.4",
    "ArmoRM": "regression_layer",
    "trlx": "v_head",
}
"""Heads with other names than ``score`` and ``classifier``, by format."""


def recognise(files: Files) -> Format | None:
    """The format of a folder; None if it is unknown."""
    return next((known for known in FORMATS if known.matches(files)), None)


def bare(stored: str) -> str:
    """A tensor's name without the additions of peft and other wrappers."""
    for wrapper in WRAPPERS:
        stored = stored.removeprefix(wrapper)
    return stored.replace(".modules_to_save.default", "")


def head_of(files: Files, *, prefix: str | None = None) -> str | None:
    """The name of the module that gives the outputs; None if the checkpoint has no head.

    Args:
        files: the checkpoint's contents.
        prefix: the only name that counts. Without it the configuration's ``value_head_prefix`` comes first.
    """
    named = {bare(name).removesuffix(".weight") for name, s in files.shapes.items() if name.endswith(".weight") and s}
    configured = files.config.get("value_head_prefix")
    names = [prefix] if prefix else [*([configured] if configured else []), *HEAD_NAMES]
    return next((name for name in names if name in named), None)


def expected_head(files: Files, name: str) -> str:
    """The tensor in which a format keeps its head."""
    decoder = any(tensor.endswith(("embed_tokens.weight", "wte.weight")) for tensor in files.shapes)
    configured = files.config.get("value_head_prefix")
    return f"{configured or HEADS.get(name, 'score' if decoder else 'classifier')}.weight"


def candidates_for_head(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Tensors that may be a head: outside of the layers, with few rows or a typical name."""
    return [
        name
        for name, shape in shapes.items()
        if len(shape) == 2
        and shape[0] <= MOST_OUTPUTS
        and not any(part.isdigit() or "embed" in part for part in name.split("."))
        and (shape[0] < shape[1] or "head" in name or "score" in name)
    ][:5]


def _any(files: Files, *names: str) -> bool:
    return not files.names.isdisjoint(names)
