"""SteamSHP: an encoder-decoder that is asked which of two answers is better and says A or B.

The model is saved as what it is, a ``T5ForConditionalGeneration`` or an ``EncoderDecoderModel``;
``generate(max_new_tokens=1)`` in plain transformers gives the same decision. Source: the model card of
stanfordnlp/SteamSHP-flan-t5-xl; two pretrained encoders joined to one such model: arXiv 1907.12461.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    EncoderDecoderModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5ForConditionalGeneration,
)

from ranker import layouts
from ranker.errors import CheckpointError, ConfigError
from ranker.layouts import Layout
from ranker.layouts.steamshp import SteamSHP
from ranker.models.backbones import check_length, set_dropout
from ranker.models.tokenizers import text_tokenizer
from ranker.text.tokenizer import TextTokenizer

HEAD: Final = "answer_token"
"""What ``config.ranker['head']`` says of these models."""

QUESTION: Final = ("POST:", "RESPONSE A:", "RESPONSE B:", "Which response is better? RESPONSE")
ANSWERS: Final = ("A", "B")
EMPTY: Final = "."
"""The answer that a lone one is compared with."""


def question(prompt: str, first: str, second: str) -> str:
    """The text that is asked, in one line; source: the model card of stanfordnlp/SteamSHP-flan-t5-xl."""
    texts = (text.replace("\n", " ") for text in (prompt, first, second))
    return " ".join(part for pair in zip(QUESTION, (*texts, ""), strict=True) for part in pair if part)


class AnswerReading:
    """Mixed into the library's encoder-decoder: reads ``collate``'s arrays and answers with two log-probabilities."""

    config: PretrainedConfig

    @property
    def layout(self) -> Layout:
        """The layout stored in the configuration."""
        return layouts.parse(self.config.ranker["text"])

    def forward(self, input_ids: Tensor, block_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Log-probabilities (rows, 2, 1) in fp32, over the whole vocabulary, of the first word being A and being B.

        Their difference is the logit that the left answer is better. ``position_ids`` are not read: T5 has relative
        positions, and other encoders count theirs from the left.
        """
        model: Any = self
        mask = (block_ids >= 0).long()
        encoded = model.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        start = torch.full_like(input_ids[:, :1], self.config.decoder_start_token_id)
        words = FAMILIES[self.config.model_type][1](model, start, encoded, mask).log_softmax(dim=-1)
        return torch.stack([words[:, answer] for answer in self.config.ranker["answers"]], dim=1)[:, :, None]


def _t5_words(model: Any, start: Tensor, encoded: Tensor, mask: Tensor) -> Tensor:
    decoded = model.decoder(
        input_ids=start, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=False
    ).last_hidden_state[:, 0]
    with torch.autocast(decoded.device.type, enabled=False):
        scale = model.model_dim**-0.5 if model.config.scale_decoder_outputs else 1.0
        words: Tensor = model.lm_head(decoded.float() * scale)
        return words


def _joined_words(model: Any, start: Tensor, encoded: Tensor, mask: Tensor) -> Tensor:
    decoder = model.decoder
    if hasattr(model, "enc_to_dec_proj"):
        encoded = model.enc_to_dec_proj(encoded)
    decoded = decoder.base_model(
        input_ids=start, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=False
    ).last_hidden_state[:, 0]
    head = decoder.cls if hasattr(decoder, "cls") else decoder.lm_head
    with torch.autocast(decoded.device.type, enabled=False):
        words: Tensor = head(decoded.float())
        return words


Words = Callable[[Any, Tensor, Tensor, Tensor], Tensor]
"""(model, start ids (rows, 1), encoder states, mask (rows, sequence)) -> the first word in fp32 (rows, words)."""

FAMILIES: Final[dict[str, tuple[type[PreTrainedModel], Words]]] = {
    "t5": (T5ForConditionalGeneration, _t5_words),
    "encoder-decoder": (EncoderDecoderModel, _joined_words),
}
"""Encoder-decoder families: the library's class of each, and how the logits of its first word are read."""


