"""Checkpoints that the producers' own libraries write, and the scores of their own code."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen2Model,
    Qwen2PreTrainedModel,
)
from trl import RewardConfig, RewardTrainer

from tests.references.conversations import CONVERSATIONS, Turn
from tests.references.tokenizers import tokenizer_for

SPREAD = 1e-4
"""Largest difference of scores, of the spread of the reference's."""

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
)
PLAIN: tuple[tuple[Turn, ...], ...] = tuple(
    c for c in CONVERSATIONS if all(isinstance(t["content"], str) and set(t) == {"role", "content"} for t in c)
)
"""Conversations of texts alone."""


def spells_nothing(conversation: Sequence[Turn]) -> bool:
    """Whether no text looks like a special token."""
    return "<|" not in repr(conversation) and conversation[-1]["role"] == "assistant"


ROWS = tuple(c for c in PLAIN if spells_nothing(c))


@dataclass
class Produced:
    """A folder, and the scores that its producer's code gives to conversations; None where it refuses one."""

    folder: Path
    reference: Callable[[Sequence[Turn]], float | None]
    options: dict[str, Any] = field(default_factory=dict)


def decoder(size: int, family: type = Qwen2Config, **changes: Any) -> Any:
    """A tiny decoder whose scores differ widely."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return family(
        **{"vocab_size": size, "num_key_value_heads": 2, "initializer_range": 0.3, "num_labels": 1, **shape, **changes}
    )


def base(folder: Path, template: str | None, kind: str = "qwen", *, bos: bool = False) -> PreTrainedTokenizerFast:
    """A classifier and its tokenizer on disk; the family is that of the tokenizer, of which transformers knows more."""
    tokenizer = tokenizer_for(kind, template, bos=bos)
    torch.manual_seed(0)
    family, model = (
        (Qwen2Config, Qwen2ForSequenceClassification)
        if kind == "qwen"
        else (LlamaConfig, LlamaForSequenceClassification)
    )
    model(decoder(len(tokenizer), family, pad_token_id=tokenizer.pad_token_id)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def arguments(folder: Path) -> RewardConfig:
    """Two steps."""
    return RewardConfig(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        learning_rate=1e-3,
        disable_tqdm=True,
        save_strategy="no",
    )


def pairs() -> list[dict[str, Any]]:
    """Preferences between a conversation and one with another answer."""
    return [{"chosen": list(c), "rejected": [*c[:-1], {"role": "assistant", "content": "No idea."}]} for c in ROWS[:6]]


def logits(model: Any, ids: Sequence[int]) -> float:
    """The library's own score of one row."""
    with torch.no_grad():
        return float(model.eval()(input_ids=torch.tensor([list(ids)])).logits[0, 0])


