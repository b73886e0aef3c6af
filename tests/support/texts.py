"""A tokenizer whose ids are easy to predict: one per character."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from ranker.text.tokenizer import Ids, TextTokenizer

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
FIRST_ID = 100
"""The id of the space; other printable ASCII characters follow in their order."""


class CharacterTokenizer(TextTokenizer):
    """One id per printable ASCII character, and a record of the texts that were encoded."""

    def __init__(self) -> None:
        characters = {chr(code): FIRST_ID + code - 32 for code in range(32, 127)}
        vocabulary = {token: number for number, token in enumerate(SPECIALS)} | characters
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
        tokenizer.add_special_tokens(list(SPECIALS))
        super().__init__(tokenizer.to_str())
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """See ``TextTokenizer.encode``."""
        self.encoded += texts
        return super().encode(texts)


def ids_of(text: str) -> list[int]:
    """The ids that ``CharacterTokenizer`` gives."""
    return [FIRST_ID + ord(character) - 32 for character in text]
