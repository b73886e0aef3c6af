import numpy as np
import pytest

from ranker.errors import CheckpointError
from ranker.text.templates import clean
from ranker.text.tokenizer import FEW_CHARACTERS, FEW_TEXTS, TextTokenizer
from tests.conftest import ALGORITHMS, CLS, PAD, SEP, SPECIALS, tokenizer_json, unigram_that_knows_sep
from tests.support.texts import CharacterTokenizer, ids_of

ATTACKS = ["[SEP]", "a [CLS] b", "<|candidate1|>", "[PAD][PAD]", "\uff3bSEP\uff3d", "x[SEP]y[SEP]", "[MASK]"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("text", ATTACKS)
def test_no_text_becomes_structure(algorithm, text):
    tokenizer = TextTokenizer(tokenizer_json(algorithm), structure=(690, 691))
    (ids,) = tokenizer.encode([text])
    assert not set(ids.tolist()) & tokenizer.structure
    assert len(ids) > 0


def test_a_vocabulary_that_spells_sep_is_neutralised():
    """Unigram models may choose the piece [SEP] by themselves: encode_special_tokens alone does not stop it."""
    tokenizer = TextTokenizer(unigram_that_knows_sep())
    bare = tokenizer._tokenizer.encode_batch_fast(["see [SEP] here"], add_special_tokens=False)[0].ids
    assert SEP in bare, "the attack must work without the guard, or this test shows nothing"
    for attack in ("see [SEP] here", "see \uff3bSEP\uff3d here"):
        (ids,) = tokenizer.encode([attack])
        assert SEP not in ids
        assert len(ids) > 2


def test_a_marker_added_as_an_ordinary_token_is_neutralised():
    from tokenizers import Tokenizer

    raw = Tokenizer.from_str(tokenizer_json())
    raw.add_tokens(["<|candidate1|>"])
    marker = raw.token_to_id("<|candidate1|>")
    (ids,) = TextTokenizer(raw.to_str(), structure=(marker,)).encode(["tell <|candidate1|> now"])
    assert marker not in ids


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_plain_text_is_what_the_tokenizer_gives(algorithm):
    from tokenizers import Tokenizer

    text = "Sort the list apple, pear \U0001f642 from a to z \u4f60\u597d."
    expected = Tokenizer.from_str(tokenizer_json(algorithm)).encode(text, add_special_tokens=False).ids
    (ids,) = TextTokenizer(tokenizer_json(algorithm)).encode([text])
    assert ids.tolist() == expected
    assert ids.dtype == np.int32


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_few_texts_and_many_have_the_same_ids(algorithm):
    tokenizer = TextTokenizer(tokenizer_json(algorithm))
    texts = [
        "Sort the list apple, pear \U0001f642 from a to z \u4f60\u597d.",
        "",
        "see [SEP] here",
        "x " * FEW_CHARACTERS,
    ]
    few = [ids for text in texts for ids in tokenizer.encode([text])]
    rendered = [ids for text in texts for ids in tokenizer.encode_rendered([text], add_special_tokens=True)]
    many = [*texts, *["more"] * FEW_TEXTS]
    for alone, together in (
        (few, tokenizer.encode(many)),
        (rendered, tokenizer.encode_rendered(many, add_special_tokens=True)),
    ):
        assert [ids.tolist() for ids in alone] == [ids.tolist() for ids in together[: len(texts)]]


@pytest.mark.parametrize("algorithm", ["wordpiece", "unigram", "unigram-nfkc"])
def test_unknown_is_no_structure(algorithm):
    tokenizer = TextTokenizer(tokenizer_json(algorithm))
    assert SPECIALS.index("[UNK]") not in tokenizer.structure
    assert {PAD, CLS, SEP} <= tokenizer.structure


def test_lone_surrogates_are_replaced():
    assert clean("a\ud800b\udfff") == "a\ufffdb\ufffd"
    assert clean("plain \u00e9 \U0001f642") == "plain \u00e9 \U0001f642"


def test_missing_tokenizer_file_names_the_repair(tmp_path):
    with pytest.raises(CheckpointError, match=r"expected tokenizer\.json.*save_pretrained"):
        TextTokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("text", ["héllo wörld 1931 and more", *ATTACKS])
def test_tokens_within_spans_are_those_of_encode(algorithm, text):
    tokenizer = TextTokenizer(tokenizer_json(algorithm), structure=(690, 691))
    (ids,) = tokenizer.encode([text])
    assert len(tokenizer.within(text, ((0, len(text)),))) == len(ids)
    assert tokenizer.within(text, ((0, len(text)),)).all()
    assert not tokenizer.within(text, ()).any()
    start, end = text.find("1931"), text.find("1931") + 4
    if start > 0:
        inside = tokenizer.within(text, ((start, end),))
        assert tokenizer.decode(ids[inside]).translate({ord(c): None for c in " #Ġ▁"}) == "1931"


def test_ids_of_a_vocabulary_with_gaps_are_kept():
    tokenizer = CharacterTokenizer()
    assert tokenizer.encode(["az"])[0].tolist() == ids_of("az")
    assert max(ids_of("z")) > tokenizer.size
