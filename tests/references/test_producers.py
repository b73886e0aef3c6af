"""Checkpoints of the producers' own libraries score as the producers' own code scores them."""

import warnings

import numpy as np
import pytest

import ranker
from ranker.checkpoints.verify import verify
from ranker.records import Group
from tests.references.producers import LONG, PRODUCERS, ROWS, SPREAD
from tests.references.test_chat_templates import conversation_group
from tests.support.selection import cases


def compared(scorer, produced, conversations):
    """(ours, theirs) of the conversations that the producer reads."""
    groups = [conversation_group(conversation) for conversation in conversations]
    rows = [
        (result, expected)
        for result, conversation in zip(scorer.score(groups), conversations, strict=True)
        if (expected := produced.reference(conversation)) is not None
    ]
    assert [result.error for result, _ in rows] == [None] * len(rows)
    ours, theirs = (np.array(side) for side in zip(*((r.scores[0], e) for r, e in rows), strict=True))
    return ours, theirs


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PRODUCERS)
def test_scores_are_those_of_the_producer(name, tmp_path):
    produced = PRODUCERS[name](tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = ranker.load(produced.folder, **produced.options)
    ours, theirs = compared(loaded.scorer, produced, ROWS)
    assert len(theirs) >= 8
    assert np.ptp(theirs) > 0.05
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=SPREAD * np.ptp(theirs))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    cases(
        [name for name in PRODUCERS if "peft" not in name and "LoRA" not in name],
        lambda name: name in ("OpenRLHF", "sentence-transformers CrossEncoder"),
    ),
)
def test_verify_passes_what_the_producer_wrote(name, tmp_path):
    produced = PRODUCERS[name](tmp_path)
    checks = {check.name: check for check in verify(produced.folder)}
    assert [check for check in checks.values() if not check.passed] == []
    assert "rows have the ids of transformers" in checks["ids"].seen


@pytest.mark.filterwarnings("ignore")
def test_a_crossencoder_cuts_long_rows_as_its_own_code_does(tmp_path):
    produced = PRODUCERS["sentence-transformers CrossEncoder"](tmp_path)
    loaded = ranker.load(produced.folder)
    ours, theirs = compared(loaded.scorer, produced, LONG)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    flags = [
        (result.prompt_truncated, bool(result.truncated[0]))
        for result in loaded.scorer.score(list(map(conversation_group, LONG)))
    ]
    assert flags == [(True, False), (False, True), (True, True)]


def test_a_long_conversation_keeps_the_templates_own_text(tmp_path):
    produced = PRODUCERS["TRL, conversations, ChatML"](tmp_path)
    scorer = ranker.load(produced.folder).scorer
    layout = scorer.pipeline.layout.model_copy(update={"max_length": 48, "prompt_reserve": 8})
    pipeline = type(scorer.pipeline)(layout, scorer.pipeline.tokenizer)
    long = tuple(
        {"role": role, "content": f"turn {i} " + "many words " * 30} for i, role in enumerate(("user", "assistant") * 3)
    )
    (tokens,) = pipeline.tokenize([conversation_group(long)])
    text = pipeline.tokenizer.decode(tokens.candidates[0])
    assert len(tokens.candidates[0]) <= 48
    assert text.startswith("<|im_start|>")
    assert text.endswith("<|im_end|>\n")
    assert "<|im_start|>assistant\nturn 5 many words" in text
    assert (tokens.prompts_cut, tokens.candidates_cut) == ((True,), (True,))


def test_a_group_that_the_template_refuses_says_so_in_its_words(tmp_path):
    from ranker.layouts.conversation import Conversation
    from ranker.models.pointwise import chat_text
    from ranker.models.tokenizers import text_tokenizer
    from ranker.scoring.pipeline import TextPipeline
    from tests.references.tokenizers import tokenizer_for

    template = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{{ messages[-1].content }}"
    tokenizer = tokenizer_for("qwen", template)
    layout = Conversation(chat=chat_text(tokenizer), pad_id=0)
    pipeline = TextPipeline(layout, text_tokenizer(tokenizer))
    refused = (
        {"role": "system", "content": "x"},
        {"role": "user", "content": "y"},
        {"role": "assistant", "content": "z"},
    )
    bad, good = pipeline.tokenize([conversation_group(refused), Group("y", ("z",))])
    assert "System role not supported" in bad.refused[0]
    assert good.refused == {}
