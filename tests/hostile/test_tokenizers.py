"""Texts open no turns on any tokenizer, and a tokenizer from elsewhere neither varies nor explodes."""

import json
import re

import pytest
from tokenizers import AddedToken

from ranker.errors import CheckpointError
from ranker.records import Group
from ranker.text.tokenizer import TextTokenizer
from tests.conftest import tokenizer_json
from tests.references.test_chat_templates import (
    KINDS,
    TEMPLATES,
    Conversation,
    TextPipeline,
    chat_text,
    text_tokenizer,
    tokenizer_for,
)
from tests.support.selection import cases

MARKER = re.compile(r"<\|[a-z_]+\|>|<[a-z]+_of_turn>|<[a-z_]*(?:user|assistant|turn)[a-z_]*>")


def plain_markers(template, kind):
    """A tokenizer whose markers of turns are added tokens that are not special, and those markers."""
    text = template.read_text(encoding="utf-8")
    tokenizer = tokenizer_for(kind, text)
    special = {token.content for token in tokenizer.added_tokens_decoder.values()}
    markers = sorted({*MARKER.findall(text)} - special)
    tokenizer.add_tokens([AddedToken(marker, special=False, normalized=False) for marker in markers])
    return tokenizer, markers


def ids_of(tokenizer, turns, answer):
    layout = Conversation(chat=chat_text(tokenizer), pad_id=tokenizer.pad_token_id, max_length=4096)
    (tokens,) = TextPipeline(layout, text_tokenizer(tokenizer)).tokenize([Group(turns, (answer,))])
    assert not tokens.refused, tokens.refused
    return tokens.candidates[0].tolist(), tokens.special_text


WITH_MARKERS = [t for t in TEMPLATES if MARKER.search(t.read_text(encoding="utf-8")) and "llava" not in t.stem]
ALL = [(template, KINDS[number % len(KINDS)]) for number, template in enumerate(WITH_MARKERS)]


@pytest.mark.parametrize(
    ("template", "kind"), cases(ALL, lambda case: case in ALL[::8]), ids=lambda value: getattr(value, "stem", value)
)
def test_markers_that_are_not_special_open_no_turns(template, kind):
    """A text that spells whole turns would otherwise have the same ids as a conversation of three turns."""
    tokenizer, markers = plain_markers(template, kind)
    honest = [{"role": "user", "content": "Say hi"}, {"role": "assistant", "content": "Hi"}]
    try:
        expected = tokenizer.apply_chat_template(honest, tokenize=True, return_dict=True)["input_ids"]
        inside = tokenizer.apply_chat_template(
            [*honest, {"role": "user", "content": "Great"}, {"role": "assistant", "content": "Thanks"}], tokenize=False
        )
    except Exception:
        pytest.skip("the template refuses a plain conversation")
    if "Hi" not in inside:
        pytest.skip("the template reads contents in parts only")
    ids, special = ids_of(tokenizer, "Say hi", "Hi")
    assert ids == expected
    assert not special
    turn_ids = {tokenizer.convert_tokens_to_ids(marker) for marker in markers} & set(expected)
    attack = inside[inside.index("Hi") :]
    attacked, special = ids_of(tokenizer, "Say hi", attack)
    for marker in turn_ids:
        assert attacked.count(marker) == expected.count(marker), tokenizer.convert_ids_to_tokens(marker)
    if turn_ids and any(marker in attack for marker in markers):
        assert special


def test_reasoning_of_an_answer_stays_what_apply_chat_template_makes_of_it():
    template = next(t for t in TEMPLATES if t.stem == "qwen3")
    tokenizer = tokenizer_for(KINDS[0], template.read_text(encoding="utf-8"))
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ("<think>", "</think>")])
    answer = "<think>\nHm.\n</think>\n\nHi"
    turns = [{"role": "user", "content": "Say hi"}, {"role": "assistant", "content": answer}]
    expected = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"]
    assert ids_of(tokenizer, "Say hi", answer)[0] == expected


def changed(**parts):
    values = json.loads(tokenizer_json("bpe"))
    model = parts.pop("model", {})
    return json.dumps(values | parts | {"model": values["model"] | model})


def test_dropout_of_training_is_off():
    tokenizer = TextTokenizer(changed(model={"dropout": 0.5}))
    text = "a question with several words, asked five times"
    assert len({tuple(ids.tolist()) for ids in tokenizer.encode([text] * 20)}) == 1
    assert json.loads(tokenizer.text)["model"]["dropout"] is None
    assert TextTokenizer(changed()).encode([text])[0].tolist() == tokenizer.encode([text])[0].tolist()


def replace(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


HOSTILE = {
    "long replacement": changed(normalizer=replace({"String": "a"}, "b" * 1_000_000)),
    "replaces nothing": changed(normalizer=replace({"Regex": ""}, "b" * 90)),
    "many replacements": changed(
        normalizer={"type": "Sequence", "normalizers": [replace({"String": "a"}, "aaaa") for _ in range(12)]}
    ),
    "long beginning": changed(normalizer={"type": "Prepend", "prepend": "x" * 10_000_000}),
    "nested": changed(
        normalizer={
            "type": "Sequence",
            "normalizers": [{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "x" * 1000}]}],
        }
    ),
    "deep": "[" * 100_000,
    "list": "[]",
    "null": "null",
    "number": "1",
    "empty": "",
    "no model": "{}",
    "model is a text": '{"model": "x"}',
    "model of another kind": changed(model={"type": "Nothing"}),
    "merges that are none": changed(model={"merges": ["x"]}),
    "vocabulary is a number": changed(model={"vocab": 3}),
    "negative ids": changed(model={"vocab": {"a": -1}}),
    "wrong step": changed(normalizer={"type": "Nothing"}),
    "steps that are none": changed(normalizer={"type": "Sequence", "normalizers": 7}),
    "wrong charsmap": changed(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "wrong pattern": changed(pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tokenizer_is_refused_in_a_line(name, tmp_path):
    (tmp_path / "tokenizer.json").write_text(HOSTILE[name])
    with pytest.raises(CheckpointError, match=r"tokenizer.json: damaged \(.*copy it again") as caught:
        TextTokenizer.from_folder(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
