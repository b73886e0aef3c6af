"""Known preference datasets of the hub: their path, their licence, and the shape of their rows.

``data.train: [hh-rlhf]`` or ``[shp:validation]`` is enough; ``[shp=FILE]`` reads a copy of it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ranker.data import shapes
from ranker.data.shapes import RowShape

logger = logging.getLogger(__name__)

Row = dict[str, Any]
Gather = Callable[[Iterable[Mapping[str, Any]]], Iterator[Row]]


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset as it is on the hub.

    ``licence`` is quoted from its card; the terms of its sources may also apply. ``gather`` joins rows where a
    preference is spread over several of them, into a shape of ``ranker.data.formats``.
    """

    path: str
    licence: str
    shape: RowShape
    config: str | None = None
    split: str = "train"
    held_out: str | None = "test"
    revision: str = "main"
    gather: Gather | None = None


def oasst_lists(rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """Ranked answers to every prompter message of OASST's message trees; rank 0 is the best answer.

    Sibling replies with a rank are the candidates, the messages above them the prompt. Replies whose conversation does
    not begin in these rows are left out, with a warning.

    Raises:
        ValueError: a rank that is no number, or a message above itself.
    """
    messages = {str(row["message_id"]): row for row in rows}
    replies: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for message in messages.values():
        if message["role"] == "assistant" and message.get("rank") not in (None, "") and message.get("parent_id"):
            replies[str(message["parent_id"])].append(message)
    rootless = 0
    for parent, answers in replies.items():
        turns = _turns_above(parent, messages)
        if len(answers) < 2 or turns is None:
            rootless += turns is None
            continue
        yield {
            "id": parent,
            "prompt": turns,
            "candidates": [a["text"] for a in answers],
            "scores": [-float(a["rank"]) for a in answers],
            "subset": answers[0].get("lang"),
        }
    if rootless:
        logger.warning("%d prompts left out: the messages above them are not in these rows", rootless)


def _turns_above(message_id: str, messages: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]] | None:
    """A message and those above it, the first one first; None where the first is not there."""
    turns: list[dict[str, str]] = []
    above: str | None = message_id
    seen = set()
    while above:
        if above in seen:
            raise ValueError(f"message {above} is above itself")
        seen.add(above)
        message = messages.get(above)
        if message is None:
            return None
        role = "assistant" if message["role"] == "assistant" else "user"
        turns.insert(0, {"role": role, "content": message["text"]})
        above = str(message["parent_id"]) if message.get("parent_id") else None
    return turns


CONVERTED: Final = "refs/convert/parquet"
"""The hub's Parquet copy of datasets that are scripts, which the datasets library no longer runs."""

HUB: Final[dict[str, HubDataset]] = {
    "hh-rlhf": HubDataset("Anthropic/hh-rlhf", "MIT", shapes.HH),
    "ultrafeedback": HubDataset(
        "openbmb/UltraFeedback",
        "MIT",
        shapes.ULTRAFEEDBACK_LISTS,
        held_out=None,
    ),
    "ultrafeedback-binarized": HubDataset(
        "HuggingFaceH4/ultrafeedback_binarized",
        "MIT",
        shapes.BINARIZED,
        split="train_prefs",
        held_out="test_prefs",
    ),
    "helpsteer2": HubDataset(
        "nvidia/HelpSteer2",
        "CC-BY-4.0",
        shapes.HELPSTEER_ROWS,
        held_out="validation",
    ),
    "helpsteer3": HubDataset(
        "nvidia/HelpSteer3",
        "CC-BY-4.0",
        shapes.HELPSTEER3,
        config="preference",
        held_out="validation",
    ),
    "shp": HubDataset(
        "stanfordnlp/SHP",
        "Reddit terms",
        shapes.SHP,
    ),
    "mixinstruct": HubDataset(
        "llm-blender/mix-instruct",
        "MIT",
        shapes.MIX_INSTRUCT,
    ),
    "unified-feedback": HubDataset(
        "llm-blender/Unified-Feedback",
        "of its sources",
        shapes.UNIFIED,
        config="all",
        held_out="val",
    ),
    "webgpt-comparisons": HubDataset(
        "openai/webgpt_comparisons",
        "not stated",
        shapes.WEBGPT,
        held_out=None,
        revision=CONVERTED,
    ),
    "summarize-from-feedback": HubDataset(
        "openai/summarize_from_feedback",
        "MIT",
        shapes.SUMMARIZE,
        config="comparisons",
        held_out="validation",
        revision=CONVERTED,
    ),
    "preference-700k": HubDataset("hendrydong/preference_700K", "of its sources", shapes.PAIRS, held_out=None),
    "skywork-reward-preference": HubDataset(
        "Skywork/Skywork-Reward-Preference-80K-v0.2",
        "of its sources",
        shapes.PAIRS,
        held_out=None,
    ),
    "pku-saferlhf": HubDataset(
        "PKU-Alignment/PKU-SafeRLHF",
        "CC-BY-NC-4.0",
        shapes.SAFE_RLHF,
    ),
    "oasst2": HubDataset(
        "OpenAssistant/oasst2",
        "Apache-2.0",
        shapes.OASST,
        held_out="validation",
        gather=oasst_lists,
    ),
    "nectar": HubDataset("berkeley-nest/Nectar", "CC-BY-NC-4.0", shapes.NECTAR, held_out=None),
}
"""By their names in ``data.train``."""
