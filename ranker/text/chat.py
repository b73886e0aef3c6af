"""A model's own chat template: from messages to the text that ``apply_chat_template`` of its tokenizer gives.

Templates come with checkpoints, so they are untrusted code, which ``ranker.text.sandbox`` bounds. The environment is
that of transformers (``utils/chat_template_utils.py``): ``trim_blocks``, ``lstrip_blocks``, loop controls, the
``generation`` tag, ``tojson`` without HTML escapes, ``raise_exception`` and ``strftime_now``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from jinja2 import Template
from pydantic import BaseModel, ConfigDict, Field

from ranker.errors import ConfigError
from ranker.text.sandbox import ENVIRONMENT, LENGTH, render

REASONING: Final = ("reasoning_content", "thinking", "reasoning")
"""Names of a message's reasoning; transformers fills the first and the second from whichever one is there."""

Turn = Mapping[str, Any]
"""A message as a template reads it: ``role``, ``content`` and what else its producer writes."""


class TemplateRefusal(ValueError):  # noqa: N818  not an error of this package: the row is at fault
    """A template does not render a conversation; the text is the template's own."""


class ChatTemplate(BaseModel):
    """A chat template with everything that decides what it renders.

    Example:
        >>> chat = ChatTemplate(template="{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
        >>> chat.render([{"role": "user", "content": "Hi"}])
        '<user>Hi'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: str = Field(description="Jinja source")
    variables: dict[str, Any] = Field({}, description="the tokenizer's special tokens, and settings of the template")
    tools: tuple[dict[str, Any], ...] | None = Field(None, description="JSON schemas of the tools that it lists")
    now: datetime | None = Field(None, description="the date that it writes; None: that of the call")
    generation_prompt: bool = Field(
        False, description="whether the beginning of the next turn follows the last message"
    )

    @property
    def reads_clock(self) -> bool:
        """Whether it writes the date."""
        return "strftime_now" in self.template

    def render(self, turns: Sequence[Turn]) -> str:
        """The text of a conversation.

        Raises:
            TemplateRefusal: the template refuses the conversation, or fails on it.
        """
        if not turns:
            raise TemplateRefusal("expected at least one message, got none")
        now = self.now or datetime.now()  # noqa: DTZ005  transformers writes the local date
        try:
            values = {
                "messages": [_plain(turn) for turn in turns],
                "tools": None if self.tools is None else list(self.tools),
                "documents": None,
                "add_generation_prompt": self.generation_prompt,
                "strftime_now": now.strftime,
            }
            return render(compiled(self.template), values | self.variables)
        except Exception as error:  # a template is code, and may fail in any way
            raise TemplateRefusal(
                f"the chat template refuses this conversation: {error or type(error).__name__}"
            ) from None


def _plain(turn: Turn) -> dict[str, Any]:
    """The keys that have a value, with the reasoning under the names that templates read."""
    present = {key: value for key, value in turn.items() if value is not None}
    reasoning = next((present[name] for name in REASONING if name in present), None)
    return present if reasoning is None else {"thinking": reasoning, **present, "reasoning_content": reasoning}


@lru_cache(maxsize=64)
def compiled(template: str) -> Template:
    """The compiled template.

    Raises:
        ConfigError: it is not valid Jinja.
    """
    if len(template) > LENGTH:
        raise ConfigError(f"the tokenizer's chat template has {len(template)} characters, at most {LENGTH} are read")
    try:
        return ENVIRONMENT.from_string(template)
    except Exception as error:  # a syntax error, or an expression too deep to compile
        raise ConfigError(
            f"the tokenizer's chat template is not valid Jinja: {str(error) or type(error).__name__:.300}"
        ) from error
