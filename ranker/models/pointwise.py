"""Pointwise reward models: the library's own sequence classifiers, reading our arrays with an fp32 head.

A reward model is saved as what it is, a ``*ForSequenceClassification``: plain transformers loads it with
``AutoModelForSequenceClassification.from_pretrained(path)`` and no argument, sentence-transformers loads the encoder
ones with ``CrossEncoder(path)``, and both give the same raw logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ranker import layouts
from ranker.config import Pooling
from ranker.errors import CheckpointError, ConfigError
from ranker.layouts import Layout, Output
from ranker.layouts.conversation import Conversation
from ranker.layouts.pointwise import Pointwise
from ranker.layouts.settings import ChatSettings, with_settings
from ranker.models import backbones, decoders
from ranker.models.attention.blocks import row_mask
from ranker.models.attention.reading import Reading
from ranker.models.backbones import DECODERS, family
from ranker.models.heads import POOLINGS, resolve, wide
from ranker.models.tokenizers import text_tokenizer
from ranker.records import Group
from ranker.scoring.pipeline import TextPipeline
from ranker.text.chat import compiled
from ranker.text.conversations import ChatText
from ranker.text.formats import TEXT_FORMATS
from ranker.text.tokenizer import TextTokenizer

JUDGE: Final = "judge"
"""What ``config.ranker['head']`` says of language models that judge a pair."""

PAD_TOKEN: Final = "<|pad|>"
"""Added where a tokenizer pads with its end-of-text token: plain transformers would skip the scored token."""


class RewardReading:
    """Mixed into a library classifier: reads ``collate``'s arrays and computes the head in fp32."""

    config: PretrainedConfig

    def __init__(self, config: PretrainedConfig, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, **options)  # type: ignore[call-arg]
        if getattr(config, "ranker", {}).get("head_bias"):  # heads of other trainers; the library's decoders have none
            head: nn.Linear = self.score  # type: ignore[has-type]
            self.score = nn.Linear(head.in_features, head.out_features, bias=True)

    @property
    def layout(self) -> Layout:
        """The layout stored in the configuration."""
        return layouts.parse(self.config.ranker["text"])

    @property
    def prefix_sharing(self) -> bool:
        """Whether rows may hold several answers after one prompt."""
        return family(self.config) in DECODERS and is_causal(self.config)

    def forward(
        self,
        input_ids: Tensor,
        block_ids: Tensor,
        position_ids: Tensor,
        readout: Tensor | None = None,
        every_token: bool = False,
    ) -> Tensor:
        """Raw fp32 logits (rows, answers, outputs); arguments as made by ``ranker.scoring.batching.collate``.

        ``readout`` (rows, answers) is where a decoder's answers end, where rows hold several; otherwise rows have one.
        ``every_token`` gives a decoder's (rows, sequence, outputs): the value of the text up to each token.
        """
        if every_token:
            return decoders.values(self, input_ids, block_ids, position_ids)
        if readout is not None and (torch.onnx.is_in_onnx_export() or readout.shape[1] > 1):
            return decoders.branches(self, input_ids, block_ids, position_ids, readout)
        return reading(self.config)(self, input_ids, block_ids, position_ids)[:, None]