def trl_chat(tmp: Path, kind: str = "qwen", template: str = CHATML) -> Produced:
    """RewardTrainer on conversations."""
    tokenizer = base(tmp / "base", template, kind)
    trainer = RewardTrainer(
        str(tmp / "base"),
        args=arguments(tmp / "run"),
        train_dataset=Dataset.from_list(pairs()),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(str(tmp / "trl"))
    model = AutoModelForSequenceClassification.from_pretrained(tmp / "trl")

    def reference(conversation: Sequence[Turn]) -> float | None:
        try:
            ids = tokenizer.apply_chat_template(list(conversation), tokenize=True, return_dict=True)["input_ids"]
        except Exception:
            return None
        return logits(model, ids)

    return Produced(tmp / "trl", reference)


def trl_adapter(tmp: Path) -> Produced:
    """RewardTrainer with LoRA: the adapter alone is saved."""
    tokenizer = base(tmp / "base", CHATML)
    lora = LoraConfig(r=4, task_type="SEQ_CLS", target_modules=["q_proj", "v_proj"], modules_to_save=["score"])
    trainer = RewardTrainer(
        str(tmp / "base"),
        args=arguments(tmp / "run"),
        train_dataset=Dataset.from_list(pairs()),
        processing_class=tokenizer,
        peft_config=lora,
    )
    trainer.train()
    trainer.save_model(str(tmp / "adapter"))
    model = trainer.model

    def reference(conversation: Sequence[Turn]) -> float:
        return logits(model, tokenizer.apply_chat_template(list(conversation), return_dict=True)["input_ids"])

    return Produced(tmp / "adapter", reference)


def trl_text(tmp: Path) -> Produced:
    """RewardTrainer on plain texts, with a tokenizer without a chat template that puts BOS before a text."""
    tokenizer = base(tmp / "base", None, "llama3", bos=True)
    rows = [{"prompt": c[0]["content"], "chosen": c[1]["content"], "rejected": "No idea."} for c in ROWS if len(c) == 2]
    trainer = RewardTrainer(
        str(tmp / "base"),
        args=arguments(tmp / "run"),
        train_dataset=Dataset.from_list(rows[:6]),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(str(tmp / "text"))
    model = AutoModelForSequenceClassification.from_pretrained(tmp / "text")

    def reference(conversation: Sequence[Turn]) -> float | None:
        if len(conversation) != 2:
            return None
        text = conversation[0]["content"] + conversation[1]["content"] + tokenizer.eos_token
        return logits(model, tokenizer(text).input_ids)

    return Produced(tmp / "text", reference)


def padding_is_the_end(tmp: Path) -> Produced:
    """A classifier whose padding is the token that ends a turn: the library scores the last other token."""
    tokenizer = base(tmp / "base", CHATML.replace("<|im_end|>\n", "<|im_end|>"))
    tokenizer.pad_token = tokenizer.eos_token = "<|im_end|>"
    tokenizer.save_pretrained(tmp / "base")
    model = AutoModelForSequenceClassification.from_pretrained(tmp / "base", pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(tmp / "base")
    return Produced(tmp / "base", _chat_reference(tokenizer, model))


def no_padding(tmp: Path) -> Produced:
    """A classifier without any padding token: the last token is scored."""
    tokenizer = base(tmp / "base", CHATML)
    model = AutoModelForSequenceClassification.from_pretrained(tmp / "base")
    model.config.pad_token_id = None
    model.save_pretrained(tmp / "base")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp / "base")
    settings = json.loads((tmp / "base" / "tokenizer_config.json").read_text())
    assert settings.get("pad_token") is None
    return Produced(tmp / "base", _chat_reference(tokenizer, model))


def _chat_reference(tokenizer: Any, model: Any) -> Callable[[Sequence[Turn]], float]:
    def reference(conversation: Sequence[Turn]) -> float:
        return logits(model, tokenizer.apply_chat_template(list(conversation), return_dict=True)["input_ids"])

    return reference


class RewardModel(Qwen2PreTrainedModel):
    """OpenRLHF's model, written out from ``openrlhf/models/model.py``: a head on the last token of the mask."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.value_head_prefix = config.value_head_prefix
        setattr(self, config.value_head_prefix, nn.Linear(config.hidden_size, 1, bias=False))
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Tensor:
        states = self.model(input_ids, attention_mask=attention_mask).last_hidden_state
        values = getattr(self, self.value_head_prefix)(states).squeeze(-1)
        ends = attention_mask.size(1) - 1 - attention_mask.long().fliplr().argmax(dim=1, keepdim=True)
        return values.gather(dim=1, index=ends).squeeze(1)


def openrlhf_text(tokenizer: Any, conversation: Sequence[Turn], *, chat: bool = True) -> str:
    """``preprocess_data`` and ``RewardDataset.__getitem__`` of OpenRLHF 0.11."""
    if chat:
        text = tokenizer.apply_chat_template(list(conversation), tokenize=False)
    else:
        text = conversation[0]["content"] + conversation[1]["content"]
    text = text.rstrip("\n")
    return text if text.endswith(tokenizer.eos_token) else text + " " + tokenizer.eos_token


def openrlhf(
    tmp: Path, *, adapted: tuple[str, ...] = (), template: str | None = CHATML, head: str = "value_head"
) -> Produced:
    """OpenRLHF's folder, or an adapter of peft on it."""
    tokenizer = tokenizer_for("qwen", template)
    if template is not None:
        tokenizer.eos_token = "<|im_end|>"
    torch.manual_seed(0)
    config = decoder(len(tokenizer), value_head_prefix=head)
    model: Any = RewardModel(config)
    folder = tmp / "openrlhf"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if adapted:
        model = get_peft_model(model, LoraConfig(r=4, target_modules=list(adapted)))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.3)
        model.peft_config["default"].base_model_name_or_path = str(folder)
        folder = tmp / "adapter"
        model.save_pretrained(folder)

    def reference(conversation: Sequence[Turn]) -> float | None:
        if template is None and len(conversation) != 2:
            return None
        text = openrlhf_text(tokenizer, conversation, chat=template is not None)
        batch = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            return float(model.eval()(batch.input_ids, attention_mask=batch.attention_mask))

    return Produced(folder, reference)


def bert(size: int) -> BertConfig:
    """A tiny encoder of 64 positions."""
    return BertConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.3,
        num_labels=1,
    )


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """The byte-level tokenizer with BERT's pair template."""
    from tokenizers import Tokenizer, processors

    from tests.references.tokenizers import base as tokenizer_base

    tokenizer = Tokenizer.from_str(tokenizer_base("gpt2"))
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[MASK]"])
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        model_max_length=64,
        **names,
    )


