"""How producers write a conversation as text where no chat template does: one function per format and one registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ranker.text.conversations import ChatText
from ranker.text.tokenizer import TextTokenizer

TURNS: Final = (
    "{%- for message in messages -%}"
    "{%- if not loop.first -%}{{ SEPARATOR if loop.last else '\\n\\n' }}{%- endif -%}"
    "{{- message.content -}}"
    "{%- endfor -%}"
)
"""The contents of all messages: a separator before the answer, blank lines between other turns."""


def _turns(separator: str) -> str:
    return TURNS.replace("SEPARATOR", repr(separator))


def plain(variables: Mapping[str, Any]) -> ChatText:
    """``[BOS] prompt, blank line, answer EOS``: what this package trains with where a tokenizer has no template."""
    return ChatText(
        template="{{ bos_token if bos_token else '' }}" + _turns("\n\n") + "{{ eos_token if eos_token else '' }}",
        variables=dict(variables),
    )


def trl(variables: Mapping[str, Any]) -> ChatText:
    """TRL's rows of plain text: the tokenizer's own BOS, prompt, answer, EOS.

    Source: ``RewardTrainer._prepare_dataset`` of TRL 1.16.
    """
    return ChatText(template=_turns("") + "{{ eos_token }}", variables=dict(variables), bos="tokenizer")


def openrlhf(variables: Mapping[str, Any]) -> ChatText:
    """OpenRLHF's rows without a template: prompt, answer, a space and EOS.

    Source: ``RewardDataset.__getitem__`` of OpenRLHF 0.11.
    """
    return ChatText(template=_turns(""), variables=dict(variables), end=str(variables.get("eos_token") or ""))


def trlx(variables: Mapping[str, Any]) -> ChatText:
    """Trlx's summaries: ``<|startoftext|>``, prompt, line break, answer, EOS.

    Source: ``examples/summarize_rlhf/reward_model`` of trlx.
    """
    return ChatText(
        template="<|startoftext|>" + _turns("\n") + "{{ eos_token }}", variables=dict(variables), bos="tokenizer"
    )


TEXT_FORMATS: Final[dict[str, Callable[[Mapping[str, Any]], ChatText]]] = {
    "plain": plain,
    "trl": trl,
    "openrlhf": openrlhf,
    "trlx": trlx,
}
"""By name: from the tokenizer's special tokens to the text. ``chat`` is the tokenizer's own template."""


def portable(chat: ChatText, tokenizer: TextTokenizer) -> str:
    """A chat template under which ``apply_chat_template`` alone gives this text's ids, for other libraries.

    Args:
        chat: the text, with its producer's own rules.
        tokenizer: the model's.
    """
    if chat.bos == "template" and not chat.end:
        return chat.template
    text = "rendered"
    if chat.end:
        text = "rendered.rstrip('\\n')"
        text = f"({text} if {text}.endswith({chat.end!r}) else {text} ~ {' ' + chat.end!r})"
    begin = str(chat.variables.get("bos_token") or "")
    if chat.bos == "tokenizer" and begin:
        text = f"{text}.removeprefix({begin!r})"
        (added,) = tokenizer.encode_rendered([""], add_special_tokens=True)
        if tokenizer.decode(added).startswith(begin):
            text = f"{begin!r} ~ {text}"
    # Jinja removes a line break after a tag and spaces before one, but none beside an expression.
    return f"{{% set rendered %}}{{{{ '' }}}}{chat.template}{{{{ '' }}}}{{% endset %}}{{{{ {text} }}}}"
