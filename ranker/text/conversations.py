"""Conversations as their model reads them: rendered by its own chat template and encoded whole.

Pieces that are encoded on their own and glued together give other ids than the whole text: line breaks merge with those
of the template, and some templates write the last turn in another way. So every row is rendered and encoded whole, and
its ids are those of ``apply_chat_template``. The one exception is a row with text that spells a special token: that
text stays characters, so it is encoded apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os.path import commonprefix
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ranker.records import Group, Message, Prompt, Rendered, Spans, Turns
from ranker.text.chat import ChatTemplate, TemplateRefusal, Turn
from ranker.text.templates import SURROGATES
from ranker.text.tokenizer import Ids, TextTokenizer
from ranker.text.tokens import Tokens
from ranker.text.truncation import split_budget

SENTINEL: Final = "\U000f2983"
"""An answer that no text contains: where a row begins to differ from this one's, its answer begins."""

BOUNDARY: Final = "\U000f2984"
"""What a template writes between parts that its producer encodes apart; it is left out itself."""

ATTEMPTS: Final = 8
"""Renderings until a row that is too long fits."""

FEWEST: Final = 4
"""Rows of a group, from which on their common beginning is encoded once."""

REASONING_MARK: Final = re.compile("think|thought|reason", re.IGNORECASE)
"""Part of the names of tokens that answers may hold."""

BOS = Literal["template", "tokenizer"]


class ChatText(ChatTemplate):
    r"""A chat template, and what a producer does with its text.

    Example:
        >>> text = ChatText(template="{% for m in messages %}{{ m.content }}{% endfor %}", end="</s>")
        >>> text.finished("Hello\n")
        'Hello </s>'
    """

    bos: BOS = Field(
        "template",
        description="whose beginning of text is read: the template's (apply_chat_template), or the tokenizer's in its "
        "place (model cards that render first and tokenize then)",
    )
    end: str = Field("", description="the text ends with this; else line breaks are removed, it and a space added")
    skipped_ends: tuple[int, ...] = Field((), description="ids that are left out where a row ends with them")
    pair_roles: tuple[str, str] | None = Field(
        None, description="of rerankers: the roles of a query and of a document, which are all that the template reads"
    )
    instruction: str = Field("", description="of rerankers: a system message before the query")
    content_parts: bool = Field(False, description="of rerankers: contents are lists of parts")

    def finished(self, text: str) -> str:
        """A rendered text as the producer tokenizes it."""
        begin = str(self.variables.get("bos_token") or "")
        if self.bos == "tokenizer" and begin:
            text = text.removeprefix(begin)
        if self.end:
            text = text.rstrip("\n")
            text = text if text.endswith(self.end) else f"{text} {self.end}"
        return text


@dataclass(frozen=True, slots=True)
class _Row:
    """A conversation that is read: the messages before the answer, the answer's, and what they became."""

    before: tuple[Turn, ...]
    answer: tuple[Turn, ...]
    text: str
    special_text: bool
    prompt_cut: bool = False
    answer_cut: bool = False
    adds_specials: bool = False
    rendered: bool = False