def reward_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The library's classifier of a family, reading our arrays; it keeps its name, so checkpoints say what they are.

    Raises:
        CheckpointError: the family has no sequence classifier, or none that is read here.
    """
    known = type(config) if backbones.family(config) == config.model_type else type(config).__base__
    if known not in AutoModelForSequenceClassification._model_mapping:
        raise CheckpointError(f"expected a backbone with a sequence classifier, got '{config.model_type}'")
    reading(config)
    return _reward_class(AutoModelForSequenceClassification._model_mapping[known])


@cache
def mean_pooled(base: type[PretrainedConfig]) -> type[PretrainedConfig]:
    """A configuration class under a model type of ours, so that no other library reads the checkpoint at [CLS]."""
    return type(base.__name__, (base,), {"model_type": backbones.MEAN_POOLED + base.model_type})


class JudgeReading(RewardReading):
    """Mixed into a library classifier with two outputs, the words A and B of a question about a pair."""

    prefix_sharing = False  # type: ignore[assignment]

    def forward(self, input_ids: Tensor, block_ids: Tensor, position_ids: Tensor) -> Tensor:  # type: ignore[override]
        """Raw fp32 logits (rows, 2, 1) of the first and of the second answer being the better one."""
        return reading(self.config)(self, input_ids, block_ids, position_ids)[:, :, None]


def judge_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The library's classifier of a family, read as a judge of pairs.

    Raises:
        CheckpointError: as ``reward_class``.
    """
    base = AutoModelForSequenceClassification._model_mapping[type(config)]
    reward_class(config)
    return _judge_class(base)


@cache
def _judge_class(base: type[PreTrainedModel]) -> type[PreTrainedModel]:
    return type(base.__name__, (JudgeReading, base), {"__module__": base.__module__})


@cache
def _reward_class(base: type[PreTrainedModel]) -> type[PreTrainedModel]:
    return type(base.__name__, (RewardReading, base), {"__module__": base.__module__})


def reading(config: PretrainedConfig) -> Callable[[Any, Tensor, Tensor, Tensor], Tensor]:
    """How a family is read: the function from arrays to logits (rows, outputs).

    Raises:
        CheckpointError: an encoder family that is not supported.
    """
    if backbones.family(config) in HEADS:
        if getattr(config, "is_decoder", False):
            raise CheckpointError(f"'{config.model_type}' with is_decoder reads in one direction; expected an encoder")
        if getattr(config, "relative_attention", True) is False:
            raise CheckpointError(f"'{config.model_type}' without relative_attention is not supported")
        return _encoder
    if getattr(config, "is_encoder_decoder", False) or config.model_type not in DECODERS:
        raise CheckpointError(
            f"expected an encoder ({', '.join(HEADS)}) or a decoder ({', '.join(DECODERS)}), got '{config.model_type}'"
        )
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [part for part in (rope, *rope.values()) if isinstance(part, dict)]  # one for each kind of layer
    if any("longrope" in (part.get("rope_type"), part.get("type")) for part in kinds):
        raise CheckpointError(
            f"'{config.model_type}' with longrope reads short rows otherwise where a long one is in the batch, so its "
            "scores would depend on their neighbours; it is not supported"
        )
    return decoders.last_token


def is_causal(config: PretrainedConfig) -> bool:
    """Whether a decoder's tokens see only those before them, so that answers can share a prompt."""
    return getattr(config, "is_causal", True) is not False and not getattr(config, "use_bidirectional_attention", False)


def _encoder(model: Any, input_ids: Tensor, block_ids: Tensor, position_ids: Tensor) -> Tensor:
    pooling = model.config.ranker["pooling"]
    reading = Reading() if pooling == "first_token" else None
    mask = row_mask(block_ids)
    hidden = backbones.encode(model.base_model, input_ids, block_ids, position_ids, mask, None, reading)
    with torch.autocast(hidden.device.type, enabled=False):
        pooled = wide(hidden)[:, 0] if reading else POOLINGS[pooling](wide(hidden), block_ids >= 0)
        logits: Tensor = HEADS[backbones.family(model.config)](model, pooled)
        return logits


def _bert(model: Any, pooled: Tensor) -> Tensor:
    return _tensor(model.classifier(model.dropout(torch.tanh(model.bert.pooler.dense(pooled)))))


def _deberta(model: Any, pooled: Tensor) -> Tensor:
    return _tensor(model.classifier(model.dropout(model.pooler(pooled[:, None]))))


def _own_head(model: Any, pooled: Tensor) -> Tensor:
    return _tensor(model.classifier(pooled[:, None]))


