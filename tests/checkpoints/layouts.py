"""Tiny checkpoints exactly as each trainer leaves them, with the scores that an independent forward gives."""

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

import ranker
from ranker.checkpoints.inspection import inspect
from ranker.errors import RankerError
from tests.models.test_reward import ANSWERS, PROMPT, save_backbone, trained

CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if not loop.first %}{{ '\n\n' }}{% endif %}{{ m.content }}{% endfor %}"
    "{{ eos_token }}"
)
"""Beginning of text, turns with blank lines between, end of text: as ``rows_of`` writes it out."""

DEFAULTS = ("ranker", "id2label", "label2id", "num_labels", "problem_type")


@dataclass
class TinyCheckpoint:
    """A folder, the scores of ``ANSWERS``, options of ``ranker.load``, its head's tensor and the head's file."""

    folder: Path
    scores: np.ndarray
    head: str = "score.weight"
    file: str = "model.safetensors"
    options: dict = field(default_factory=dict)


def foreign(tmp_path, family, *, labels=1, pad="[PAD]", head=None, declare=True):
    """A checkpoint as transformers, TRL or OpenRLHF leave it: no section of ours in it."""
    folder = save_backbone(tmp_path / "foreign", family, pad=pad, template=CHAT)
    torch.manual_seed(1)
    pad_id = 3 if pad == "[SEP]" else 0
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels, pad_token_id=pad_id)
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    if family == "llama":
        tensors["score.weight"] = tensors["score.weight"] * 20
    if head:
        tensors[f"{head}.weight"] = tensors.pop("score.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config = {k: v for k, v in config.items() if declare or k not in DEFAULTS}
    if head:
        config["architectures"] = ["RewardModel"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder, model


def decoder_scores(model, tensors, folder, end=(3,)):
    """Head times last state of ``[BOS] prompt blank-line answer EOS``, written out."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [tokenizer.encode(text, add_special_tokens=False) for text in (PROMPT, *ANSWERS)]
    head = next(t for name, t in tensors.items() if name.split(".")[0] in ("score", "value_head", "rm_head"))
    out = []
    for answer in texts[1:]:
        ids = torch.tensor([[2, *texts[0], *answer, *end]])
        with torch.no_grad():
            out.append((model.model(ids).last_hidden_state[0, -1] @ head.T).tolist())
    return np.array(out)


def rows_of(folder, end=(3,)):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt, *answers = (tokenizer.encode(text, add_special_tokens=False) for text in (PROMPT, *ANSWERS))
    return [torch.tensor([[2, *prompt, *answer, *end]]) for answer in answers]


def last_states(backbone, folder, end=(3,)):
    with torch.no_grad():
        return torch.cat([backbone.eval()(ids).last_hidden_state[:, -1] for ids in rows_of(folder, end)])


def configured(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in (config | changes).items() if v is not ...}))


def read_tensors(file):
    """Tensors of safetensors or of a pickle."""
    return load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)


def write_tensors(file, tensors):
    """Write them as the file's kind."""
    if file.suffix == ".safetensors":
        save_file(tensors, file, {"format": "pt"})
    else:
        torch.save(tensors, file)


def ours(tmp_path):
    """A folder of ranker train encoder-bradley-terry."""
    from ranker.records import Group

    folder, scorer = trained(tmp_path, "bert")
    return TinyCheckpoint(folder, scorer.score([Group(PROMPT, ANSWERS)])[0].scores, "classifier.weight")


def decoder(tmp_path):
    """TRL, RLHFlow, NeMo-RL."""
    folder, model = foreign(tmp_path, "llama")
    return TinyCheckpoint(folder, decoder_scores(model, load_file(folder / "model.safetensors"), folder)[:, 0])


def encoder(tmp_path):
    """OpenAssistant's DeBERTa."""
    folder, model = foreign(tmp_path, "deberta-v2")
    return TinyCheckpoint(folder, encoder_scores(model, folder), "classifier.weight")


def encoder_scores(model, folder):
    """The library's logits of (prompt, answer) pairs."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer([PROMPT] * len(ANSWERS), list(ANSWERS), padding=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**batch).logits[:, 0].numpy()


def token_classifier(tmp_path):
    """verl, LLaMA-Factory v1, NeMo-RL's regression: a head with a bias on every token."""
    folder = save_backbone(tmp_path / "tokens", "llama", template=CHAT)
    model = AutoModelForTokenClassification.from_pretrained(folder, num_labels=1)
    model.score.bias.data.fill_(0.7)
    model.save_pretrained(folder)
    with torch.no_grad():
        expected = torch.cat([model.eval()(ids).logits[:, -1, 0] for ids in rows_of(folder)])
    return TinyCheckpoint(folder, expected.numpy())


def openrlhf(tmp_path, head="value_head"):
    """A RewardModel in bf16, without num_labels, with mean and std."""
    folder, _ = foreign(tmp_path, "llama", head=head, declare=False)
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    configured(folder, architectures=["RewardModel"], mean=0.5, std=2.0, normalize_reward=True, value_head_prefix=head)
    backbone = AutoModel.from_pretrained(folder, dtype=torch.float32)
    expected = last_states(backbone, folder) @ tensors[f"{head}.weight"].float().T
    return TinyCheckpoint(folder, expected[:, 0].numpy(), f"{head}.weight")


def llama_factory(tmp_path, pickled=False):
    """A language model, and v_head.summary in a file of its own."""
    folder = save_backbone(tmp_path / "factory", "llama", template=CHAT)
    torch.manual_seed(4)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(folder)
    head = {"v_head.summary.weight": torch.randn(1, 32), "v_head.summary.bias": torch.tensor([0.3])}
    file = "value_head.bin" if pickled else "value_head.safetensors"
    write_tensors(folder / file, head)
    expected = last_states(model.model, folder) @ head["v_head.summary.weight"].T + 0.3
    options = {"allow_pickle": True} if pickled else {}
    return TinyCheckpoint(folder, expected[:, 0].numpy(), "v_head.summary.weight", file, options)


def trlx(tmp_path):
    """A pickled state dict with the buffers of its time; what is read is the token before the first padding (the end)."""
    folder = save_backbone(tmp_path / "trlx", "gpt2", pad="[SEP]")
    torch.manual_seed(5)
    backbone = AutoModel.from_pretrained(folder)
    head = torch.randn(1, 32)
    tensors = {f"transformer.{name}": tensor for name, tensor in backbone.state_dict().items()}
    (folder / "model.safetensors").unlink()
    buffers = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8),
        "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
    }
    torch.save(tensors | buffers | {"v_head.weight": head}, folder / "pytorch_model.bin")
    configured(folder, architectures=["GPT2LMHeadModel"], pad_token_id=3, eos_token_id=3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [f"<|startoftext|>{PROMPT}\n{answer}" for answer in ANSWERS]
    with torch.no_grad():
        rows = [torch.tensor([tokenizer(text).input_ids]) for text in texts]
        expected = torch.cat([backbone.eval()(row).last_hidden_state[:, -1] for row in rows]) @ head.T
    return TinyCheckpoint(folder, expected[:, 0].numpy(), "v_head.weight", "pytorch_model.bin", {"allow_pickle": True})


def crossencoder(tmp_path):
    """sentence-transformers with a sigmoid as its default activation; rewards are the raw logits."""
    folder, model = foreign(tmp_path, "bert")
    configured(folder, sentence_transformers={"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "5.0"})
    return TinyCheckpoint(folder, encoder_scores(model, folder), "classifier.weight")


def steamshp(tmp_path):
    """A T5 that answers A or B; its score is the first word's log-odds over both orders, against the other answers."""
    from tests.models.test_seq2seq import plain_logits

    folder = save_backbone(tmp_path / "t5", "t5")

    def logit(a, b):
        (one, two), (three, four) = plain_logits(folder, PROMPT, a, b)[0], plain_logits(folder, PROMPT, b, a)[0]
        return float((one - two) - (three - four)) / 2

    pairs = [[logit(a, b) if a != b else 0.0 for b in ANSWERS] for a in ANSWERS]
    return TinyCheckpoint(folder, np.array(pairs).mean(axis=1), "shared.weight")


def armorm(tmp_path):
    """Its own configuration and names; the score against the formula with numbers from the file."""
    folder = save_backbone(tmp_path / "armorm", "llama", template=CHAT)
    backbone = AutoModel.from_pretrained(folder).eval()
    torch.manual_seed(2)
    added = {
        "regression_layer.weight": torch.randn(5, 32),
        "reward_transform_matrix": torch.randn(5, 5),
        "gating.layers.0.weight": torch.randn(16, 32),
        "gating.layers.0.bias": torch.randn(16),
        "gating.layers.1.weight": torch.randn(5, 16),
        "gating.layers.1.bias": torch.randn(5),
        "gating.logit_scale": torch.tensor([1.5]),
    }
    tensors = {f"model.{name}": tensor for name, tensor in backbone.state_dict().items()} | added
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["LlamaForRewardModelWithGating"], "num_objectives": 5, "gating_temperature": 2.0}
    (folder / "config.json").write_text(json.dumps(config))

    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt, *answers = (tokenizer.encode(text, add_special_tokens=False) for text in (PROMPT, *ANSWERS))
    expected = []
    for answer in answers:
        with torch.no_grad():
            states = backbone(torch.tensor([[2, *prompt, *answer, 3]])).last_hidden_state[0]
        aspects = added["regression_layer.weight"] @ states[-1]
        at = states[len(prompt)]  # this tokenizer writes nothing between prompt and answer: the prompt's last token
        hidden = torch.relu(added["gating.layers.0.weight"] @ at + added["gating.layers.0.bias"])
        logits = added["gating.layers.1.weight"] @ hidden + added["gating.layers.1.bias"]
        gate = (logits / 2.0).softmax(0) * 1.5
        expected.append((gate * (aspects @ added["reward_transform_matrix"])).sum().item())
    return TinyCheckpoint(folder, np.array(expected), "regression_layer.weight")


def pairrm(tmp_path, original=False):
    """Against LLM-Blender's forward written out: three segments, one head on [source; candidate], left minus right."""
    from transformers import DebertaV2Config, DebertaV2Model

    folder = save_backbone(tmp_path / "pairrm", "deberta-v2")
    torch.manual_seed(3)
    hidden, rows = 128, 604
    settings = {
        "vocab_size": rows,
        "hidden_size": hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "max_relative_positions": -1,
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-7,
        "initializer_range": 0.2,
        "pad_token_id": 0,
    }
    backbone = DebertaV2Model(DebertaV2Config(**settings)).eval()
    head = {
        "head_layer.1.weight": torch.randn(hidden, 2 * hidden),
        "head_layer.1.bias": torch.randn(hidden),
        "head_layer.4.weight": torch.randn(3, hidden),
        "head_layer.4.bias": torch.randn(3),
    }
    tensors = {f"pretrained_model.{name}": tensor for name, tensor in backbone.state_dict().items()} | head
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>"])
    tokenizer.save_pretrained(folder)
    ids = [tokenizer.convert_tokens_to_ids(m) for m in ("<|source|>", "<|candidate1|>", "<|candidate2|>")]
    names = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id")
    config = {
        "model_type": "deberta-v2",
        "architectures": ["DebertaV2PairRM"],
        "n_tasks": 3,
        "drop_out": 0.05,
    } | settings
    if original:
        config = {
            "ranker_type": "pairranker",
            "model_type": "deberta",
            "model_name": "microsoft/deberta-v3-large",
            "n_tasks": 3,
        }
    else:
        config |= dict(zip(names, ids, strict=True))
    (folder / "config.json").write_text(json.dumps(config))

    def logit(left, right):
        texts = [tokenizer.encode(text, add_special_tokens=False) for text in (PROMPT, left, right)]
        row, at = [], []
        for marker, text in zip(ids, texts, strict=True):
            at.append(len(row) + 1)
            row += [2, marker, *text, 3]
        with torch.no_grad():
            states = backbone(torch.tensor([row])).last_hidden_state[0, at]
            read = [torch.cat([states[0], states[k]]) for k in (1, 2)]
            inner = [torch.tanh(head["head_layer.1.weight"] @ r + head["head_layer.1.bias"]) for r in read]
            sides = [head["head_layer.4.weight"] @ i + head["head_layer.4.bias"] for i in inner]
        return (sides[0] - sides[1]).mean().item()

    pairs = [[(logit(a, b) - logit(b, a)) / 2 if a != b else 0.0 for b in ANSWERS] for a in ANSWERS]
    return TinyCheckpoint(folder, np.array(pairs).mean(axis=1), "head_layer.4.weight")


def adapter(tmp_path, head=True):
    """peft on TRL's classifier: the head whole among the adapter's tensors, the base model elsewhere."""
    from peft import LoraConfig, TaskType, get_peft_model

    base = save_backbone(tmp_path / "base", "llama", template=CHAT)
    torch.manual_seed(6)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=0)
    model.score.weight.data.mul_(20)
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type=TaskType.SEQ_CLS)
    adapted = get_peft_model(model, lora)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path / "adapter"
    adapted.save_pretrained(folder)
    with torch.no_grad():
        expected = torch.cat([adapted.eval()(ids).logits[:, 0] for ids in rows_of(base)])
    checkpoint = TinyCheckpoint(folder, expected.numpy(), "base_model.model.score.weight", "adapter_model.safetensors")
    if not head:
        tensors = read_tensors(folder / checkpoint.file)
        del tensors[checkpoint.head]
        write_tensors(folder / checkpoint.file, tensors)
    return checkpoint


