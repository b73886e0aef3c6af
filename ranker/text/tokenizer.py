"""A thin cover over ``tokenizers``: user text in, ids out, and no user text becomes structure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ranker.errors import CheckpointError, one_line
from ranker.records import Spans

Ids = NDArray[np.int32]
FILE_NAME: Final = "tokenizer.json"
COMPANIONS: Final = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
"""Files that other libraries read beside ``tokenizer.json``; kept with a checkpoint, not needed to score."""

LARGEST_ID: Final = 10_000_000
MOST_GROWTH: Final = 64
LONGEST_PIECE: Final = 100
"""Bounds of what a tokenizer from elsewhere may ask for: its ids, and how much longer it makes a text."""

FEW_TEXTS: Final = 4
FEW_CHARACTERS: Final = 16_384
"""What is encoded in the calling thread. The library's threads spin for a while after their work, which takes the
processors from the forward pass that follows: on two cores a call of one short answer took twice as long."""

MARKS: Final = ("\U000f0001", "\U000f0002")
"""Characters of private use around text that spells a special token and must stay characters."""


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
        values = json.loads(text)
        check_growth(values)
        if values["model"].get("dropout"):  # of training: one text would have other ids every time
            values["model"]["dropout"] = None
            text = json.dumps(values, ensure_ascii=False)
        self.text = text
        self.companions = dict(companions or {})
        self._tokenizer: Tokenizer = _parsed(text)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self._unknown = _unknown_id(self._tokenizer, values["model"])
        special = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        self.structure = frozenset((special | set(structure)) - {self._unknown})
        known = self._tokenizer.get_vocab(with_added_tokens=True).values()  # ids may have gaps
        largest = max(0, *known, *self.structure)
        if largest > LARGEST_ID:
            raise ValueError(f"an id of {largest}, expected at most {LARGEST_ID}")
        self._is_structure = np.zeros(largest + 1, np.bool_)
        self._is_structure[list(self.structure)] = True

    def protecting(self, ids: Iterable[int]) -> TextTokenizer:
        """The same tokenizer, in which no text becomes one of ``ids`` either."""
        more = frozenset(ids) - self.structure - {self._unknown}
        if not more:
            return self
        changed = copy(self)
        for name in ("_special", "_marked_parts"):
            changed.__dict__.pop(name, None)
        changed.structure = self.structure | more
        changed._is_structure = self._is_structure.copy()
        changed._is_structure[list(more)] = True
        return changed

    def added(self) -> dict[int, str]:
        """Tokens that were added to the vocabulary, by their ids: they are found in texts before anything else."""
        return {i: token.content for i, token in self._tokenizer.get_added_tokens_decoder().items()}

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
            raise CheckpointError(f"{path}: damaged ({one_line(error)}); copy it again from its source") from error

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and its companions."""
        for name, text in {**self.companions, FILE_NAME: self.text}.items():
            (folder / name).write_text(text, encoding="utf-8")

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, no specials added, never an id of ``structure``. Texts must hold no lone surrogates."""
        ids, together = _arrays(_encoded(self._tokenizer, texts, add_special_tokens=False))
        if not self._is_structure[together].any():
            return ids
        return [self._without_structure(text) for text in ids]

    def encode_rendered(self, texts: Sequence[str], *, add_special_tokens: bool = False) -> list[Ids]:
        """Ids of texts that hold their structure already: special tokens are recognised.

        Args:
            texts: without lone surrogates.
            add_special_tokens: whether the tokenizer adds those of its own template, as it does for a single text.
        """
        return _arrays(_encoded(self._recognising, texts, add_special_tokens=add_special_tokens))[0]

    def encode_marked(self, text: str, *, add_special_tokens: bool = False) -> Ids:
        """Ids of a rendered text with parts that ``marked`` marked: those are encoded apart, as characters.

        Every part but the first is encoded after a line break, which is then removed: SentencePiece puts a space before
        a text. Source: ``encode_marked_chat`` of transformers.
        """
        first, *parts = self._marked_parts.split(text)
        ids = [self.encode_rendered([first], add_special_tokens=add_special_tokens)[0]]
        for number, part in enumerate(parts):
            if part:
                ids.append(self._characters(part) if number % 2 == 0 else self._continued(part))
        return np.concatenate(ids)

    def _characters(self, text: str) -> Ids:
        line_break, after = self.encode(["\n", f"\n{text}"])
        same = np.array_equal(after[: len(line_break)], line_break)
        return after[len(line_break) :] if same else self.encode([text])[0]

    def _continued(self, text: str) -> Ids:
        line_break, after = self.encode_rendered(["\n", f"\n{text}"])
        same = np.array_equal(after[: len(line_break)], line_break)
        return after[len(line_break) :] if same else self.encode_rendered([text])[0]

    def last_boundary(self, text: str) -> int:
        """The position of the last special token in a rendered text; 0 if it has no special token.

        A tokenizer splits a text at its special tokens first. So the ids of the text before this position, followed by
        the ids of the text from there on, are the ids of the whole text.
        """
        place = 0
        for match in self._boundaries.finditer(text):
            place = match.start()
        return place

    def spells_special(self, text: str) -> bool:
        """Whether a text holds the characters of a special token."""
        return self._special.search(text) is not None

    def marked(self, text: str) -> str:
        """A text whose special tokens are marked, for ``encode_marked``; marks of its own are removed."""
        begin, end = MARKS
        return self._special.sub(f"{begin}\\g<0>{end}", text.replace(begin, "").replace(end, ""))

    def offsets(self, text: str, *, add_special_tokens: bool = False) -> tuple[Ids, list[tuple[int, int]]]:
        """Ids of a rendered text, and the characters (start, end) that each stands for."""
        encoded = self._recognising.encode(text, add_special_tokens=add_special_tokens)
        return np.array(encoded.ids, np.int32), encoded.offsets

    def character_of(self, text: str, token: int) -> int:
        """Where the ``token``-th token of a user's text begins; the text's length past its end."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return offsets[token][0] if token < len(offsets) else len(text)

    @cached_property
    def _recognising(self) -> Tokenizer:
        """The same tokenizer, special tokens recognised in texts."""
        tokenizer = Tokenizer.from_str(self.text)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """Matches special tokens, the longest first, and added ones that are structure."""
        tokens = self._tokenizer.get_added_tokens_decoder().items()
        texts = (token.content for i, token in tokens if token.special or i in self.structure)
        contents = sorted(texts, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, filter(None, contents))) or "(?!)")

    @cached_property
    def _boundaries(self) -> re.Pattern[str]:
        """Matches special tokens that take nothing of the text before them."""
        tokens = self._tokenizer.get_added_tokens_decoder().values()
        kept = [
            t.content for t in tokens if t.special and t.content and not (t.lstrip or t.normalized or t.single_word)
        ]
        return re.compile("|".join(map(re.escape, sorted(kept, key=len, reverse=True))) or "(?!)")

    @cached_property
    def _marked_parts(self) -> re.Pattern[str]:
        """Matches a marked special token, or a lone mark, which a template left when it split a text."""
        begin, end = MARKS
        return re.compile(f"{begin}({self._special.pattern}){end}|[{begin}{end}]")

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


