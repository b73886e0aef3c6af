"""Language models whose score is the logit of a word, or of one word less that of another, at the end of a row.

The logits are linear in the last state, so these models are classifiers whose head is the difference of two rows of
the language-model head. They are read as such: they export, share prompts and train like all others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from torch import Tensor
from transformers import AutoTokenizer, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ranker.checkpoints import weights
from ranker.checkpoints.detection import DECODER_EMBEDDINGS
from ranker.checkpoints.formats.spec import LoadSpec, conversation, row_limits
from ranker.checkpoints.report import CheckpointReport
from ranker.checkpoints.weights import LANGUAGE_HEAD, KeyMap
from ranker.errors import CheckpointError
from ranker.layouts import Layout
from ranker.layouts.judge import Judge
from ranker.models.backbones import DECODERS
from ranker.models.pointwise import JUDGE, judge_class, reward_class
from ranker.text.formats import RERANKERS, TEXT_FORMATS

HEAD: Final = "score"
WORDS: Final = f"{LANGUAGE_HEAD}weight"
PAIRS: Final = "rlhflow-pair"
WORDS_OF: Final = {**RERANKERS, PAIRS: ("A", "B")}
"""By the name of a text: the words that a language model answers with."""

CONTEXT: Final = (
    "\n{% for message in messages %}{% if loop.index0 % 2 == 0 %}\n\n<turn> user\n {{ message['content'] }}{% else %}"
    "\n\n<turn> assistant\n {{ message['content'] }}{% endif %}{% endfor %}\n\n\n"
)
"""How RLHFlow's preference models write the conversation before the answers."""


def judge(folder: Path, values: dict[str, Any], report: CheckpointReport, text_format: str) -> LoadSpec:
    """A language model as a reranker of a named kind, whose files do not say that it is one.

    Args:
        folder: the checkpoint.
        values: its ``config.json``.
        report: what ``inspect`` says of it.
        text_format: one of ``WORDS_OF``.

    Raises:
        CheckpointError: a word of the answer is not one token, or the backbone is not supported.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answers = []
    for word in WORDS_OF[text_format]:
        ids = tokenizer.encode(word, add_special_tokens=False)
        if len(ids) != 1:
            raise CheckpointError(
                f"{folder}: a model of text format '{text_format}' answers '{word}', which is {len(ids)} tokens of "
                "this tokenizer; it is another model"
            )
        answers += ids
    config = configuration(folder, values)
    if text_format == PAIRS:
        return answering(config, report, answers, pair_question(folder, tokenizer, config), JUDGE)
    variables = {name: value for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    text = conversation(tokenizer, config, TEXT_FORMATS[text_format](variables))
    return answering(config, report, answers, text)


def configuration(folder: Path, values: dict[str, Any]) -> PretrainedConfig:
    """The configuration of a language model that is read as a classifier.

    Raises:
        CheckpointError: its backbone is not supported, or its logits are not linear in the state.
    """
    kind = values["model_type"]
    if kind not in DECODERS:
        raise CheckpointError(f"{folder}: expected a decoder ({', '.join(DECODERS)}), got '{kind}'")
    config = CONFIG_MAPPING[kind].from_dict(values)
    cap = getattr(config, "final_logit_softcapping", None)
    if cap is not None:
        raise CheckpointError(
            f"{folder}: final_logit_softcapping {cap} caps the logits of its words, and a difference of capped logits "
            "is not read"
        )
    return config


def answering(
    config: PretrainedConfig, report: CheckpointReport, answers: Sequence[int], text: Layout, kind: str = "scalar"
) -> LoadSpec:
    """A classifier whose head is made of the rows of one or two words: their difference, or of a judge both."""
    labels = ("A", "B") if kind == JUDGE else ("reward",)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    config.ranker = {
        "text": text.model_dump(mode="json"),
        "head": kind,
        "pooling": "last_token",
        "aspects": [],
        "head_bias": f"{LANGUAGE_HEAD}bias" in report.tensors,
        "normalisation": None,
    }
    if not config.ranker["head_bias"]:
        del config.ranker["head_bias"]
    names = KeyMap({}, dropped=(LANGUAGE_HEAD,))
    read = judge_class if kind == JUDGE else reward_class
    return LoadSpec(config, read(config), names, answers=tuple(answers))


def head(files: Sequence[Path], spec: LoadSpec) -> dict[str, Tensor]:
    """The head's tensors, from the rows of the words.

    Raises:
        CheckpointError: the files hold no rows of words.
    """
    stored = [name for file in files for name in weights.headers(file)]
    embedding = next((name for name in stored if name.endswith(DECODER_EMBEDDINGS)), "")
    name = embedding if spec.config.tie_word_embeddings else WORDS
    rows = weights.rows(files, name, spec.answers)
    if rows is None:
        raise CheckpointError(
            f"{files[0]}: tensor '{name}' is missing, which scores the words of the answer; use a checkpoint that has "
            "it"
        )
    is_judge = spec.config.ranker["head"] == JUDGE
    tensors = {f"{HEAD}.weight": rows if is_judge else _difference(rows)}
    bias = weights.rows(files, f"{LANGUAGE_HEAD}bias", spec.answers)
    if bias is not None:
        tensors[f"{HEAD}.bias"] = bias if is_judge else _difference(bias)
    return tensors


def _difference(rows: Tensor) -> Tensor:
    return (rows[0] - rows[1] if len(rows) == 2 else rows[0])[None]


def pair_question(folder: Path, tokenizer: Any, config: PretrainedConfig) -> Judge:
    """The question of RLHFlow's preference models, in the user's turn of the tokenizer's chat template.

    Source: ``pair-pm/README.md`` of RLHFlow/RLHF-Reward-Modeling.

    Raises:
        CheckpointError: the tokenizer has no chat template.
    """
    if tokenizer.chat_template is None:
        raise CheckpointError(
            f"{folder}: a judge of text format '{PAIRS}' is asked by a chat template, which is missing"
        )
    marks = ["\u2983", "\u2984", "\u2985"]
    question = "[CONTEXT]{} [RESPONSE A]{} [RESPONSE B]{} \n".format(*marks)
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False)
    rendered = rendered.replace(tokenizer.bos_token or "\0", "")
    parts = re.split("[" + "".join(marks) + "]", rendered)
    if len(parts) != len(marks) + 1:
        raise CheckpointError(f"{folder}: the chat template does not write the user's text as it is")
    spaced = tokenizer.apply_chat_template([{"role": "user", "content": f"{marks[0]} \n"}], tokenize=False)
    prefix, between, second, suffix = (tokenizer.encode(part, add_special_tokens=False) for part in parts)
    limits = row_limits(tokenizer, config)
    return Judge(
        turns=CONTEXT,
        strips_end=f"{marks[0]} " not in spaced,
        pad_id=tokenizer.pad_token_id,
        prefix=prefix,
        between=between,
        second=second,
        suffix=suffix,
        empty=tokenizer.encode(" .", add_special_tokens=False),
        **limits,
    )