CHECKPOINTS = {
    "ranker pointwise": ours,
    "HF sequence classification (decoder)": decoder,
    "HF sequence classification (encoder)": encoder,
    "sentence-transformers CrossEncoder": crossencoder,
    "HF token classification": token_classifier,
    "OpenRLHF": openrlhf,
    "LLaMA-Factory value head": llama_factory,
    "trlx": trlx,
    "LLM-Blender PairRM": pairrm,
    "ArmoRM": armorm,
    "T5 (SteamSHP)": steamshp,
    "PEFT adapter": adapter,
}
"""By the format's name, and in brackets its kind."""


# How each breaks: (checkpoint) -> None, in place.


def _tensors(change):
    def broken(checkpoint):
        file = checkpoint.folder / checkpoint.file
        tensors = read_tensors(file)
        change(tensors, checkpoint.head)
        write_tensors(file, tensors)

    return broken


def _rename(tensors, head):
    tensors["my_head.weight"] = tensors.pop(head)


def _fewer_words(tensors, _):
    ends = ("embed_tokens.weight", "word_embeddings.weight", "wte.weight", "shared.weight")
    name = next(name for name in tensors if name.endswith(ends))
    tensors[name] = tensors[name][:50].clone()


def _truncate(checkpoint):
    file = checkpoint.folder / checkpoint.file
    file.write_bytes(file.read_bytes()[:-64])


