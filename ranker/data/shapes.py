"""Rows of data sets and libraries with columns of their own, in the shapes that ``ranker.data.formats`` reads.

A shape keeps the order in which a row holds its answers, so that scores stand in the order of the columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ranker.data.fields import common_turns, is_conversation, listed, messages, transcript
from ranker.data.read_row import MESSAGE_PARTS, SHAREGPT_PARTS, Row, column_at, inner_keys
from ranker.errors import DataError
from ranker.records import Turns

Adapt = Callable[[Row], dict[str, Any]]

ULTRAFEEDBACK: Final = ("helpfulness", "honesty", "instruction_following", "truthfulness")
HELPSTEER: Final = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


@dataclass(frozen=True, slots=True)
class RowShape:
    """Rows with columns of their own.

    Attributes:
        title: whose rows these are, for errors.
        columns: the columns that ``adapt`` reads.
        adapt: from a row to a row in a shape of ``ranker.data.formats``.
        marks: columns, or paths in them, that together occur in these rows only; without them a row is never taken for
            one of these unless its data set is named.
        refusal: why these rows cannot be read one by one, and what to do.
        inner: the keys that are read of objects in the columns.
        whole: whether ``adapt`` keeps the other columns, so that they are read or named like those of any row.
    """

    title: str
    columns: tuple[str, ...]
    adapt: Adapt = dict
    marks: tuple[str, ...] = ()
    refusal: str = ""
    inner: tuple[str, ...] = ()
    whole: bool = False

    def matches(self, row: Row) -> bool:
        """Whether a row has the columns that only these rows have."""
        return bool(self.marks) and all(_has(row, mark) for mark in self.marks)

    def unread(self, row: Row, adapted: Row) -> dict[str, Any]:
        """Columns, and keys in the columns that are read, that ``adapt`` leaves out or puts others in place of."""
        if self.whole:
            others = (name for name in row if name not in self.columns)
            return {name: row[name] for name in others if adapted.get(name) is not row[name]}
        left = {name: row[name] for name in row if name not in self.columns}
        if self.inner:
            names = (key for name in self.columns for key in inner_keys(name, row.get(name), self.inner))
            left |= dict.fromkeys(names, "text")
        return left

    def adapted(self, row: Row, where: str) -> dict[str, Any]:
        """The row in a shape of ``ranker.data.formats``.

        Raises:
            DataError: columns that are missing or hold something else.
        """
        if self.refusal:
            raise DataError(where, self.columns[0], self.refusal)
        try:
            return self.adapt(row)
        except DataError as error:
            raise DataError(where, error.field, error.reason) from error
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            names = ", ".join(self.columns)
            reason = f"expected {names} as {self.title} has them ({type(error).__name__}: {error})"
            raise DataError(where, self.columns[0], f"{reason:.400}") from error


def shape_of(row: Row) -> RowShape | None:
    """The shape whose columns a row has; None where no shape's columns say so."""
    names = row.keys()
    return next((shape for columns, shape in MARKED if columns <= names and shape.matches(row)), None)


def _has(row: Row, path: str) -> bool:
    try:
        return column_at(row, path, "") is not None
    except DataError:
        return False


def _hh(row: Row) -> dict[str, Any]:
    return {"chosen": transcript(row["chosen"]), "rejected": transcript(row["rejected"])}


def _ultrafeedback(row: Row) -> dict[str, Any]:
    completions = row["completions"]
    return {
        "prompt": row["instruction"],
        "candidates": [c["response"] for c in completions],
        "scores": {a: [_rating(c["annotations"][a]["Rating"]) for c in completions] for a in ULTRAFEEDBACK},
        "subset": row.get("source"),
    }


def _rating(value: Any) -> float | None:
    return None if value in (None, "N/A", "") else float(value)


def _binarized(row: Row) -> dict[str, Any]:
    tie = float(row["score_chosen"]) == float(row["score_rejected"])
    prompt = {} if is_conversation(row["chosen"]) else {"prompt": row["prompt"]}
    return prompt | {"chosen": row["chosen"], "rejected": row["rejected"], "label": 0.5 if tie else 1.0}


def _helpsteer2(row: Row) -> dict[str, Any]:
    return {
        "prompt": extra_id_turns(row["prompt"]),
        "response": row["response"],
        "scores": {name: row[name] for name in HELPSTEER},
    }


def extra_id_turns(prompt: str) -> list[dict[str, str]]:
    """Messages of a prompt whose later turns begin with a line ``<extra_id_1>User`` or ``<extra_id_1>Assistant``."""
    system, prompt = _system_of(prompt)
    first, *later = re.split(r"\n?<extra_id_1>(User|Assistant)\n", prompt)
    turns = zip(["User", *later[::2]], [first, *later[1::2]], strict=True)
    return [*system, *({"role": name.lower(), "content": content} for name, content in turns)]