def _distilbert(model: Any, pooled: Tensor) -> Tensor:
    return _tensor(model.classifier(model.dropout(torch.relu(model.pre_classifier(pooled)))))


def _modernbert(model: Any, pooled: Tensor) -> Tensor:
    return _tensor(model.classifier(model.drop(model.head(pooled))))


def _tensor(value: Tensor) -> Tensor:
    return value


HEADS: Final[dict[str, Callable[[Any, Tensor], Tensor]]] = {
    "bert": _bert,
    "roberta": _own_head,
    "xlm-roberta": _own_head,
    "electra": _own_head,
    "distilbert": _distilbert,
    "mpnet": _own_head,
    "deberta-v2": _deberta,
    "modernbert": _modernbert,
}
"""Encoder families: from a pooled state (rows, hidden) to logits (rows, outputs)."""


def from_backbone(
    name_or_path: str,
    *,
    output: Output,
    aspects: Sequence[str] = (),
    pooling: Pooling = "first_token",
    max_length: int = 512,
    prompt_reserve: int = 64,
    backbone_dropout: float = 0.0,
    text_settings: ChatSettings = ChatSettings(),  # noqa: B008  frozen
    **options: Any,
) -> tuple[PreTrainedModel, TextTokenizer]:
    """A reward model with a pretrained backbone and a newly initialised head, for training.

    ``num_labels``, ``id2label``, the head's kind, the pooling rule and the text layout are always written to the
    configuration. A decoder whose padding is its end-of-text token gets a padding token of its own. ``options``
    are passed on to ``from_pretrained``.

    Returns:
        The model in fp32 and its tokenizer.

    Raises:
        CheckpointError: the family is not supported.
        ConfigError: more tokens than positions, or mean pooling of a decoder.
    """
    pooling = resolve(pooling, name_or_path)
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    config = backbones.set_dropout(AutoConfig.from_pretrained(name_or_path), backbone_dropout)
    is_encoder = config.model_type in HEADS
    labels = {"accept_reject": ("reject", "accept"), "aspects": tuple(aspects), "scalar": ("reward",)}[output]
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    config.problem_type = "single_label_classification" if output == "accept_reject" else "regression"
    if hasattr(config, "classifier_pooling"):  # ModernBERT's own setting, which the library honours
        config.classifier_pooling = "mean" if pooling == "mean" else "cls"
    elif pooling == "mean":
        config = mean_pooled(config.__class__).from_dict(config.to_dict())
    cls = reward_class(config)
    if not is_encoder and tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    new_pad = tokenizer.pad_token_id >= config.vocab_size
    config.pad_token_id = None if new_pad else tokenizer.pad_token_id
    text = text_layout(
        tokenizer, config, output=output, pooling=pooling, max_length=max_length, prompt_reserve=prompt_reserve
    )
    config.ranker = {
        "text": with_settings(text, text_settings).model_dump(mode="json"),
        "head": output,
        "pooling": pooling if is_encoder else "last_token",
        "aspects": list(aspects),
    }
    model = cls.from_pretrained(
        name_or_path, config=config, dtype=torch.float32, **attention_options(config), **options
    )
    if new_pad:
        model.resize_token_embeddings(len(tokenizer))
        model.config.pad_token_id = tokenizer.pad_token_id
    return prepare(model), text_tokenizer(tokenizer)