def _two_labels(checkpoint):
    configured(checkpoint.folder, id2label={"0": "LABEL_0", "1": "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1})


def _pad_is_eos(checkpoint):
    settings = checkpoint.folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"pad_token": "[SEP]", "eos_token": "[SEP]"}))
    configured(checkpoint.folder, pad_token_id=3, eos_token_id=3)


BREAKAGES = {
    "head missing": _tensors(lambda tensors, head: tensors.pop(head)),
    "head under another name": _tensors(_rename),
    "two labels": _two_labels,
    "truncated file": _truncate,
    "empty tensor": _tensors(lambda tensors, head: tensors.update({head: torch.zeros(0)})),
    "NaN": _tensors(lambda tensors, head: tensors[head].view(-1)[0].fill_(float("nan"))),
    "other vocabulary": _tensors(_fewer_words),
    "padding is the end": _pad_is_eos,
}


def outcome(name, breakage, checkpoint):
    """Break a checkpoint and return in one line what loading it gives; None where it loads without a message."""
    decoders = ("decoder", "token", "OpenRLHF", "Factory")
    if breakage == "padding is the end" and not any(part in name for part in decoders):
        return "does not apply"
    if breakage in ("head missing", "head under another name", "two labels") and name == "T5 (SteamSHP)":
        return "does not apply"
    if breakage == "two labels" and ("PEFT" in name or "PairRM" in name or "ArmoRM" in name):
        return "does not apply"  # they have no labels
    if breakage == "other vocabulary" and ("PEFT" in name or "Factory" in name):
        checkpoint = TinyCheckpoint(
            checkpoint.folder, checkpoint.scores, checkpoint.head, "model.safetensors", checkpoint.options
        )
        if "PEFT" in name:
            checkpoint.folder = checkpoint.folder.parent / "base"
    BREAKAGES[breakage](checkpoint)
    folder = checkpoint.folder.parent / "adapter" if "PEFT" in name else checkpoint.folder
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            ranker.load(folder, **checkpoint.options)
        except RankerError as error:
            return "error: " + str(error)
    notes = [str(w.message) for w in caught if issubclass(w.category, UserWarning) and "padding" in str(w.message)]
    problems = [str(problem) for problem in inspect(folder, **checkpoint.options).problems]
    known = [p for p in problems if {"two labels": "outputs", "padding is the end": "padding"}.get(breakage, p) in p]
    if notes:
        return "read, with a warning: " + notes[0]
    if breakage == "padding is the end":
        return "read the same: the mask decides which token is scored, not the padding id"
    return f"read as the file says; inspect: {known[0]}" if known else None
