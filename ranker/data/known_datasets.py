"""Known preference datasets of the hub: their path, their licence, and how their rows are converted.

``data.train: [hh-rlhf]`` or ``[shp:validation]`` is enough. An adapter takes one row of the dataset and gives a row in
a shape of ``ranker.data.formats``, or None for a row that holds no preference.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from ranker.data.fields import transcript

Row = dict[str, Any]
Adapter = Callable[[Mapping[str, Any]], Row | None]

ULTRAFEEDBACK: Final = ("helpfulness", "honesty", "instruction_following", "truthfulness")
HELPSTEER: Final = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset as it is on the hub.

    ``columns`` are those that ``adapt`` reads. ``licence`` is quoted from its card; the terms of its sources may also
    apply. ``gather`` joins rows before ``adapt``, where a preference is spread over several rows.
    """

    path: str
    licence: str
    columns: tuple[str, ...]
    adapt: Adapter
    config: str | None = None
    split: str = "train"
    held_out: str | None = "test"
    revision: str = "main"
    gather: Callable[[Iterable[Mapping[str, Any]]], Iterator[Row]] | None = None


def _as_it_is(row: Mapping[str, Any]) -> Row:
    return dict(row)


def _hh(row: Mapping[str, Any]) -> Row:
    return {"chosen": transcript(row["chosen"]), "rejected": transcript(row["rejected"])}


def _ultrafeedback(row: Mapping[str, Any]) -> Row | None:
    completions = row["completions"]
    if not completions:
        return None
    return {
        "prompt": row["instruction"],
        "candidates": [c["response"] for c in completions],
        "scores": {a: [_rating(c["annotations"][a]["Rating"]) for c in completions] for a in ULTRAFEEDBACK},
        "subset": row.get("source"),
    }


def _binarized(row: Mapping[str, Any]) -> Row:
    tie = row["score_chosen"] == row["score_rejected"]
    return {"chosen": row["chosen"], "rejected": row["rejected"], "label": 0.5 if tie else 1.0}