class Conversations:
    """Renders and encodes conversations.

    A row that is too long is rendered again from less text: the oldest messages are left out and the oldest of the
    others loses its beginning, then the answer loses its end. So the template's own text is never cut.

    Args:
        tokenizer: the model's.
        chat: its template.
        max_length: tokens of a row.
        prompt_reserve: tokens that the prompt keeps before an answer is cut.
        characters: of one text that are read.
    """

    def __init__(
        self, tokenizer: TextTokenizer, chat: ChatText, *, max_length: int, prompt_reserve: int, characters: int
    ) -> None:
        self.tokenizer = tokenizer.protecting(turn_marks(chat, tokenizer))
        self.chat = chat
        self.max_length = max_length
        self.prompt_reserve = prompt_reserve
        self.characters = characters

    def tokenize(self, groups: Sequence[Group]) -> list[Tokens]:
        """See ``TextEncoder.tokenize``."""
        rows = [self._rows(group) for group in groups]
        encoded = self._encoded_groups([[row for row in group if isinstance(row, _Row)] for group in rows])
        return [self._tokens(group, group_rows, encoded) for group, group_rows in zip(groups, rows, strict=True)]

    def _encoded_groups(self, groups: Sequence[Sequence[_Row]]) -> dict[int, Ids]:
        """The ids of all rows, by the rows' ``id``; what many rows of a group begin with is encoded once.

        A group is split where the last special token begins that all its rows share. One row is encoded whole as well:
        where its ids are not those of its two parts, all rows of the group are.
        """
        cuts = [self._cut(rows) for rows in groups]
        parts: list[str] = []
        for rows, cut in zip(groups, cuts, strict=True):
            if cut:
                parts += [rows[-1].text, rows[-1].text[:cut], *(row.text[cut:] for row in rows)]
        ids = iter(self._parts(parts))
        encoded: dict[int, Ids] = {}
        for rows, cut in zip(groups, cuts, strict=True):
            if not cut:
                continue
            whole, head = next(ids), next(ids)
            joined = [np.concatenate([head, next(ids)]) for _ in rows]
            if np.array_equal(joined[-1], whole):
                encoded |= {id(row): self._ended(row_ids) for row, row_ids in zip(rows, joined, strict=True)}
        rest = [row for rows in groups for row in rows if id(row) not in encoded]
        return encoded | dict(zip(map(id, rest), self._encoded(rest), strict=True))

    def _cut(self, rows: Sequence[_Row]) -> int:
        """Where the rows of a group may be split, 0 where they are encoded whole."""
        plain = not any(row.special_text or row.rendered or row.adds_specials for row in rows)
        if not plain or len(rows) < FEWEST:
            return 0
        return self.tokenizer.last_boundary(commonprefix([row.text for row in rows]))

    def within(self, prompt: Prompt, answer: str, spans: Spans) -> NDArray[np.bool_]:
        """See ``TextEncoder.within``; of the ids from where the answer begins.

        Raises:
            TemplateRefusal: the template refuses the conversation, or changes the answer.
        """
        row = self._row(query_turns(self.chat, prompt), reply_turns(self.chat, answer))
        if BOUNDARY in row.text:
            raise TemplateRefusal("this reranker encodes the parts of its question apart, so spans cannot be found")
        if row.special_text:
            raise TemplateRefusal("the answer or its prompt spells a special token, so its spans cannot be found")
        model_row = self._fitted(row, self._encoded([row])[0])[0]
        empty = self._row(model_row.before, reply_turns(self.chat, SENTINEL))
        begin = len(commonprefix([model_row.text, empty.text]))
        text = "".join(_strings(model_row.answer[-1].get("content")))
        lead = len(text) - len(text.lstrip())
        if not model_row.text[begin:].startswith(text):
            begin -= lead
        if not model_row.text[begin + lead :].startswith(text.strip()):
            raise TemplateRefusal("the chat template changes this answer, so its spans cannot be found")
        ids, offsets = self.tokenizer.offsets(model_row.text, add_special_tokens=model_row.adds_specials)
        first = _shared(self._ended(ids), self._encoded([empty])[0])
        hit = [any(a + begin < end and start < b + begin for a, b in spans) for start, end in offsets]
        return np.array(hit[: len(self._ended(ids))], np.bool_)[first:]

    def token_counts(self, group: Group) -> list[int]:
        """See ``TextEncoder.token_counts``."""
        return [len(ids) for ids in self.tokenizer.encode([_cleaned(str(answer)) for answer in group.candidates])]

    def _rows(self, group: Group) -> list[_Row | TemplateRefusal]:
        """The rows of the candidates, then one with an answer that shows where answers begin."""
        before: tuple[Turn, ...] | TemplateRefusal
        try:
            before = query_turns(self.chat, group.prompt)
        except TemplateRefusal as refusal:
            before = refusal
        rows = [
            self._rendered(answer) if isinstance(answer, Rendered) else self._row_or_refusal(before, answer)
            for answer in group.candidates
        ]
        return [*rows, self._row_or_refusal(before, SENTINEL)]

    def _rendered(self, answer: Rendered) -> _Row:
        """A text that the caller has rendered, as it is."""
        text = _cleaned(str(answer))
        cut = len(text) > self.characters
        adds = answer.add_special_tokens
        return _Row((), (), text[: self.characters], False, answer_cut=cut, adds_specials=adds, rendered=True)

    def _row_or_refusal(self, before: tuple[Turn, ...] | TemplateRefusal, answer: str) -> _Row | TemplateRefusal:
        if isinstance(before, TemplateRefusal):
            return before
        try:
            return self._row(before, reply_turns(self.chat, answer))
        except TemplateRefusal as refusal:
            return refusal

    def rendered_pair(self, prompt: str, answer: str) -> str:
        """The text of a prompt and an answer.

        Raises:
            TemplateRefusal: the template's own.
        """
        return self._row(query_turns(self.chat, prompt), reply_turns(self.chat, answer)).text

    def _row(self, before: Sequence[Turn], answer: Sequence[Turn], *, bounded: bool = False) -> _Row:
        """The text of a conversation, from texts of bounded length.

        Raises:
            TemplateRefusal: the template's own.
        """
        if not bounded:
            kept = [_changed(turn, lambda text: _cleaned(text)[-self.characters :]) for turn in before]
            reply = [_changed(turn, lambda text: _cleaned(text)[: self.characters]) for turn in answer]
        else:
            kept, reply = list(before), list(answer)
        special = any(self.tokenizer.spells_special(text) for turn in (*kept, *reply) for text in _strings(turn))
        turns = [_changed(turn, self.tokenizer.marked) for turn in (*kept, *reply)] if special else [*kept, *reply]
        text = self.chat.finished(self.chat.render(turns))
        return _Row(
            tuple(kept),
            tuple(reply),
            text,
            special,
            adds_specials=self.chat.bos == "tokenizer",
            prompt_cut=not bounded and _characters(kept) < _characters(before),
            answer_cut=not bounded and _characters(reply) < _characters(answer),
        )

    def _encoded(self, rows: Sequence[_Row]) -> list[Ids]:
        """The ids of rows, all at once but those that spell a special token."""
        encoded: dict[int, Ids] = {}
        for adds in (False, True):
            whole = [(i, row) for i, row in enumerate(rows) if not row.special_text and row.adds_specials == adds]
            ids = self._parts([row.text for _, row in whole], adds)
            encoded |= zip([i for i, _ in whole], ids, strict=True)
        for i, row in enumerate(rows):
            if row.special_text:
                marked = [
                    self.tokenizer.encode_marked(part, add_special_tokens=row.adds_specials)
                    for part in row.text.split(BOUNDARY)
                ]
                encoded[i] = np.concatenate(marked)
        return [self._ended(encoded[i]) for i in range(len(rows))]

    def _parts(self, texts: Sequence[str], adds: bool = False) -> list[Ids]:
        """The ids of rendered texts; what a boundary separates is encoded apart."""
        parts = [text.split(BOUNDARY) for text in texts]
        ids = iter(self.tokenizer.encode_rendered([part for text in parts for part in text], add_special_tokens=adds))
        return [np.concatenate([next(ids) for _ in text]) for text in parts]

    def _ended(self, ids: Ids) -> Ids:
        end = len(ids)
        while end and int(ids[end - 1]) in self.chat.skipped_ends:
            end -= 1
        return ids[:end]

    def _tokens(self, group: Group, rows: Sequence[_Row | TemplateRefusal], encoded: dict[int, Ids]) -> Tokens:
        *answers, empty = rows
        head = encoded[id(empty)] if isinstance(empty, _Row) else None
        candidates: list[Ids] = []
        starts: list[int] = []
        prompts_cut: list[bool] = []
        answers_cut: list[bool] = []
        refused: dict[int, str] = {}
        special = False
        for number, row in enumerate(answers):
            ids = np.array([], np.int32)
            start = 0
            cut = (False, False)
            try:
                if isinstance(row, TemplateRefusal):
                    raise row
                one, ids, row_head = self._fitted(row, encoded[id(row)], head)
                start = 0 if row_head is None or one.rendered else _shared(ids, row_head)
                cut = (one.prompt_cut, one.answer_cut)
                special |= one.special_text
                if not len(ids):
                    raise TemplateRefusal("the rendered conversation has no tokens, so there is nothing to read")
            except TemplateRefusal as refusal:
                refused[number] = str(refusal)
            candidates.append(ids)
            starts.append(start)
            prompts_cut.append(cut[0])
            answers_cut.append(cut[1])
        whole = [start for start, cut in zip(starts, prompts_cut, strict=True) if not cut]
        prompt = (
            np.array([], np.int32) if head is None or not _has_text(group.prompt) else head[: max(whole, default=0)]
        )
        return Tokens(
            prompt, tuple(candidates), tuple(prompts_cut), tuple(answers_cut), tuple(starts), special, refused
        )

    def _fitted(self, row: _Row, ids: Ids, head: Ids | None = None) -> tuple[_Row, Ids, Ids | None]:
        """The row, its ids and those of its sentinel, from less text where it is too long.

        Raises:
            TemplateRefusal: the template's own text is too long.
        """
        if len(ids) <= self.max_length:
            return row, ids, head
        if row.rendered:  # as the servers of such texts cut them
            return replace(row, answer_cut=True), ids[: self.max_length], head
        if self.chat.pair_roles is not None:
            suffix = self._suffix
            kept = max(0, self.max_length - len(suffix))
            query = self.max_length if head is None else _shared(ids, head)
            cut = replace(row, prompt_cut=row.prompt_cut or query > kept, answer_cut=True)
            return cut, np.concatenate([ids[:kept], suffix]), head
        row, ids = self._shortened(row, ids)
        empty = self._row_or_refusal(row.before, SENTINEL)
        return row, ids, self._encoded([empty])[0] if isinstance(empty, _Row) else None

    @cached_property
    def _suffix(self) -> Ids:
        """What a reranker's rows end with after the document, which is never cut.

        As sentence-transformers finds it: the ids that two short pairs end with in common.
        """
        rows = [self._row(query_turns(self.chat, text), reply_turns(self.chat, text)) for text in ("0", "1 2 3 4")]
        first, second = (ids[::-1] for ids in self._encoded(rows))
        return first[: _shared(first, second)][::-1]

    def _shortened(self, row: _Row, ids: Ids) -> tuple[_Row, Ids]:
        """The row from less text: what fits of its newest messages, with as much of the message before as fits, too.

        Raises:
            TemplateRefusal: the template's own text is too long.
        """
        row, ids, fitting = self._with_recent(row, ids)
        if fitting is not None:
            older = len(row.before) - len(fitting[0].before)
            if len(ids) - self.max_length > sum(self._lengths(row.before[:older])):
                return fitting  # not even without the text of the older messages would it fit
        prompt_cut, answer_cut = row.prompt_cut, row.answer_cut
        before, answer = row.before, row.answer
        for attempt in range(ATTEMPTS):
            excess = len(ids) - self.max_length
            if excess <= 0:
                return row, ids
            excess += attempt  # a text without its first tokens may become more tokens than were left
            prompt, reply = sum(self._lengths(before)), sum(self._lengths(answer))
            if prompt + reply == 0:
                break
            kept, (left,) = split_budget(max(0, prompt + reply - excess), prompt, [reply], self.prompt_reserve)
            prompt_cut |= kept < prompt
            answer_cut |= left < reply
            before = self._without_first(before, prompt - kept)
            answer = self._without_last(answer, reply - left)
            short = self._row(before, answer, bounded=True)
            row = replace(short, prompt_cut=prompt_cut, answer_cut=answer_cut)
            (ids,) = self._encoded([row])
        if len(ids) <= self.max_length:
            return row, ids
        if fitting is not None:
            return fitting
        raise TemplateRefusal(
            f"the chat template's own text does not fit into max_length {self.max_length}; load the model with a "
            "larger max_length"
        )

    def _with_recent(self, row: _Row, ids: Ids) -> tuple[_Row, Ids, tuple[_Row, Ids] | None]:
        """The row from the last user's turn from which on it is still too long, and the one after, which fits."""
        starts = [i for i, turn in enumerate(row.before) if turn.get("role") == "user" and i]
        left = np.cumsum(self._lengths(row.before)[::-1])[::-1]  # tokens of text from each message on
        hopeless = sum(1 for start in starts[:-1] if left[start] > self.max_length)
        messages, answer_cut = row.before, row.answer_cut
        for start in starts[max(0, hopeless - 1) :]:
            try:
                short = self._row(messages[start:], row.answer, bounded=True)
            except TemplateRefusal:
                continue
            (short_ids,) = self._encoded([short])
            short = replace(short, prompt_cut=True, answer_cut=answer_cut)
            if len(short_ids) <= self.max_length:
                return row, ids, (short, short_ids)
            row, ids = short, short_ids
        return row, ids, None

    def _lengths(self, turns: Sequence[Turn]) -> list[int]:
        return [len(ids) for ids in self.tokenizer.encode([_content(turn) for turn in turns])]

    def _without_first(self, turns: Sequence[Turn], tokens: int) -> tuple[Turn, ...]:
        """The turns without their first tokens of text."""
        result = []
        for turn, length in zip(turns, self._lengths(turns), strict=True):
            cut, text = min(tokens, length), _content(turn)
            result.append(turn if not cut else _with_content(turn, text[self.tokenizer.character_of(text, cut) :]))
            tokens -= cut
        return tuple(result)

    def _without_last(self, turns: Sequence[Turn], tokens: int) -> tuple[Turn, ...]:
        """The turns without their last tokens of text."""
        result = []
        for turn, length in zip(reversed(turns), reversed(self._lengths(turns)), strict=True):
            cut, text = min(tokens, length), _content(turn)
            kept = self.tokenizer.character_of(text, length - cut) if cut else len(text)
            result.append(turn if not cut else _with_content(turn, text[:kept]))
            tokens -= cut
        return tuple(reversed(result))


