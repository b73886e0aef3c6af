"""From groups to rows of ids."""

import pytest

from ranker.errors import ConfigError
from ranker.records import Group, Message
from ranker.scoring.pipeline import TextPipeline
from tests.support.layouts import layout
from tests.support.texts import CharacterTokenizer, ids_of


def pipeline(name="pointwise", *, prefix_sharing=False, average_orders=True, **changes):
    return TextPipeline(
        layout(name, **changes), CharacterTokenizer(), prefix_sharing=prefix_sharing, average_orders=average_orders
    )


def test_each_distinct_text_is_tokenised_once():
    text = pipeline()
    text.tokenize([Group("p", ("a", "b", "a")), Group("p", ("b", "p")), Group("q", ())])
    assert sorted(text.tokenizer.encoded) == ["a", "b", "p", "q"]


def test_tokens_are_those_of_their_group():
    first, second = pipeline().tokenize([Group("p", ("a", "bc")), Group("qq", ("a",))])
    assert first.prompt.tolist() == ids_of("p")
    assert [answer.tolist() for answer in first.candidates] == [ids_of("a"), ids_of("bc")]
    assert second.prompt.tolist() == ids_of("qq")


def test_a_text_beyond_the_character_limit_is_cut_and_flagged():
    text = pipeline()
    limit = text.layout.character_limit
    (tokens,) = text.tokenize([Group("x" + "p" * limit, ("a" * limit + "y", "a"))])
    assert tokens.prompt.tolist() == ids_of("p" * limit), "the prompt keeps its end"
    assert tokens.candidates[0].tolist() == ids_of("a" * limit), "the answer keeps its start"
    assert (tokens.prompts_cut, tokens.candidates_cut) == ((True, True), (True, False))


def test_the_flags_of_cut_characters_reach_the_packed_group():
    text = pipeline()
    long = "a" * (text.layout.character_limit + 1)
    packed = text.pack(text.tokenize([Group(long, (long, "a"))])[0])
    assert packed.prompt_truncated
    assert packed.truncated.tolist() == [True, False]


def test_messages_are_one_text_without_a_chat_template():
    text = pipeline()
    text.tokenize([Group((Message("system", "s"), Message("user", "u")), ())])
    assert text.tokenizer.encoded == ["System: s\nUser: u"]


def test_line_breaks_become_spaces_where_they_are_structure():
    text = pipeline("steamshp")
    text.tokenize([Group("a\nb", ("c\nd",))])
    assert sorted(text.tokenizer.encoded) == ["a b", "c d"]


def test_lone_surrogates_are_replaced_before_the_tokenizer_sees_them():
    text = pipeline()
    text.tokenize([Group("p\ud800", ("a\udfff",))])
    assert sorted(text.tokenizer.encoded) == ["a\ufffd", "p\ufffd"]


@pytest.mark.parametrize("name", ["pointwise", "set_encoder", "shared_prompt", "ordered_pair", "steamshp"])
def test_padded_tokens_are_those_of_the_packed_group(name):
    text = pipeline(name)
    (tokens,) = text.tokenize([Group("prompt", ("a", "bcd", "ef"))])
    packed = text.pack(tokens)
    assert text.padded_tokens(tokens) == len(packed.rows) * packed.length


def test_token_counts_are_those_before_truncation():
    assert pipeline().token_counts(Group("p", ("a", "b" * 500))) == [1, 500]


def test_prefix_sharing_reads_several_answers_after_one_prompt():
    text = pipeline(prefix_sharing=True)
    packed = text.pack(text.tokenize([Group("a prompt", ("a", "b"))])[0])
    assert [row.candidates for row in packed.rows] == [(0, 1)]


def test_one_order_reads_half_of_the_rows():
    group = Group("p", ("a", "b", "c"))
    both, one = pipeline("ordered_pair"), pipeline("ordered_pair", average_orders=False)
    (tokens,) = both.tokenize([group])
    assert 2 * len(one.pack(tokens).rows) == len(both.pack(tokens).rows)


def test_one_order_of_an_order_free_model_is_refused():
    with pytest.raises(
        ConfigError, match="average_orders=False is for models that read .* layout 'set_encoder' has no order"
    ):
        pipeline("set_encoder", average_orders=False)


def test_within_marks_the_tokens_of_the_spans():
    assert pipeline().within("when?", "in 1931", ((3, 7),)).tolist() == [False] * 3 + [True] * 4


def test_within_is_as_long_as_the_tokens_that_are_read():
    text = pipeline()
    limit = text.layout.character_limit
    assert text.within("p", "a" * (limit + 5), ((0, 1),)).shape == (limit,)