def _system_of(prompt: str) -> tuple[list[dict[str, str]], str]:
    """The system message of a prompt that begins with a line ``<extra_id_0>System``, and the rest."""
    match = re.match(r"<extra_id_0>System\n(.*?)\n?<extra_id_1>User\n", prompt, re.DOTALL)
    return ([], prompt) if match is None else ([{"role": "system", "content": match[1]}], prompt[match.end() :])


def _choice(value: Any, count: int = 2) -> int:
    """The number of one of ``count`` answers."""
    number = int(value)
    if number != float(value) or not 0 <= number < count:
        raise ValueError(f"expected a number below {count}, got {value!r:.20}")
    return number


def _helpsteer3(row: Row) -> dict[str, Any]:
    strength = row["overall_preference"]
    return {
        "prompt": row["context"],
        "candidates": [row["response1"], row["response2"]],
        "scores": [None, None] if strength in (None, "") or strength != strength else _wins(-float(strength)),
        "subset": row.get("domain"),
    }


def _wins(lead: float) -> list[float]:
    """The labels of two answers of which the first leads by ``lead``; below 0 the second is better."""
    return [0.5, 0.5] if lead == 0 else [float(lead > 0), float(lead < 0)]


def _shp(row: Row) -> dict[str, Any]:
    return {
        "prompt": row["history"],
        "candidates": [row["human_ref_A"], row["human_ref_B"]],
        "scores": _wins(2 * _choice(row["labels"]) - 1),
        "subset": row.get("domain"),
    }


def _unified(row: Row) -> dict[str, Any]:
    conversations = [row["conv_A"], row["conv_B"]]
    ratings = [row["conv_A_rating"], row["conv_B_rating"]]
    scores = [None, None] if None in ratings else _wins(float(ratings[0]) - float(ratings[1]))
    return _two_conversations(conversations, ("conv_A", "conv_B")) | {"scores": scores, "subset": row.get("source")}


def _two_conversations(conversations: Sequence[Any], names: tuple[str, str]) -> dict[str, Any]:
    """The turns that both conversations begin with as the prompt, and the rest of each as the answers."""
    turns = [messages(turns, "", name) for turns, name in zip(conversations, names, strict=True)]
    prompt, answers = common_turns(turns, "", names)
    return {
        "prompt": [message.to_dict() for message in prompt],
        "candidates": [
            [message.to_dict() for message in answer.messages] if isinstance(answer, Turns) else answer
            for answer in answers
        ],
    }


def _webgpt(row: Row) -> dict[str, Any]:
    question = row["question"]
    return {
        "prompt": question["full_text"] if isinstance(question, Mapping) else question,
        "candidates": [row["answer_0"], row["answer_1"]],
        "scores": [row["score_0"], row["score_1"]],
    }


def _summarize(row: Row) -> dict[str, Any]:
    info, choice = row["info"], _choice(row["choice"], len(row["summaries"]))
    texts = [summary["text"].strip() for summary in row["summaries"]]
    post = info.get("post") or info["article"]
    title = f"{info['title']}\n\n" if info.get("title") else ""
    return {
        "prompt": f"Summarize:\n\n{title}{post}",
        "candidates": texts,
        "scores": [float(i == choice) for i in range(len(texts))],
        "subset": info.get("subreddit") or info.get("site"),
    }


def _safe_rlhf(row: Row) -> dict[str, Any]:
    better = _choice(row["better_response_id"])
    return {
        "prompt": row["prompt"],
        "candidates": [row["response_0"], row["response_1"]],
        "scores": [[1.0, 0.0], [0.0, 1.0]][better],
    }


def _nectar(row: Row) -> dict[str, Any]:
    answers = row["answers"]
    return {
        "prompt": row["prompt"],  # a transcript up to the answer
        "candidates": [a["answer"] for a in answers],
        "scores": [-float(a["rank"]) for a in answers],
    }


def _openai(row: Row) -> dict[str, Any]:
    return {
        "prompt": row["input"]["messages"],
        "chosen": row["preferred_output"],
        "rejected": row["non_preferred_output"],
    } | {key: value for key, value in row["input"].items() if key != "messages"}


def _swift(row: Row) -> dict[str, Any]:
    *before, last = row["messages"]
    rejected = row["rejected_response"]
    others = {name: value for name, value in row.items() if name not in ("messages", "rejected_response")}
    if isinstance(rejected, str):
        return others | {"prompt": before, "chosen": [last], "rejected": [{"role": "assistant", "content": rejected}]}
    scores = [1.0] + [0.0] * len(rejected)
    return others | {"prompt": before, "candidates": [[last], *rejected], "scores": scores}