def turn_marks(chat: ChatText, tokenizer: TextTokenizer) -> frozenset[int]:
    """Ids of added tokens, special or not, that a template writes around messages.

    A text that spells one would otherwise open or close a turn. Marks of reasoning are none of them: answers hold them,
    and ``apply_chat_template`` reads them so.
    """
    if chat.pair_roles is not None:  # a reranker's texts are no turns
        return frozenset()
    added = {i for i, text in tokenizer.added().items() if text.strip() and not REASONING_MARK.search(text)}
    marks: set[int] = set()
    for roles in (("user", "assistant", "user"), ("system", "user"), ("user", "tool", "user")):
        try:
            text = chat.finished(chat.render([{"role": role, "content": "a"} for role in roles]))
        except TemplateRefusal:
            continue
        marks.update(tokenizer.encode_rendered([text])[0].tolist())
    return frozenset(marks & added)


def turns_of(prompt: Prompt) -> tuple[Turn, ...]:
    """A prompt as messages: a text is the user's."""
    return ({"role": "user", "content": prompt},) if isinstance(prompt, str) else tuple(m.to_dict() for m in prompt)


def answer_turns(answer: str) -> tuple[Turn, ...]:
    """An answer as messages: a text is the assistant's."""
    if isinstance(answer, Turns):
        return tuple(message.to_dict() for message in answer.messages)
    return (Message("assistant", str(answer)).to_dict(),)


