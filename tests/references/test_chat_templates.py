"""Ids are those of ``apply_chat_template``: every template that TRL carries, four kinds of tokenizers, 40 conversations.

Where a text spells a special token, transformers' ``sanitize_control_tokens`` is the reference: it stays characters.
"""

from pathlib import Path

import pytest
import trl

from ranker.data import fields
from ranker.layouts.conversation import Conversation
from ranker.models.pointwise import chat_text
from ranker.models.tokenizers import text_tokenizer
from ranker.records import Group
from ranker.scoring.pipeline import TextPipeline
from tests.references.conversations import CONVERSATIONS
from tests.references.tokenizers import KINDS, tokenizer_for
from tests.support.selection import cases

TEMPLATES = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
CASES = [(template, kind) for template in TEMPLATES for kind in KINDS]
QUICK = [(template, KINDS[number % len(KINDS)]) for number, template in enumerate(TEMPLATES)]

PARTS_ONLY = ("llava_next", "llava_next_training")
"""Templates that render content as a list of parts and nothing else."""


def as_parts(conversation):
    """The same with every text as a list of one part."""
    return tuple(
        {**turn, "content": [{"type": "text", "text": turn["content"]}]} if isinstance(turn["content"], str) else turn
        for turn in conversation
    )


def conversation_group(conversation):
    """A conversation as a row of a file is read."""
    prompt, answer = fields.split_answer(fields.messages(list(conversation), "row", "messages"), "row", "messages")
    return Group(prompt, (answer,))


def reference(tokenizer, conversation, **options):
    """The ids of transformers; None where the template refuses."""
    try:
        return tokenizer.apply_chat_template(list(conversation), tokenize=True, return_dict=True, **options)[
            "input_ids"
        ]
    except Exception:  # templates fail in any way
        return None


def reading(template, kind):
    """A tokenizer with a template, and how a model with it reads conversations."""
    tokenizer = tokenizer_for(kind, template.read_text(encoding="utf-8"))
    layout = Conversation(chat=chat_text(tokenizer), pad_id=tokenizer.pad_token_id, max_length=8192)
    return tokenizer, TextPipeline(layout, text_tokenizer(tokenizer))


def test_trl_carries_the_templates():
    assert len(TEMPLATES) >= 72


@pytest.mark.parametrize(
    ("template", "kind"), cases(CASES, lambda case: case in QUICK[::2]), ids=lambda value: getattr(value, "stem", value)
)
def test_ids_of_every_conversation_are_those_of_apply_chat_template(template, kind):
    tokenizer, pipeline = reading(template, kind)
    conversations = tuple(map(as_parts, CONVERSATIONS)) if template.stem in PARTS_ONLY else CONVERSATIONS
    every = pipeline.tokenize([conversation_group(conversation) for conversation in conversations])
    specials = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    read = 0
    for conversation, tokens in zip(conversations, every, strict=True):
        spelled = any(token in repr(conversation) for token in specials)
        expected = reference(tokenizer, conversation, sanitize_control_tokens=spelled)
        ids = None if tokens.refused else tokens.candidates[0].tolist()
        assert ids == expected, conversation
        assert tokens.special_text == (spelled and expected is not None)
        read += expected is not None
    assert read >= 20, "most conversations are rendered by any template"


ANSWERS = (
    "Paris.",
    "\nParis.\n",
    " Paris",
    "",
    "\n\n\n",
    "<think>\nHm.\n</think>\n\nParis",
    "Ünï 🙂",
    "say <|eos|>",
    "a" * 300,
)


@pytest.mark.parametrize(
    ("template", "kind"), cases(CASES, lambda case: case in QUICK[::6]), ids=lambda value: getattr(value, "stem", value)
)
def test_answers_to_one_prompt_that_are_encoded_together_have_the_ids_of_each(template, kind):
    """What all rows of a group begin with is encoded once."""
    tokenizer, pipeline = reading(template, kind)
    for prompt in ("Name it", "\nName it \n\n", "Say <|eos|>"):
        content = [{"type": "text", "text": prompt}] if template.stem in PARTS_ONLY else prompt
        turns = [{"role": "user", "content": content}]
        plain = [answer for answer in ANSWERS if template.stem not in PARTS_ONLY]
        group = Group(fields.messages(turns, "row", "prompt"), tuple(plain))
        (tokens,) = pipeline.tokenize([group])
        for number, answer in enumerate(plain):
            conversation = [*turns, {"role": "assistant", "content": answer}]
            spelled = "<|eos|>" in prompt + answer
            if spelled and "<think>" in answer:
                continue  # transformers then takes tokens that are not special as characters, too
            expected = reference(tokenizer, conversation, sanitize_control_tokens=spelled)
            assert (None if number in tokens.refused else tokens.candidates[number].tolist()) == expected, answer
