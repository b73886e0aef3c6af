"""Rerankers that their own libraries write, and the scores and ids of their own code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    Qwen3Model,
)

from tests.models.test_reward import save_backbone
from tests.references.producers import bert, bert_tokenizer, decoder
from tests.references.tokenizers import tokenizer_for

Pair = tuple[str, str]

TEMPLATE = (
    "{%- for m in messages if m.role == 'system' %}<|im_start|>system\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>user\n<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>{{ '\n\n' }}"
)
"""As the rerankers of 2026 have it: roles of their own, the beginning of an answer at the end."""

QUERIES = ("Where was Apple founded?", "  what is it \n", "Ünïcödé 🙂 日本語?", "\nlist\n\n", "2 + 2 = ?", "a")
DOCUMENTS = ("Apple was founded in Los Altos.", "\n\nIt is a fruit.\n", "", " edge ", "<b>4</b> e\u0301 \ufb01\t")
PAIRS: tuple[Pair, ...] = tuple((query, document) for query in QUERIES for document in DOCUMENTS)
"""Thirty, with edge white space, line breaks, unicode and empty documents."""

LONG: tuple[Pair, ...] = (("short query", "many other words " * 60), ("short", "two \n\n" * 90))


@dataclass
class Reranker:
    """A folder, and the scores and ids that its library gives to pairs."""

    folder: Path
    scores: Callable[[Sequence[Pair]], list[float]]
    ids: Callable[[Pair], list[int]]
    options: dict[str, Any] = field(default_factory=dict)


def crossencoder(folder: Path) -> Reranker:
    """A folder of sentence-transformers, loaded again by it."""
    model = CrossEncoder(str(folder), device="cpu")

    def scores(pairs: Sequence[Pair]) -> list[float]:
        values = model.predict(list(pairs), activation_fn=nn.Identity(), show_progress_bar=False, batch_size=1)
        return [float(value) for value in values.reshape(-1)]

    def ids(pair: Pair) -> list[int]:
        prompt = (model.prompts or {}).get(model.default_prompt_name)
        ids: list[int] = model.preprocess([pair], prompt=prompt)["input_ids"][0].tolist()
        return ids

    return Reranker(folder, scores, ids)


def modules(
    tmp: Path, backbone: Path, *following: nn.Module, task: str = "feature-extraction", **options: Any
) -> Reranker:
    """A modular CrossEncoder, saved by sentence-transformers."""
    torch.manual_seed(0)
    for module in following:
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.5)
    model = CrossEncoder(
        modules=[Transformer(str(backbone), transformer_task=task), *following], device="cpu", **options
    )
    model.save_pretrained(str(tmp / "reranker"))
    return crossencoder(tmp / "reranker")


def ettin(tmp: Path) -> Reranker:
    """The released Ettin rerankers' modules, and a prompt before every query."""
    save_backbone(tmp / "backbone", "modernbert")
    return modules(
        tmp,
        tmp / "backbone",
        Pooling(32, "cls"),
        Dense(32, 32, bias=False, activation_function=nn.GELU()),
        LayerNorm(32),
        Dense(32, 1, activation_function=nn.Identity(), module_output_name="scores"),
        prompts={"query": "query: "},
        default_prompt_name="query",
    )


def mean_pooled(tmp: Path) -> Reranker:
    """MPNet, two poolings side by side, a residual layer."""
    save_backbone(tmp / "backbone", "mpnet")
    return modules(
        tmp,
        tmp / "backbone",
        Pooling(32, ("max", "mean")),
        Dense(64, 64, use_residual=True),
        Dense(64, 1, activation_function=nn.Identity(), module_output_name="scores"),
    )


def pooled_decoder(tmp: Path) -> Reranker:
    """A decoder read at its last token, under a chat template."""
    tokenizer = tokenizer_for("qwen", TEMPLATE)
    torch.manual_seed(0)
    Qwen3Model(decoder(len(tokenizer) + 8, Qwen3Config, head_dim=8)).save_pretrained(tmp / "backbone")
    tokenizer.save_pretrained(tmp / "backbone")
    head = Dense(32, 1, activation_function=nn.Identity(), module_output_name="scores")
    return modules(tmp, tmp / "backbone", Pooling(32, "lasttoken"), head)