def query_turns(chat: ChatText, prompt: Prompt) -> tuple[Turn, ...]:
    """The messages before an answer: of a reranker the query, after its instruction.

    Raises:
        TemplateRefusal: a conversation, of a reranker that reads a query and a document.
    """
    turns = turns_of(prompt)
    if chat.pair_roles is None:
        return turns
    if len(turns) != 1 or turns[0].get("role") != "user" or not isinstance(turns[0].get("content"), str):
        raise TemplateRefusal(
            f"this reranker reads a query and a document, and the prompt has {len(turns)} messages; give the query as "
            "one text"
        )
    query = _message(chat, chat.pair_roles[0], turns[0]["content"])
    return (_message(chat, "system", chat.instruction), query) if chat.instruction else (query,)


def reply_turns(chat: ChatText, answer: str) -> tuple[Turn, ...]:
    """The messages of an answer: of a reranker the document."""
    return answer_turns(answer) if chat.pair_roles is None else (_message(chat, chat.pair_roles[1], str(answer)),)


def messages_of(chat: ChatText, prompt: Prompt, answer: str) -> list[Turn]:
    """All messages of a row.

    Raises:
        TemplateRefusal: as ``query_turns``.
    """
    return [*query_turns(chat, prompt), *reply_turns(chat, answer)]


def _message(chat: ChatText, role: str, text: str) -> Turn:
    return {"role": role, "content": [{"type": "text", "text": text}] if chat.content_parts else text}


def _has_text(prompt: Prompt) -> bool:
    return bool(prompt) if isinstance(prompt, str) else any(message.content for message in prompt)


def _content(turn: Turn) -> str:
    """The text that may be cut: lists of parts are structure."""
    content = turn.get("content")
    return content if isinstance(content, str) else ""


def _with_content(turn: Turn, text: str) -> Turn:
    return {**turn, "content": text}


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    return [text for item in value for text in _strings(item)] if isinstance(value, list | tuple) else []


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """The same with every text but roles and types changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: item if key in ("role", "type") else _changed(item, change) for key, item in value.items()}
    return [_changed(item, change) for item in value] if isinstance(value, list | tuple) else value


def _characters(turns: Sequence[Turn]) -> int:
    return sum(map(len, (text for turn in turns for text in _strings(turn))))


def _cleaned(text: str) -> str:
    return text if text.isascii() else text.translate(SURROGATES)


def _shared(one: Ids, other: Ids) -> int:
    """How many ids two rows begin with in common."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length
