"""What transformers itself makes of a checkpoint: the ids of its tokenizer, and the scores of its own class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from ranker.checkpoints.formats.checkpoint_format import LIBRARY_HEADS, CheckpointFormat
from ranker.checkpoints.formats.cross_encoder import CrossEncoder
from ranker.checkpoints.formats.hf_classifier import HFClassifier
from ranker.checkpoints.formats.ranker_pointwise import RankerPointwise
from ranker.checkpoints.formats.registry import by_name
from ranker.checkpoints.formats.token_classifier import TokenClassifier
from ranker.checkpoints.report import CheckpointReport
from ranker.errors import CheckpointError
from ranker.layouts import Layout
from ranker.layouts.conversation import Conversation
from ranker.layouts.pointwise import Pointwise
from ranker.layouts.steamshp import SteamSHP
from ranker.models import steamshp
from ranker.models.backbones import MEAN_POOLED
from ranker.models.build import without_load_report
from ranker.records import Group, Message
from ranker.scoring.pipeline import TextPipeline
from ranker.text.conversations import ChatText, messages_of
from ranker.text.templates import render_prompt
from ranker.text.tokenizer import TextTokenizer


def _messages(*turns: tuple[Any, str]) -> tuple[Message, ...]:
    return tuple(Message(role, content) for role, content in turns)


CONVERSATIONS: Final = (
    Group("Name the capital of France.", ("Paris.", "It is Paris, the city on the Seine.", "Lyon", "")),
    Group("Name it\n", ("\nParis.\n", " Paris. ", "\n\n\nParis")),
    Group(_messages(("system", "Be brief."), ("user", "Sort: 3, 1, 2")), ("1, 2, 3", "```\n1\n2\n3\n```\n")),
    Group(
        _messages(("user", "Hi"), ("assistant", "Hello\n"), ("user", "\nAnd?")),
        ("More.", "<think>\nHm.\n</think>\n\nNo."),
    ),
    Group("", ("Ünïcödé 🙂", "12345 + 67890")),
    Group("WHAT\u00a0is  \ufb01 \u2460\u2026?!", ("Yes!", "No!! (e\u0301 A\u030a)")),
)
"""What both sides read: edge white space, a system turn, several turns, reasoning, empty texts, unicode."""

SPECIAL_WORDS: Final = (
    "its tokenizer takes {} for special tokens, which are ordinary words in tokenizer.json; rows that hold them have "
    "other ids in transformers"
)

OTHER: Final = "No idea."
"""The second answer of SteamSHP's questions."""

Ids = list[int]


Inputs = dict[str, Ids]
"""Arguments of the library's model for one row; without token types where the producer passes none."""


def rows_of_transformers(folder: Path, layout: Layout) -> list[Inputs | None] | None:
    """What the tokenizer's own code gives for every answer of ``CONVERSATIONS``.

    None for an answer that the chat template refuses; None for all for layouts that transformers has no code for.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answers = [(group, answer) for group in CONVERSATIONS for answer in group.candidates]
    if isinstance(layout, Conversation):
        rows = [_conversation(tokenizer, layout.chat, group, answer) for group, answer in answers]
        return [None if row is None else {"input_ids": row} for row in rows]
    if isinstance(layout, Pointwise):
        dropped = {"token_type_ids"} if layout.token_types == "zero" else set()
        # Pairs in a list: of a single one transformers leaves out an empty second text.
        prompts = [layout.instruction + render_prompt(group.prompt) for group, _ in answers]
        pairs = tokenizer(prompts, [answer for _, answer in answers])
        names = set(pairs) - dropped
        return [{name: pairs[name][number] for name in names} for number in range(len(answers))]
    if isinstance(layout, SteamSHP):
        questions = [steamshp.question(render_prompt(group.prompt), answer, OTHER) for group, answer in answers]
        return [{"input_ids": tokenizer(question, add_special_tokens=False).input_ids} for question in questions]
    return None


def _conversation(tokenizer: Any, chat: ChatText, group: Group, answer: str) -> Ids | None:
    try:
        messages = messages_of(chat, group.prompt, answer)
        settings = {name: value for name, value in chat.variables.items() if name not in tokenizer.special_tokens_map}
        settings["add_generation_prompt"] = chat.generation_prompt
        if tokenizer.chat_template is None:
            text = chat.render(messages)
        elif chat.bos == "template" and not chat.end:
            ids: Ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **settings)["input_ids"]
            return ids
        else:
            text = tokenizer.apply_chat_template(messages, tokenize=False, **settings)
    except Exception:  # a template is code, and may fail in any way
        return None
    return list(tokenizer(chat.finished(text), add_special_tokens=chat.bos == "tokenizer").input_ids)


def rows_of_ours(layout: Layout, tokenizer: TextTokenizer) -> list[Ids | None]:
    """The ids that are read here for ``CONVERSATIONS``; the date is today's, as transformers writes it."""
    if isinstance(layout, Conversation):
        layout = layout.model_copy(update={"chat": layout.chat.model_copy(update={"now": None, "skipped_ends": ()})})
    pipeline = TextPipeline(layout, tokenizer)
    if isinstance(layout, SteamSHP):
        pairs = [Group(group.prompt, (answer, OTHER)) for group in CONVERSATIONS for answer in group.candidates]
        questions = [pipeline.pack(tokens).rows[0].ids.tolist() for tokens in pipeline.tokenize(pairs)]
        return [[i for i in question if i not in tokenizer.structure] for question in questions]
    rows: list[Ids | None] = []
    for group, tokens in zip(CONVERSATIONS, pipeline.tokenize(CONVERSATIONS), strict=True):
        by_candidate = {row.candidates[0]: row.ids.tolist() for row in pipeline.pack(tokens).rows}
        rows += [by_candidate.get(i) for i in range(len(group.candidates))]
    return rows