def _parsed(text: str) -> Tokenizer:
    """The library's tokenizer.

    Raises:
        ValueError: a tokenizer that it cannot read; it may panic, which is no exception of Python.
    """
    try:
        return Tokenizer.from_str(text)
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ValueError(f"{type(error).__name__}: {str(error):.200}") from error
        raise


def check_growth(values: Any) -> None:
    """Refuse a tokenizer whose normalizer makes very long texts of short ones.

    Raises:
        ValueError: naming the step.
    """
    growth = 1.0
    for step in [*_steps(values.get("normalizer")), *_steps(values.get("pre_tokenizer"))]:
        if step.get("type") == "Replace":
            pattern, content = step["pattern"], len(step["content"])
            growth *= max(1.0, content / max(1, len(pattern["String"])) if "String" in pattern else content + 1)
        longest = max(
            (len(value) for name, value in step.items() if name in ("prepend", "replacement", "content")), default=0
        )
        if growth > MOST_GROWTH or longest > LONGEST_PIECE:
            raise ValueError(f"its step {step.get('type')} makes texts more than {MOST_GROWTH} times as long")


def _steps(component: Any) -> Iterator[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, those of sequences one by one."""
    if isinstance(component, dict):
        yield component
        for name in ("normalizers", "pretokenizers"):
            for step in component.get(name) or ():
                yield from _steps(step)


def _encoded(tokenizer: Tokenizer, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
    """Ids of each text: many in the library's threads, a few short ones in this thread."""
    if len(texts) <= FEW_TEXTS and sum(map(len, texts)) <= FEW_CHARACTERS:
        return [tokenizer.encode(text, add_special_tokens=add_special_tokens).ids for text in texts]
    encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
    return [e.ids for e in encoded]


def _arrays(lists: list[list[int]]) -> tuple[list[Ids], Ids]:
    """Lists of ids as arrays, which are parts of one array of all of them: it is made at once, not text by text."""
    ends = list(accumulate(map(len, lists), initial=0))
    together = np.fromiter(chain.from_iterable(lists), np.int32, ends[-1])
    return [together[start:end] for start, end in pairwise(ends)], together


def _unknown_id(tokenizer: Tokenizer, model: Mapping[str, Any]) -> int | None:
    """The id of unknown text: WordPiece and BPE name its token, Unigram its id; byte-level vocabularies have none."""
    if isinstance(model.get("unk_token"), str):
        return tokenizer.token_to_id(model["unk_token"])
    return model.get("unk_id")