def helpsteer2_lists(rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """HelpSteer2's consecutive responses to one prompt as one row; a prompt of several turns as messages."""
    for prompt, responses in groupby(rows, key=lambda row: row["prompt"]):
        group = list(responses)
        yield {
            "prompt": _extra_id_turns(prompt),
            "candidates": [row["response"] for row in group],
            "scores": {name: [row[name] for row in group] for name in HELPSTEER},
        }


def _extra_id_turns(prompt: str) -> list[dict[str, str]]:
    """Messages of a prompt whose later turns begin with a line ``<extra_id_1>User`` or ``<extra_id_1>Assistant``."""
    first, *later = re.split(r"\n?<extra_id_1>(User|Assistant)\n", prompt)
    turns = zip(["User", *later[::2]], [first, *later[1::2]], strict=True)
    return [{"role": name.lower(), "content": content} for name, content in turns]


def _helpsteer3(row: Mapping[str, Any]) -> Row:
    strength = row["overall_preference"]
    first, second = (row["response1"], row["response2"]) if strength <= 0 else (row["response2"], row["response1"])
    label = 0.5 if strength == 0 else 1.0
    pair = {"prompt": row["context"], "chosen": first, "rejected": second, "label": label}
    return pair | {"subset": row.get("domain")}


def _shp(row: Mapping[str, Any]) -> Row:
    first = row["labels"] == 1
    a, b = row["human_ref_A"], row["human_ref_B"]
    chosen, rejected = (a, b) if first else (b, a)
    return {"prompt": row["history"], "chosen": chosen, "rejected": rejected, "subset": row.get("domain")}


def _unified(row: Mapping[str, Any]) -> Row | None:
    a, b = row["conv_A_rating"], row["conv_B_rating"]
    if a is None or b is None:
        return None
    sides = [_messages(row[name]) for name in ("conv_A", "conv_B")]
    chosen, rejected = sides if a >= b else sides[::-1]
    label = 0.5 if a == b else 1.0
    return {"chosen": chosen, "rejected": rejected, "label": label, "subset": row.get("source")}


def _webgpt(row: Mapping[str, Any]) -> Row:
    candidates = [row["answer_0"], row["answer_1"]]
    return {
        "prompt": row["question"]["full_text"],
        "candidates": candidates,
        "scores": [row["score_0"], row["score_1"]],
    }


def _summarize(row: Mapping[str, Any]) -> Row:
    info, choice = row["info"], row["choice"]
    texts = [summary["text"].strip() for summary in row["summaries"]]
    post = info.get("post") or info["article"]
    title = f"{info['title']}\n\n" if info.get("title") else ""
    return {
        "prompt": f"Summarize:\n\n{title}{post}",
        "chosen": texts[choice],
        "rejected": texts[1 - choice],
        "subset": info.get("subreddit") or info.get("site"),
    }


def _safe_rlhf(row: Mapping[str, Any]) -> Row:
    better = int(row["better_response_id"])
    responses = (row["response_0"], row["response_1"])
    return {"prompt": row["prompt"], "chosen": responses[better], "rejected": responses[1 - better]}


def _nectar(row: Mapping[str, Any]) -> Row:
    turns = transcript(row["prompt"])
    prompt = turns[:-1] if turns[-1]["role"] == "assistant" and not turns[-1]["content"] else turns
    answers = row["answers"]
    return {
        "prompt": prompt,
        "candidates": [a["answer"] for a in answers],
        "scores": [-float(a["rank"]) for a in answers],
    }


def oasst_lists(rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """Ranked answers to every prompter message of OASST's message trees; rank 0 is the best answer.

    Sibling replies with a rank are the candidates, the messages above them the prompt.
    """
    messages = {row["message_id"]: row for row in rows}
    replies: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for message in messages.values():
        if message["role"] == "assistant" and message.get("rank") is not None and message["parent_id"] in messages:
            replies[message["parent_id"]].append(message)
    for parent, answers in replies.items():
        if len(answers) < 2:
            continue
        turns: list[dict[str, str]] = []
        above: str | None = parent
        while above in messages:
            message = messages[above]
            role = "assistant" if message["role"] == "assistant" else "user"
            turns.insert(0, {"role": role, "content": message["text"]})
            above = message["parent_id"]
        yield {
            "id": parent,
            "prompt": turns,
            "candidates": [a["text"] for a in answers],
            "scores": [-float(a["rank"]) for a in answers],
            "subset": answers[0].get("lang"),
        }


def _rating(value: Any) -> float | None:
    return None if value in (None, "N/A", "") else float(value)


def _messages(turns: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


PAIR: Final = ("chosen", "rejected")
CONVERTED: Final = "refs/convert/parquet"
"""The hub's Parquet copy of datasets that are scripts, which the datasets library no longer runs."""

HUB: Final[dict[str, HubDataset]] = {
    "hh-rlhf": HubDataset("Anthropic/hh-rlhf", "MIT", PAIR, _hh),
    "ultrafeedback": HubDataset(
        "openbmb/UltraFeedback",
        "MIT",
        ("instruction", "completions"),
        _ultrafeedback,
        held_out=None,
    ),
    "ultrafeedback-binarized": HubDataset(
        "HuggingFaceH4/ultrafeedback_binarized",
        "MIT",
        (*PAIR, "score_chosen", "score_rejected"),
        _binarized,
        split="train_prefs",
        held_out="test_prefs",
    ),
    "helpsteer2": HubDataset(
        "nvidia/HelpSteer2",
        "CC-BY-4.0",
        ("prompt", "response", *HELPSTEER),
        _as_it_is,
        held_out="validation",
        gather=helpsteer2_lists,
    ),
    "helpsteer3": HubDataset(
        "nvidia/HelpSteer3",
        "CC-BY-4.0",
        ("context", "response1", "response2", "overall_preference"),
        _helpsteer3,
        config="preference",
        held_out="validation",
    ),
    "shp": HubDataset(
        "stanfordnlp/SHP",
        "Reddit terms",
        ("history", "human_ref_A", "human_ref_B", "labels"),
        _shp,
    ),
    "mixinstruct": HubDataset(
        "llm-blender/mix-instruct",
        "MIT",
        ("instruction", "input", "candidates"),
        _as_it_is,
    ),
    "unified-feedback": HubDataset(
        "llm-blender/Unified-Feedback",
        "of its sources",
        ("conv_A", "conv_B", "conv_A_rating", "conv_B_rating"),
        _unified,
        config="all",
        held_out="val",
    ),
    "webgpt-comparisons": HubDataset(
        "openai/webgpt_comparisons",
        "not stated",
        ("question", "answer_0", "answer_1", "score_0", "score_1"),
        _webgpt,
        held_out=None,
        revision=CONVERTED,
    ),
    "summarize-from-feedback": HubDataset(
        "openai/summarize_from_feedback",
        "MIT",
        ("info", "summaries", "choice"),
        _summarize,
        config="comparisons",
        held_out="validation",
        revision=CONVERTED,
    ),
    "preference-700k": HubDataset("hendrydong/preference_700K", "of its sources", PAIR, _as_it_is, held_out=None),
    "skywork-reward-preference": HubDataset(
        "Skywork/Skywork-Reward-Preference-80K-v0.2",
        "of its sources",
        PAIR,
        _as_it_is,
        held_out=None,
    ),
    "pku-saferlhf": HubDataset(
        "PKU-Alignment/PKU-SafeRLHF",
        "CC-BY-NC-4.0",
        ("prompt", "response_0", "response_1", "better_response_id"),
        _safe_rlhf,
    ),
    "oasst2": HubDataset(
        "OpenAssistant/oasst2",
        "Apache-2.0",
        ("message_id", "parent_id", "text", "role", "rank"),
        _as_it_is,
        held_out="validation",
        gather=oasst_lists,
    ),
    "nectar": HubDataset("berkeley-nest/Nectar", "CC-BY-NC-4.0", ("prompt", "answers"), _nectar, held_out=None),
}
"""By their names in ``data.train``."""