@cache
def _answer_class(base: type[PreTrainedModel]) -> type[PreTrainedModel]:
    return type(base.__name__, (AnswerReading, base), {"__module__": base.__module__})


def answer_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The library's encoder-decoder of a family, reading our arrays.

    Raises:
        CheckpointError: the family is not supported.
    """
    if config.model_type not in FAMILIES:
        raise CheckpointError(f"expected an encoder-decoder ({', '.join(FAMILIES)}), got '{config.model_type}'")
    base: Any = FAMILIES[config.model_type][0]
    return _answer_class(base)


def from_backbone(
    name_or_path: str, *, max_length: int = 512, prompt_reserve: int = 64, backbone_dropout: float = 0.0, **options: Any
) -> tuple[PreTrainedModel, TextTokenizer]:
    """A pretrained encoder-decoder that answers A or B; nothing in it is newly initialised.

    Args:
        name_or_path: hub name or folder, google/flan-t5-large for example.
        max_length: tokens of the whole question; SteamSHP was trained with 512.
        prompt_reserve: tokens the post keeps before an answer is cut.
        backbone_dropout: probability.
        options: passed on to ``from_pretrained``.

    Returns:
        The model in fp32 and its tokenizer.

    Raises:
        CheckpointError: the family is not supported, or its configuration names no first token.
        ConfigError: the tokenizer has no single token for A or for B, or more tokens than the encoder has positions.
    """
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    config = AutoConfig.from_pretrained(name_or_path)
    cls = answer_class(config)
    if getattr(config, "decoder_start_token_id", None) is None:
        raise CheckpointError(
            f"{name_or_path}: config.json has no decoder_start_token_id, so no first word can be asked for; "
            "write it there (0 for T5, the id of [CLS] for joined BERTs)"
        )
    if config.model_type == "encoder-decoder":
        check_length(config.encoder, max_length)
        set_dropout(config.encoder, backbone_dropout)
        set_dropout(config.decoder, backbone_dropout)
    set_dropout(config, backbone_dropout)
    config.ranker = settings(tokenizer, max_length, prompt_reserve)
    model = cls.from_pretrained(name_or_path, config=config, dtype=torch.float32, **options)
    model.generation_config.decoder_start_token_id = config.decoder_start_token_id
    return model, text_tokenizer(tokenizer)


def settings(tokenizer: PreTrainedTokenizerBase, max_length: int, prompt_reserve: int) -> dict[str, Any]:
    """What the configuration must say, besides the library's own, for a model to be read here.

    Raises:
        ConfigError: the tokenizer has no single token for A or for B.
    """
    return {
        "text": _layout(tokenizer, max_length, prompt_reserve).model_dump(),
        "head": HEAD,
        "answers": [_one_token(tokenizer, answer) for answer in ANSWERS],
    }


def _layout(tokenizer: PreTrainedTokenizerBase, max_length: int, prompt_reserve: int) -> Layout:
    prefix, between, second, ending = (tokenizer.encode(part, add_special_tokens=False) for part in QUESTION)
    before, after = around(tokenizer)
    if not after:
        after = [tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id]
    return SteamSHP(
        max_length=max_length,
        prompt_reserve=prompt_reserve,
        pad_id=tokenizer.pad_token_id,
        prefix=[*before, *prefix],
        between=between,
        second=second,
        suffix=[*ending, *after],
        empty=tokenizer.encode(EMPTY, add_special_tokens=False),
    )


def around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer puts before and after a single text."""
    text = tokenizer.encode("a", add_special_tokens=False)
    ids = tokenizer.encode("a")
    start = next((i for i in range(len(ids)) if ids[i : i + len(text)] == text), 0)
    return ids[:start], ids[start + len(text) :]


def _one_token(tokenizer: PreTrainedTokenizerBase, answer: str) -> int:
    ids = tokenizer.encode(answer, add_special_tokens=False)
    if len(ids) != 1:
        raise ConfigError(f"expected one token for '{answer}', got {len(ids)}; this tokenizer cannot answer A or B")
    return int(ids[0])