def special_words(folder: Path, tokenizer: TextTokenizer) -> list[str]:
    """Special tokens of the library's tokenizer that are ordinary words here."""
    names = AutoTokenizer.from_pretrained(folder).all_special_tokens
    return [name for name in names if not tokenizer.spells_special(name)]


def notes_on_ids(folder: Path, layout: Layout, tokenizer: TextTokenizer) -> tuple[str, ...]:
    """A note where transformers' tokenizer gives other ids than ``tokenizer.json``, which is what is read here.

    Raises:
        CheckpointError: it gives other structure, so that every row differs.
    """
    theirs = rows_of_transformers(folder, layout)
    if theirs is None:
        return ()
    ours = rows_of_ours(layout, tokenizer)
    pairs = [(a, None if b is None else b["input_ids"]) for a, b in zip(ours, theirs, strict=True)]
    different = [(a, b) for a, b in pairs if a != b]
    if not different:
        words = special_words(folder, tokenizer)
        return (SPECIAL_WORDS.format(", ".join(map(repr, words))),) if words else ()
    shown = [repr(tokenizer.decode(np.array(row or [], np.int32))) for row in different[0]]
    what = (
        f"transformers reads {len(different)} of {len(pairs)} conversations as other ids than tokenizer.json gives; "
        f"the first is {shown[0]} by tokenizer.json, {shown[1]} in transformers"
    )
    special = [[[i for i in row or [] if i in tokenizer.structure] for row in pair] for pair in different]
    if len(different) == len(pairs) or any(a != b for a, b in special):
        raise CheckpointError(
            f"{folder}: {what}. Settings of tokenizer_config.json are not in tokenizer.json; save the tokenizer again "
            "with AutoTokenizer.from_pretrained(folder).save_pretrained(folder), or convert the checkpoint with the "
            "version of transformers that wrote it"
        )
    return (f"{what}. Scores here are those of tokenizer.json",)


def scores_of_transformers(
    folder: Path, report: CheckpointReport, rows: Sequence[Inputs]
) -> NDArray[np.float32] | None:
    """Outputs (rows, outputs) of the library's own class, a row at a time; None where it does not read the format."""
    loader = LOADERS.get(type(by_name(report.format)))
    head_is_read = report.head is not None and report.head.name in LIBRARY_HEADS
    if loader is None or not head_is_read or str(report.backbone).startswith(MEAN_POOLED):
        return None
    with without_load_report():
        model = loader[0].from_pretrained(folder, num_labels=report.outputs, dtype=torch.float32).eval()
    outputs = []
    with torch.inference_mode():
        for row in rows:
            inputs = {name: torch.tensor([ids]) for name, ids in row.items()}
            outputs.append(loader[1](model(**inputs).logits)[0].numpy())
    return np.stack(outputs).astype(np.float32)


def scores_of_words(folder: Path, answers: Sequence[int], rows: Sequence[Inputs]) -> NDArray[np.float32]:
    """The logits of words at the end of every row, by the library's language model: (rows, 1), a difference of two."""
    with without_load_report():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    scores = []
    with torch.inference_mode():
        for row in rows:
            words = model(torch.tensor([row["input_ids"]])).logits[0, -1, list(answers)].numpy()
            scores.append(words[0] - words[1] if len(words) == 2 else words[0])
    return np.array(scores, np.float32)[:, None]


LOADERS: Final[dict[type[CheckpointFormat], tuple[Any, Callable[[Any], Any]]]] = {
    HFClassifier: (AutoModelForSequenceClassification, lambda logits: logits),
    RankerPointwise: (AutoModelForSequenceClassification, lambda logits: logits),
    CrossEncoder: (AutoModelForSequenceClassification, lambda logits: logits),
    TokenClassifier: (AutoModelForTokenClassification, lambda logits: logits[:, -1]),
}
"""The library's class of a format, and what of its logits is the score."""
