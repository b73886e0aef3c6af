"""How sentence-transformers reads a query and a document: by the tokenizer's pair template or by a chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from transformers import AutoTokenizer, PretrainedConfig

from ranker.checkpoints.formats.modules_file import SentenceTransformers
from ranker.checkpoints.formats.spec import conversation, row_limits, token_types
from ranker.errors import CheckpointError
from ranker.layouts import Output
from ranker.layouts.conversation import Conversation
from ranker.layouts.pointwise import Pointwise
from ranker.models import backbones
from ranker.models.pointwise import chat_text, pair_parts
from ranker.text.chat import TemplateRefusal
from ranker.text.conversations import ChatText, Conversations
from ranker.text.tokenizer import TextTokenizer

ROLES: Final = ("query", "document")
MARKS: Final = ("\u2983query\u2984", "\u2983document\u2984")


def pair_layout(
    folder: Path, config: PretrainedConfig, described: SentenceTransformers, output: Output = "scalar"
) -> Conversation | Pointwise:
    """The layout of a ``CrossEncoder``.

    Args:
        folder: the checkpoint, whose tokenizer is read.
        config: the backbone's.
        described: what the folder says of itself.
        output: what the outputs mean.

    Raises:
        CheckpointError: the chat template reads no query and document, which sentence-transformers refuses too.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if described.renders:
        chat = pair_chat(tokenizer, described)
        missing = _unread(chat, folder)
        if missing:
            raise CheckpointError(
                f"{folder}: its chat template does not write the {' and the '.join(missing)} of a pair, so "
                "sentence-transformers refuses it too; put the template that it was trained with into "
                "chat_template.jinja, or name its text: text={'format': 'qwen3-reranker'}"
            )
        return conversation(tokenizer, config, chat, output=output, most=described.max_length)
    return Pointwise(
        output=output,
        pad_id=0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        truncation="longest_first",
        truncation_side="left" if tokenizer.truncation_side == "left" else "right",
        token_types=token_types(tokenizer),
        position_offset=backbones.position_offset(config),
        instruction=described.instruction,
        **row_limits(tokenizer, config, described.max_length),
        **pair_parts(tokenizer),
    )


def pair_chat(tokenizer: Any, described: SentenceTransformers) -> ChatText:
    """The chat template with a query and a document in the place of a conversation."""
    chat = chat_text(tokenizer)
    return chat.model_copy(
        update={
            "pair_roles": ROLES,
            "instruction": described.instruction,
            "content_parts": described.content_parts,
            "generation_prompt": described.generation_prompt,
            "variables": {**chat.variables, **described.variables},
        }
    )


def names_roles(template: Any) -> bool:
    """Whether a chat template speaks of a query and a document, which those of chat models do not."""
    return isinstance(template, str) and all(f"'{role}'" in template or f'"{role}"' in template for role in ROLES)


def _unread(chat: ChatText, folder: Path) -> list[str]:
    """Which of query and document the template leaves out."""
    encoder = Conversations(
        TextTokenizer.from_folder(folder), chat, max_length=1, prompt_reserve=1, characters=1_000_000
    )
    try:
        text = encoder.rendered_pair(*MARKS)
    except TemplateRefusal:
        return list(ROLES)
    return [role for role, mark in zip(ROLES, MARKS, strict=True) if mark not in text]