def _arena(row: Row) -> dict[str, Any]:
    conversations = [row["conversation_a"], row["conversation_b"]]
    if row.get("turn") not in (None, ""):  # MT-Bench judges the answer of one of two turns
        turns = int(float(row["turn"]))
        conversations = [conversation[: 2 * turns] for conversation in conversations]
    lead = {"model_a": 1, "model_b": -1}.get(row["winner"], 0)
    if not lead and not str(row["winner"]).startswith(("tie", "both_bad")):
        raise ValueError(f"unknown winner {row['winner']!r:.40}")
    both = _two_conversations(conversations, ("conversation_a", "conversation_b"))
    return both | {"scores": _wins(lead)}


def _arena_table(row: Row) -> dict[str, Any]:
    asked, first, second = (_texts(row[name]) for name in ("prompt", "response_a", "response_b"))
    conversations = [
        [
            {"role": role, "content": text or ""}
            for pair in zip(asked, answers, strict=True)
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        for answers in (first, second)
    ]
    wins = [_choice(row[name]) for name in ("winner_model_a", "winner_model_b", "winner_tie")]
    if sum(wins) != 1:
        raise ValueError(f"expected one winner or a tie, got {wins}")
    return _two_conversations(conversations, ("response_a", "response_b")) | {"scores": _wins(wins[0] - wins[1])}


def _texts(value: Any) -> list[Any]:
    """Texts of the turns: a list, a list as JSON, or the text of the only turn."""
    value = listed(value)
    return [value] if isinstance(value, str) else list(value)


def _nemo(row: Row) -> dict[str, Any]:
    completions = row["completions"]
    return {
        "prompt": row["context"],
        "candidates": [c["completion"] for c in completions],
        "scores": [-float(c["rank"]) for c in completions],
    }


def _stack_exchange(row: Row) -> dict[str, Any]:
    answers = row["answers"]
    return {
        "prompt": row["question"],
        "candidates": [a["text"] for a in answers],
        "scores": [a["pm_score"] for a in answers],
    }


def _stack_exchange_pair(row: Row) -> dict[str, Any]:
    return {"prompt": row["question"], "chosen": row["response_j"], "rejected": row["response_k"]}


def _judge_bench(row: Row) -> dict[str, Any]:
    lead = {"A>B": 1, "B>A": -1, "A=B": 0}[row["label"]]
    return {"prompt": row["question"], "candidates": [row["response_A"], row["response_B"]], "scores": _wins(lead)}


def _prometheus(row: Row) -> dict[str, Any]:
    lead = {"A": 1, "B": -1}[row["orig_preference"]]
    candidates = [row["orig_response_A"], row["orig_response_B"]]
    return {"prompt": row["orig_instruction"], "candidates": candidates, "scores": _wins(lead)}


HH: Final = RowShape("Anthropic/hh-rlhf", ("chosen", "rejected"), _hh)
PAIRS: Final = RowShape("a data set of pairs", ("chosen", "rejected"), whole=True)
ULTRAFEEDBACK_LISTS: Final = RowShape(
    "openbmb/UltraFeedback",
    ("instruction", "completions", "source"),
    _ultrafeedback,
    ("instruction", "completions.0.response", "completions.0.annotations"),
    inner=("response", "annotations"),
)
BINARIZED: Final = RowShape(
    "HuggingFaceH4/ultrafeedback_binarized",
    ("chosen", "rejected", "score_chosen", "score_rejected", "prompt", "messages", "prompt_id"),
    _binarized,
    ("prompt_id", "messages", "chosen", "rejected", "score_chosen", "score_rejected"),
)
HELPSTEER_ROWS: Final = RowShape(
    "nvidia/HelpSteer2", ("prompt", "response", *HELPSTEER), _helpsteer2, ("prompt", "response", *HELPSTEER)
)
HELPSTEER3: Final = RowShape(
    "nvidia/HelpSteer3",
    ("context", "response1", "response2", "overall_preference", "domain"),
    _helpsteer3,
    ("context", "response1", "response2", "overall_preference"),
    inner=(*MESSAGE_PARTS, *SHAREGPT_PARTS),
)
SHP: Final = RowShape(
    "stanfordnlp/SHP",
    ("history", "human_ref_A", "human_ref_B", "labels", "domain"),
    _shp,
    ("history", "human_ref_A", "human_ref_B", "labels"),
)
MIX_INSTRUCT: Final = RowShape("llm-blender/mix-instruct", ("instruction", "input", "candidates"), whole=True)
UNIFIED: Final = RowShape(
    "llm-blender/Unified-Feedback",
    ("conv_A", "conv_B", "conv_A_rating", "conv_B_rating", "source"),
    _unified,
    ("conv_A", "conv_B"),
    inner=(*MESSAGE_PARTS, *SHAREGPT_PARTS),
)
WEBGPT: Final = RowShape(
    "openai/webgpt_comparisons",
    ("question", "answer_0", "answer_1", "score_0", "score_1"),
    _webgpt,
    ("question", "answer_0", "answer_1", "score_0", "score_1"),
    inner=("full_text", "dataset", "id"),
)
SUMMARIZE: Final = RowShape(
    "openai/summarize_from_feedback",
    ("info", "summaries", "choice"),
    _summarize,
    ("info", "summaries.0.text", "choice"),
    inner=("id", "post", "article", "title", "subreddit", "site", "text", "policy"),
)
SAFE_RLHF: Final = RowShape(
    "PKU-Alignment/PKU-SafeRLHF",
    ("prompt", "response_0", "response_1", "better_response_id"),
    _safe_rlhf,
    ("prompt", "response_0", "response_1", "better_response_id"),
)
OASST: Final = RowShape(
    "OpenAssistant/oasst2",
    ("message_id", "parent_id", "text", "role", "rank"),
    marks=("message_id", "text", "role"),
    refusal="expected a prompt with its answers, got one message of a tree; read the whole file as oasst2=FILE",
)
NECTAR: Final = RowShape(
    "berkeley-nest/Nectar",
    ("prompt", "answers"),
    _nectar,
    ("prompt", "answers.0.answer", "answers.0.rank"),
    inner=("answer", "rank", "model"),
)

SHAPES: Final = (
    ULTRAFEEDBACK_LISTS,
    BINARIZED,
    HELPSTEER_ROWS,
    HELPSTEER3,
    SHP,
    UNIFIED,
    WEBGPT,
    SUMMARIZE,
    SAFE_RLHF,
    OASST,
    NECTAR,
    RowShape(
        "OpenAI's preference fine-tuning",
        ("input", "preferred_output", "non_preferred_output"),
        _openai,
        ("input.messages", "preferred_output", "non_preferred_output"),
    ),
    RowShape("ms-swift", ("messages", "rejected_response"), _swift, ("messages", "rejected_response"), whole=True),
    RowShape(
        "lmsys/chatbot_arena_conversations",
        ("conversation_a", "conversation_b", "winner", "turn"),
        _arena,
        ("conversation_a", "conversation_b", "winner"),
        inner=(*MESSAGE_PARTS, *SHAREGPT_PARTS),
    ),
    RowShape(
        "lmsys/lmsys-arena-human-preference-55k",
        ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"),
        _arena_table,
        ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"),
    ),
    RowShape(
        "NeMo-RL's preferences",
        ("context", "completions"),
        _nemo,
        ("context", "completions.0.completion", "completions.0.rank"),
        inner=("completion", "rank", *MESSAGE_PARTS),
    ),
    RowShape(
        "HuggingFaceH4/stack-exchange-preferences",
        ("question", "answers"),
        _stack_exchange,
        ("question", "answers.0.text", "answers.0.pm_score"),
        inner=("text", "pm_score", "author", "author_id", "author_profile"),
    ),
    RowShape(
        "lvwerra/stack-exchange-paired",
        ("question", "response_j", "response_k"),
        _stack_exchange_pair,
        ("question", "response_j", "response_k"),
    ),
    RowShape(
        "JudgeBench",
        ("question", "response_A", "response_B", "label"),
        _judge_bench,
        ("question", "response_A", "response_B", "label"),
    ),
    RowShape(
        "prometheus-eval/Preference-Collection",
        ("orig_instruction", "orig_response_A", "orig_response_B", "orig_preference"),
        _prometheus,
        ("orig_instruction", "orig_response_A", "orig_response_B", "orig_preference"),
    ),
    RowShape(
        "rows of token ids",
        ("input_ids_chosen", "input_ids_rejected"),
        marks=("input_ids_chosen", "input_ids_rejected"),
        refusal="expected texts, got token ids; give the texts, which are tokenised as the model reads them",
    ),
    RowShape(
        "rows of token ids",
        ("chosen_input_ids", "rejected_input_ids"),
        marks=("chosen_input_ids", "rejected_input_ids"),
        refusal="expected texts, got token ids; give the texts, which are tokenised as the model reads them",
    ),
)
"""Shapes that rows are checked for, by their ``marks``."""

MARKED: Final = tuple((frozenset(mark.partition(".")[0] for mark in shape.marks), shape) for shape in SHAPES)
"""The shapes with the columns of their marks, which are looked at first: most rows are of no shape."""