def logit_score(tmp: Path) -> Reranker:
    """Qwen3-Reranker as it is released for sentence-transformers: tied words, a system message."""
    tokenizer = tokenizer_for("qwen", TEMPLATE)
    torch.manual_seed(0)
    config = decoder(len(tokenizer) + 8, Qwen3Config, head_dim=8, tie_word_embeddings=True)
    Qwen3ForCausalLM(config).save_pretrained(tmp / "backbone")
    tokenizer.save_pretrained(tmp / "backbone")
    options = {"prompts": {"web": "Judge the document."}, "default_prompt_name": "web"}
    return modules(tmp, tmp / "backbone", LogitScore(300, 400), task="text-generation", **options)


def one_word(tmp: Path) -> Reranker:
    """The logit of one word, of words that are not tied, without a chat template."""
    tokenizer = tokenizer_for("llama3", None, bos=True)
    tokenizer.pad_token = "<|pad|>"
    torch.manual_seed(0)
    LlamaForCausalLM(decoder(len(tokenizer) + 8, LlamaConfig, tie_word_embeddings=False)).save_pretrained(
        tmp / "backbone"
    )
    tokenizer.save_pretrained(tmp / "backbone")
    return modules(tmp, tmp / "backbone", LogitScore(77), task="text-generation")


def classifier_with_roles(tmp: Path) -> Reranker:
    """A language model turned into a classifier, with the template of a query and a document."""
    tokenizer = tokenizer_for("qwen", TEMPLATE)
    torch.manual_seed(0)
    config = decoder(len(tokenizer) + 8, Qwen3Config, head_dim=8, pad_token_id=tokenizer.pad_token_id)
    Qwen3ForSequenceClassification(config).save_pretrained(tmp / "backbone")
    tokenizer.save_pretrained(tmp / "backbone")
    CrossEncoder(str(tmp / "backbone"), device="cpu").save_pretrained(str(tmp / "reranker"))
    return crossencoder(tmp / "reranker")


def prompted(tmp: Path) -> Reranker:
    """A BERT with a default prompt."""
    tokenizer = bert_tokenizer()
    torch.manual_seed(0)
    BertForSequenceClassification(bert(len(tokenizer))).save_pretrained(tmp / "backbone")
    tokenizer.save_pretrained(tmp / "backbone")
    model = CrossEncoder(str(tmp / "backbone"), device="cpu", prompts={"q": "ask: "}, default_prompt_name="q")
    model.save_pretrained(str(tmp / "reranker"))
    return crossencoder(tmp / "reranker")


def distilbert(tmp: Path) -> Reranker:
    """A DistilBERT."""
    tokenizer = bert_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    torch.manual_seed(0)
    shape = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64}
    config = DistilBertConfig(vocab_size=len(tokenizer), initializer_range=0.3, num_labels=1, **shape)
    DistilBertForSequenceClassification(config).save_pretrained(tmp / "backbone")
    tokenizer.save_pretrained(tmp / "backbone")
    CrossEncoder(str(tmp / "backbone"), device="cpu").save_pretrained(str(tmp / "reranker"))
    return crossencoder(tmp / "reranker")


def mmbert(tmp: Path) -> Reranker:
    """ModernBERT under a tokenizer of another family, as mmBERT has Gemma's."""
    from tokenizers import processors

    tokenizer = tokenizer_for("metaspace", None)
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (tokenizer.bos_token, tokenizer.eos_token)]
    begin, end = (token for token, _ in ends)
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", pair=f"{begin} $A {end} $B {end}", special_tokens=ends
    )
    tokenizer.cls_token, tokenizer.sep_token = begin, end
    tokenizer.model_max_length = 128
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        local_attention=16,
        global_attn_every_n_layers=2,
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
        cls_token_id=ends[0][1],
        sep_token_id=ends[1][1],
        bos_token_id=ends[0][1],
        eos_token_id=ends[1][1],
        **shape,
    )
    ModernBertModel(config).save_pretrained(tmp / "backbone")
    tokenizer.save_pretrained(tmp / "backbone")
    head = Dense(32, 1, activation_function=nn.Identity(), module_output_name="scores")
    return modules(tmp, tmp / "backbone", Pooling(32, "mean"), head)


