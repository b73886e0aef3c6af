"""A thin cover over ``tokenizers``: user text in, ids out, and no user text becomes structure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ranker.errors import CheckpointError
from ranker.records import Spans

Ids = NDArray[np.int32]
FILE_NAME: Final = "tokenizer.json"
COMPANIONS: Final = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
"""Files that other libraries read beside ``tokenizer.json``; kept with a checkpoint, not needed to score."""


class TextTokenizer:
    """Encodes user text without adding structure and without letting text spell it.

    ``encode_special_tokens`` makes the Rust tokenizer treat ``[SEP]`` in a text as characters. That is not enough for a
    Unigram vocabulary, whose model can still choose the piece, nor for markers added as ordinary tokens; so every id
    in ``structure`` that still appears is spelled out in two halves, or becomes the unknown token.

    Args:
        text: the content of a ``tokenizer.json``.
        structure: ids that only the packer may insert, besides the tokenizer's own special tokens.
        companions: the other files of a tokenizer's folder, by name.
    """

    def __init__(self, text: str, structure: Iterable[int] = (), companions: Mapping[str, str] | None = None) -> None:
        self.text = text
        self.companions = dict(companions or {})
        self._tokenizer: Tokenizer = Tokenizer.from_str(text)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self._unknown = _unknown_id(self._tokenizer, json.loads(text)["model"])
        special = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        self.structure = frozenset((special | set(structure)) - {self._unknown})
        known = self._tokenizer.get_vocab(with_added_tokens=True).values()  # ids may have gaps
        self._is_structure = np.zeros(max(0, *known, *self.structure) + 1, np.bool_)
        self._is_structure[list(self.structure)] = True

    @classmethod
    def from_folder(cls, folder: Path, structure: Iterable[int] = ()) -> TextTokenizer:
        """Read ``tokenizer.json`` and its companions from a checkpoint folder.

        Raises:
            CheckpointError: the folder has none, or it is damaged.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            raise CheckpointError(
                f"{folder}: expected {FILE_NAME}; a slow tokenizer is converted by "
                "transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
            )
        companions = {n: (folder / n).read_text(encoding="utf-8") for n in COMPANIONS if (folder / n).is_file()}
        try:
            return cls(path.read_text(encoding="utf-8"), structure, companions)
        except Exception as error:  # the library raises no class of its own
            raise CheckpointError(f"{path}: damaged ({error}); copy it again from its source") from error

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and its companions."""
        for name, text in {**self.companions, FILE_NAME: self.text}.items():
            (folder / name).write_text(text, encoding="utf-8")

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, no specials added, never an id of ``structure``. Texts must hold no lone surrogates."""
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self._without_structure(np.array(e.ids, np.int32)) for e in encoded]

    def within(self, text: str, spans: Spans) -> NDArray[np.bool_]:
        """Which tokens of ``encode([text])`` have a character in one of ``spans``: (tokens,)."""
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        ids = np.array(encoded.ids, np.int32)
        hit = [any(start < b and a < end for a, b in spans) for start, end in encoded.offsets]
        copies = [len(self._spelled(int(i))) if bad else 1 for i, bad in zip(ids, self._is_structure[ids], strict=True)]
        return np.repeat(np.array(hit, np.bool_), copies)

    @property
    def size(self) -> int:
        """Ids that the tokenizer has tokens for."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def with_tokens(self, tokens: Mapping[str, int]) -> TextTokenizer:
        """The same tokenizer with further special tokens.

        Args:
            tokens: their ids, which must follow those that are there.

        Raises:
            CheckpointError: an id is not the next one.
        """
        changed: Tokenizer = Tokenizer.from_str(self.text)
        for token, wanted in sorted(tokens.items(), key=lambda item: item[1]):
            changed.add_special_tokens([token])
            if changed.token_to_id(token) != wanted:
                raise CheckpointError(
                    f"'{token}' would get id {changed.token_to_id(token)} in this tokenizer, expected {wanted}"
                )
        return TextTokenizer(changed.to_str(), self.structure, self.companions)

    def token(self, token_id: int) -> str | None:
        """The surface of an id, None for markers, which have none."""
        return self._tokenizer.id_to_token(token_id)

    def decode(self, ids: Ids) -> str:
        """Readable text of ids, special tokens kept."""
        return str(self._tokenizer.decode(ids.tolist(), skip_special_tokens=False))

    def _without_structure(self, ids: Ids) -> Ids:
        is_structure = self._is_structure[ids]
        if not is_structure.any():
            return ids
        return np.concatenate(
            [
                self._spelled(int(i)) if bad else ids[k : k + 1]
                for k, (i, bad) in enumerate(zip(ids, is_structure, strict=True))
            ]
        )

    def _spelled(self, token_id: int) -> Ids:
        surface = self._tokenizer.id_to_token(token_id) or ""
        halves = self._tokenizer.encode_batch_fast([surface[:1], surface[1:]], add_special_tokens=False)
        spelled = np.array([i for half in halves for i in half.ids], np.int32)
        if not self._is_structure[spelled].any():
            return spelled
        return np.array([] if self._unknown is None else [self._unknown], np.int32)


def _unknown_id(tokenizer: Tokenizer, model: Mapping[str, Any]) -> int | None:
    """The id of unknown text: WordPiece and BPE name its token, Unigram its id; byte-level vocabularies have none."""
    if isinstance(model.get("unk_token"), str):
        return tokenizer.token_to_id(model["unk_token"])
    return model.get("unk_id")