def text_layout(
    tokenizer: PreTrainedTokenizerBase,
    config: PretrainedConfig,
    *,
    output: Output,
    pooling: Pooling,
    max_length: int,
    prompt_reserve: int,
    without_template: str = "plain",
) -> Pointwise | Conversation:
    """How a pointwise model over this backbone and tokenizer reads one answer.

    Args:
        tokenizer: the model's; a decoder reads conversations by its chat template.
        config: the backbone's.
        output: what the model's outputs mean.
        pooling: where an encoder's head reads.
        max_length: tokens of a row.
        prompt_reserve: tokens that a prompt keeps before an answer is cut.
        without_template: the text of a decoder whose tokenizer has no chat template, one of ``TEXT_FORMATS``.

    Raises:
        ConfigError: more tokens than positions, or mean pooling of a decoder.
    """
    is_encoder = backbones.family(config) in HEADS
    if pooling == "mean" and not is_encoder:
        raise ConfigError(
            f"model.pooling 'mean' is for encoders; a decoder ('{config.model_type}') is read at its last token"
        )
    backbones.check_length(config, max_length)
    common = {"output": output, "max_length": max_length, "prompt_reserve": prompt_reserve}
    common["pad_id"] = tokenizer.pad_token_id
    if is_encoder:
        return Pointwise(**common, position_offset=backbones.position_offset(config), **pair_parts(tokenizer))
    chat = chat_text(tokenizer, without_template)
    return Conversation(**common, chat=chat, gate_pattern=answer_header(tokenizer, chat) if output == "gated" else ())


def attention_options(config: PretrainedConfig) -> dict[str, str]:
    """Options of ``from_pretrained``: block-mask attention for encoders, the library's default for decoders."""
    return {} if config.model_type in DECODERS else {"attn_implementation": backbones.attention(config)}


def prepare(model: Any) -> Any:
    """Give a reward model the layers that read our arrays; decoders are ready as they are."""
    if isinstance(model, RewardReading):
        backbones.prepare_layers(model.base_model)  # type: ignore[attr-defined]
    return model


def pair_parts(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What the tokenizer's own pair template puts around two texts, as sentence-transformers will encode them."""
    first, second = (tokenizer.encode(text, add_special_tokens=False) for text in ("a", "b"))
    ids = tokenizer.encode("a", "b")
    start = ids.index(first[0])
    middle = ids.index(second[-1], start + len(first))
    opening = middle - len(second) + 1
    return {"prefix": ids[:start], "between": ids[start + len(first) : opening], "suffix": ids[middle + 1 :]}


def chat_text(tokenizer: PreTrainedTokenizerBase, without_template: str = "plain") -> ChatText:
    """The tokenizer's own chat template, or a text format where it has none.

    Raises:
        ConfigError: the template is not valid Jinja.
    """
    variables = {name: value for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several, by name
        if "default" not in template:
            raise ConfigError(
                f"the tokenizer has chat templates {', '.join(template)} and none that is 'default', so transformers "
                "refuses to choose; write the one that the model was trained with to chat_template.jinja"
            )
        template = template["default"]
    if template is None:
        return TEXT_FORMATS[without_template](variables)
    compiled(template)
    chat = ChatText(template=template, variables=variables)
    return chat.model_copy(update={"now": datetime.now()}) if chat.reads_clock else chat  # noqa: DTZ005  as the library


def last_read_id(layout: Layout, tokenizer: TextTokenizer) -> int | None:
    """The id that a row ends with where nothing is cut; None where the chat template refuses a plain question."""
    pipeline = TextPipeline(layout, tokenizer)
    rows = pipeline.pack(pipeline.tokenize([Group("question", ("answer",))])[0]).rows
    return int(rows[0].ids[-1]) if rows else None


def answer_header(tokenizer: PreTrainedTokenizerBase, chat: ChatText, *, line_breaks: bool = False) -> tuple[int, ...]:
    """The ids from the end of a user's turn to where the answer begins, at which a gate reads the prompt.

    Line breaks at its end merge with those of an answer, so only ``line_breaks`` includes them.
    """
    marks = ("\u2983", "\u2984")
    text = chat.render(
        [{"role": role, "content": mark} for role, mark in zip(("user", "assistant"), marks, strict=True)]
    )
    header = text.partition(marks[0])[2].partition(marks[1])[0]
    return tuple(tokenizer.encode(header if line_breaks else header.rstrip("\n"), add_special_tokens=False))