def language_model(folder: Path, answers: Sequence[str], rows: Callable[[Any, Pair], list[int]], text: str) -> Reranker:
    """A causal model, read by the published code of its kind: the logits of words at the last token."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = [tokenizer(word, add_special_tokens=False).input_ids[0] for word in answers]

    def score(pair: Pair) -> float:
        with torch.no_grad():
            logits = model(torch.tensor([rows(tokenizer, pair)])).logits[0, -1]
        return float(logits[words[0]] - logits[words[1]] if len(words) == 2 else logits[words[0]])

    return Reranker(
        folder,
        lambda pairs: [score(pair) for pair in pairs],
        lambda pair: rows(tokenizer, pair),
        {"text": {"format": text}},
    )


def qwen3_reranker(tmp: Path) -> Reranker:
    """``process_inputs`` of QwenLM/Qwen3-Embedding's example, with the model card's instruction."""
    tokenizer = tokenizer_for("qwen", "{% for m in messages %}{{ m.content }}{% endfor %}")
    torch.manual_seed(0)
    config = decoder(len(tokenizer) + 8, Qwen3Config, head_dim=8, tie_word_embeddings=True)
    Qwen3ForCausalLM(config).save_pretrained(tmp / "lm")
    _with_words(tokenizer, "yes", "no").save_pretrained(tmp / "lm")
    prefix = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    instruction = "Given a web search query, retrieve relevant passages that answer the query"

    def rows(tokenizer: Any, pair: Pair) -> list[int]:
        text = f"<Instruct>: {instruction}\n<Query>: {pair[0]}\n<Document>: {pair[1]}"
        parts = (prefix, text, suffix)
        return [i for part in parts for i in tokenizer(part, add_special_tokens=False).input_ids]

    return language_model(tmp / "lm", ("yes", "no"), rows, "qwen3-reranker")


def mxbai_rerank(tmp: Path) -> Reranker:
    """``prepare_inputs`` of mixedbread-ai/mxbai-rerank's version 2."""
    tokenizer = tokenizer_for("qwen", "{% for m in messages %}{{ m.content }}{% endfor %}")
    torch.manual_seed(0)
    Qwen2ForCausalLM(decoder(len(tokenizer) + 8, Qwen2Config, tie_word_embeddings=True)).save_pretrained(tmp / "lm")
    tokenizer.save_pretrained(tmp / "lm")
    prefix = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
    )
    task = (
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
    )

    def rows(tokenizer: Any, pair: Pair) -> list[int]:
        parts = (
            prefix,
            f"query: {pair[0]}",
            "\n",
            f"document: {pair[1]}",
            "\n",
            task,
            "<|im_end|>\n<|im_start|>assistant\n",
        )
        return [i for part in parts for i in tokenizer(part, add_special_tokens=False).input_ids]

    return language_model(tmp / "lm", ("1", "0"), rows, "mxbai-rerank-v2")


def bge_gemma(tmp: Path) -> Reranker:
    """``compute_score_single_gpu`` of FlagEmbedding's decoder-only rerankers."""
    tokenizer = _with_words(tokenizer_for("metaspace", None), "Yes")
    torch.manual_seed(0)
    config = decoder(len(tokenizer) + 8, LlamaConfig, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(tmp / "lm")
    tokenizer.save_pretrained(tmp / "lm")
    task = (
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
        "prediction of either 'Yes' or 'No'."
    )

    def rows(tokenizer: Any, pair: Pair) -> list[int]:
        parts = (f"A: {pair[0]}", "\n", f"B: {pair[1]}", "\n", task)
        return [tokenizer.bos_token_id, *(i for p in parts for i in tokenizer(p, add_special_tokens=False).input_ids)]

    return language_model(tmp / "lm", ("Yes",), rows, "bge-reranker-gemma")


def _with_words(tokenizer: Any, *words: str) -> Any:
    """The tokenizer, in which these words are one token each."""
    tokenizer.add_tokens([word for word in words if len(tokenizer.encode(word, add_special_tokens=False)) != 1])
    return tokenizer


RERANKERS: dict[str, Callable[[Path], Reranker]] = {
    "sentence-transformers modules, ModernBERT with a default prompt (Ettin)": ettin,
    "sentence-transformers modules, MPNet, two poolings, residual": mean_pooled,
    "sentence-transformers modules, decoder under a chat template": pooled_decoder,
    "sentence-transformers modules, ModernBERT with another tokenizer (mmBERT)": mmbert,
    "sentence-transformers LogitScore, Qwen3, chat template, system prompt": logit_score,
    "sentence-transformers LogitScore, one word, pair template": one_word,
    "sentence-transformers CrossEncoder, decoder classifier with roles of its own": classifier_with_roles,
    "sentence-transformers CrossEncoder, BERT with a default prompt": prompted,
    "sentence-transformers CrossEncoder, DistilBERT": distilbert,
    "transformers, Qwen3-Reranker's text": qwen3_reranker,
    "transformers, mxbai-rerank-v2's text": mxbai_rerank,
    "transformers, bge-reranker-v2-gemma's text": bge_gemma,
}