def trl_encoder(tmp: Path) -> Produced:
    """RewardTrainer on BERT with ``prompt [SEP] answer``: its collator passes no token types."""
    tokenizer = bert_tokenizer()
    tokenizer.eos_token = "[SEP]"
    torch.manual_seed(0)
    BertForSequenceClassification(bert(len(tokenizer))).save_pretrained(tmp / "base")
    tokenizer.save_pretrained(tmp / "base")

    def text(conversation: Sequence[Turn], answer: str) -> str:
        return f"{conversation[0]['content']}[SEP]{answer}"

    rows = [{"chosen": text(c, c[1]["content"]), "rejected": text(c, "No idea.")} for c in ROWS if len(c) == 2]
    trainer = RewardTrainer(
        str(tmp / "base"),
        args=arguments(tmp / "run"),
        train_dataset=Dataset.from_list(rows[:6]),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(str(tmp / "encoder"))
    trainer.create_model_card(model_name="encoder")
    card = next((tmp / "run").glob("README.md"))
    (tmp / "encoder" / "README.md").write_text(card.read_text(encoding="utf-8"), encoding="utf-8")
    model = AutoModelForSequenceClassification.from_pretrained(tmp / "encoder")

    def reference(conversation: Sequence[Turn]) -> float | None:
        if len(conversation) != 2:
            return None
        ids = tokenizer(text(conversation, conversation[1]["content"])).input_ids
        return logits(model, ids) if len(ids) <= 64 else None

    return Produced(tmp / "encoder", reference)


def cross_encoder(tmp: Path) -> Produced:
    """sentence-transformers' CrossEncoder, long rows included: it cuts the longer text at its end."""
    from sentence_transformers import CrossEncoder

    tokenizer = bert_tokenizer()
    torch.manual_seed(0)
    BertForSequenceClassification(bert(len(tokenizer))).save_pretrained(tmp / "base")
    tokenizer.save_pretrained(tmp / "base")
    model = CrossEncoder(str(tmp / "base"), num_labels=1, device="cpu")
    model.save_pretrained(str(tmp / "cross"))
    again = CrossEncoder(str(tmp / "cross"), device="cpu")

    def reference(conversation: Sequence[Turn]) -> float | None:
        if len(conversation) != 2:
            return None
        pair = (conversation[0]["content"], conversation[1]["content"])
        return float(again.predict([pair], activation_fn=nn.Identity(), show_progress_bar=False)[0])

    return Produced(tmp / "cross", reference)


def armorm(tmp: Path) -> Produced:
    """ArmoRM's forward, written out from its ``modeling_custom.py``: aspects, transform and a gate on the prompt."""
    tokenizer = tokenizer_for("llama3", LLAMA3)
    torch.manual_seed(0)
    backbone = LlamaModel(decoder(len(tokenizer), LlamaConfig)).eval()
    added = {
        "regression_layer.weight": torch.randn(5, 32),
        "reward_transform_matrix": torch.randn(5, 5),
        "gating.layers.0.weight": torch.randn(16, 32),
        "gating.layers.0.bias": torch.randn(16),
        "gating.layers.1.weight": torch.randn(5, 16),
        "gating.layers.1.bias": torch.randn(5),
        "gating.logit_scale": torch.tensor([1.5]),
    }
    folder = tmp / "armorm"
    backbone.config.architectures = ["LlamaForRewardModelWithGating"]
    backbone.config.gating_temperature = 2.0
    backbone.config.save_pretrained(folder)
    tensors = {f"model.{name}": tensor for name, tensor in backbone.state_dict().items()} | added
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["LlamaForRewardModelWithGating"]}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save_pretrained(folder)
    header = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    pattern = tokenizer(header, add_special_tokens=False).input_ids

    def reference(conversation: Sequence[Turn]) -> float | None:
        ids = tokenizer.apply_chat_template(list(conversation), return_dict=True)["input_ids"]
        places = [i for i in range(len(ids) - len(pattern), -1, -1) if ids[i : i + len(pattern)] == pattern]
        if not places:  # its own code raises
            return None
        with torch.no_grad():
            states = backbone(torch.tensor([ids])).last_hidden_state[0]
        aspects = added["regression_layer.weight"] @ states[-1]
        hidden = torch.relu(added["gating.layers.0.weight"] @ states[places[0]] + added["gating.layers.0.bias"])
        logits_of_gate = added["gating.layers.1.weight"] @ hidden + added["gating.layers.1.bias"]
        gate = (logits_of_gate / 2.0).softmax(0) * 1.5
        return float((gate * (aspects @ added["reward_transform_matrix"])).sum())

    return Produced(folder, reference)


