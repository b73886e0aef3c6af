"""Language models whose score is the logit of a word, or of one word less that of another, at the end of a row.

The logits are linear in the last state, so these models are classifiers whose head is the difference of two rows of
the language-model head. They are read as such: they export, share prompts and train like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from torch import Tensor
from transformers import AutoTokenizer, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ranker.checkpoints import weights
from ranker.checkpoints.detection import DECODER_EMBEDDINGS
from ranker.checkpoints.formats.spec import LoadSpec, conversation
from ranker.checkpoints.report import CheckpointReport
from ranker.checkpoints.weights import LANGUAGE_HEAD, KeyMap
from ranker.errors import CheckpointError
from ranker.layouts import Layout
from ranker.models.backbones import DECODERS
from ranker.models.pointwise import reward_class
from ranker.text.formats import RERANKERS, TEXT_FORMATS

HEAD: Final = "score"
WORDS: Final = f"{LANGUAGE_HEAD}weight"


def judge(folder: Path, values: dict[str, Any], report: CheckpointReport, text_format: str) -> LoadSpec:
    """A language model as a reranker of a named kind, whose files do not say that it is one.

    Args:
        folder: the checkpoint.
        values: its ``config.json``.
        report: what ``inspect`` says of it.
        text_format: one of ``RERANKERS``.

    Raises:
        CheckpointError: a word of the answer is not one token, or the backbone is not supported.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answers = []
    for word in RERANKERS[text_format]:
        ids = tokenizer.encode(word, add_special_tokens=False)
        if len(ids) != 1:
            raise CheckpointError(
                f"{folder}: a model of text format '{text_format}' answers '{word}', which is {len(ids)} tokens of "
                "this tokenizer; it is another model"
            )
        answers += ids
    config = configuration(folder, values)
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


def answering(config: PretrainedConfig, report: CheckpointReport, answers: Sequence[int], text: Layout) -> LoadSpec:
    """A classifier whose head is made of the rows of one or two words."""
    config.num_labels = 1
    config.id2label, config.label2id = {0: "reward"}, {"reward": 0}
    config.ranker = {
        "text": text.model_dump(mode="json"),
        "head": "scalar",
        "pooling": "last_token",
        "aspects": [],
        "head_bias": f"{LANGUAGE_HEAD}bias" in report.tensors,
        "normalisation": None,
    }
    if not config.ranker["head_bias"]:
        del config.ranker["head_bias"]
    names = KeyMap({}, dropped=(LANGUAGE_HEAD,))
    return LoadSpec(config, reward_class(config), names, answers=tuple(answers))


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
    tensors = {f"{HEAD}.weight": _difference(rows)[None]}
    bias = weights.rows(files, f"{LANGUAGE_HEAD}bias", spec.answers)
    if bias is not None:
        tensors[f"{HEAD}.bias"] = _difference(bias)[None]
    return tensors


def _difference(rows: Tensor) -> Tensor:
    return rows[0] - rows[1] if len(rows) == 2 else rows[0]
