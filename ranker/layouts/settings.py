"""Settings of a model's text that a caller may change: what a checkpoint does not say, or says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ranker.errors import ConfigError
from ranker.layouts.conversation import Conversation
from ranker.layouts.layout import Layout, TokenTypes, Truncation
from ranker.text.chat import compiled
from ranker.text.conversations import BOS
from ranker.text.formats import TEXT_FORMATS

TextFormat = Literal[
    "chat",
    "plain",
    "trl",
    "openrlhf",
    "trlx",
    "qwen3-reranker",
    "mxbai-rerank-v2",
    "bge-reranker-gemma",
    "rlhflow-pair",
]
"""``chat`` is the tokenizer's chat template, the others are ``ranker.text.formats.TEXT_FORMATS``."""


class ChatSettings(BaseModel):
    """How conversations become text; settings that are not given stay those of the model.

    Example:
        >>> ChatSettings(format="trl").format
        'trl'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: TextFormat | None = Field(
        None,
        description="of decoders: chat (the chat template), the plain text of plain, trl, openrlhf, trlx, or the "
        "question of a language model: qwen3-reranker, mxbai-rerank-v2, bge-reranker-gemma, rlhflow-pair",
    )
    chat_template: str | None = Field(None, description="of decoders: Jinja source in the place of the tokenizer's own")
    template_variables: dict[str, Any] = Field({}, description="of decoders: the template's, {enable_thinking: false}")
    tools: tuple[dict[str, Any], ...] | None = Field(None, description="of decoders: JSON schemas of tools")
    bos: BOS | None = Field(None, description="of decoders: whose beginning of text is read, template or tokenizer")
    token_types: TokenTypes | None = Field(None, description="of encoders: pair, or zero throughout")
    truncation: Truncation | None = Field(None, description="of encoders: prompt_first or longest_first")

    @model_validator(mode="after")
    def _template_is_valid(self) -> Self:
        if self.chat_template is not None:
            if self.format not in (None, "chat"):
                raise ValueError(f"format '{self.format}' has no chat template; leave one of the two out")
            compiled(self.chat_template)
        return self


class TextSettings(ChatSettings):
    """``ChatSettings``, and the length of a row."""

    max_length: int | None = Field(None, ge=16, description="tokens of a row")
    prompt_reserve: int | None = Field(None, ge=1, description="tokens that a prompt keeps before an answer is cut")


def text_settings(values: Mapping[str, Any] | None) -> TextSettings | None:
    """Settings by name; None where none are given.

    Raises:
        ConfigError: an unknown setting or a wrong value, named.
    """
    if not values:
        return None
    try:
        return TextSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "settings"
        known = ", ".join(TextSettings.model_fields)
        raise ConfigError(f"text.{name}: {first['msg']}; the settings are {known}") from error


OF_DECODERS: Final = ("format", "chat_template", "template_variables", "tools", "bos")
OF_ENCODERS: Final = ("token_types", "truncation")


def with_settings(layout: Layout, settings: ChatSettings) -> Layout:
    """A layout with other settings.

    Raises:
        ConfigError: a setting that the layout does not have.
    """
    changed = {name: value for name, value in settings if value not in (None, {})}
    if isinstance(layout, Conversation):
        allowed: tuple[str, ...] = (*OF_DECODERS, "max_length", "prompt_reserve")
    else:
        encoder_settings = tuple(name for name in OF_ENCODERS if name in type(layout).model_fields)
        allowed = (*encoder_settings, "max_length", "prompt_reserve")
    for name in changed:
        if name not in allowed:
            raise ConfigError(f"text.{name}: layout '{layout.layout}' has no such setting; it has {', '.join(allowed)}")
    plain = {name: value for name, value in changed.items() if name not in OF_DECODERS}
    if isinstance(layout, Conversation) and any(name in OF_DECODERS for name in changed):
        plain["chat"] = _chat(layout, settings)
    values = {name: getattr(layout, name) for name in type(layout).model_fields}
    return type(layout)(**values | plain)


def _chat(layout: Conversation, settings: ChatSettings) -> Any:
    chat = layout.chat
    if settings.format not in (None, "chat", *TEXT_FORMATS):
        raise ConfigError(
            f"text.format '{settings.format}' is for language models that answer A or B, not for a reward"
        )
    if settings.format not in (None, "chat"):
        producer = TEXT_FORMATS[str(settings.format)]
        chat = producer(chat.variables).model_copy(update={"skipped_ends": chat.skipped_ends})
    changes: dict[str, Any] = {"variables": {**chat.variables, **settings.template_variables}}
    if settings.chat_template is not None:
        changes["template"] = settings.chat_template
    if settings.tools is not None:
        changes["tools"] = settings.tools
    if settings.bos is not None:
        changes["bos"] = settings.bos
    return chat.model_copy(update=changes)