LONG: tuple[tuple[Turn, ...], ...] = (
    ({"role": "user", "content": "many words " * 40}, {"role": "assistant", "content": "short"}),
    ({"role": "user", "content": "short"}, {"role": "assistant", "content": "many other words " * 40}),
    ({"role": "user", "content": "many words " * 40}, {"role": "assistant", "content": "many other words " * 40}),
)
"""Rows beyond 64 tokens."""

PRODUCERS: dict[str, Callable[[Path], Produced]] = {
    "TRL, conversations, ChatML": trl_chat,
    "TRL, conversations, Llama-3": lambda tmp: trl_chat(tmp, "llama3", LLAMA3),
    "TRL, LoRA": trl_adapter,
    "TRL, plain text": trl_text,
    "TRL, BERT": trl_encoder,
    "transformers, padding is the end of text": padding_is_the_end,
    "transformers, no padding token": no_padding,
    "OpenRLHF": openrlhf,
    "OpenRLHF, head `score`": lambda tmp: openrlhf(tmp, head="score"),
    "OpenRLHF, no chat template": lambda tmp: openrlhf(tmp, template=None),
    "peft on OpenRLHF": lambda tmp: openrlhf(tmp, adapted=("q_proj", "v_proj")),
    "peft on OpenRLHF, head adapted": lambda tmp: openrlhf(tmp, adapted=("q_proj", "down_proj", "value_head")),
    "sentence-transformers CrossEncoder": cross_encoder,
    "ArmoRM, Llama-3": armorm,
}
"""By what wrote them."""

Scores = NDArray[np.float32]
