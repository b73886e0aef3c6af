"""Tokenizers with real merges, trained here, with the pre-tokenizers of the model families in use."""

from __future__ import annotations

import json
import re
from functools import cache
from itertools import islice

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from ranker.data.sample import build

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
KINDS = ("gpt2", "llama3", "qwen", "metaspace")
PLAIN_ADDED = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
"""Tokens that Qwen and others add without calling them special."""

MARKERS = re.compile(
    r"<\|[\w/:\-. ]+?\|>|<(?:start_of_turn|end_of_turn|bos|eos|s|/s|pad|start_of_image|turn\||\|turn)>|\[/?INST\]"
)


def corpus() -> list[str]:
    """The rows of the built-in sample, and runs of spaces and line breaks, which become merges."""
    texts = [text for row in islice(build.rows("validation"), 300) for text in (row["prompt"], *row["candidates"])]
    code = [f"def f{n}(x):\n    return {{\n        'a': x,\n    }}\n\n\n" for n in range(20)]
    breaks = ["\n" * n + word for n in range(1, 9) for word in ("a", "The", "Paris", "1")]
    return [
        *texts,
        *(text.replace(". ", ".\n") for text in texts),
        *(text.replace(". ", ".\n\n") for text in texts),
        *code,
        *breaks,
    ]


@cache
def base(kind: str) -> str:
    """A trained tokenizer without special tokens, as JSON."""
    if kind == "metaspace":
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=2500, special_tokens=["<unk>", *alphabet], show_progress=False)
        # Words train faster than whole texts, and merges over spaces are learned from the lines.
        lines = [line for text in corpus() for line in re.findall(r".{1,40}|\n+", text)]
        tokenizer.train_from_iterator(lines, trainer)
        values = json.loads(tokenizer.to_str())  # bytes are words of the vocabulary, no added tokens
        values["added_tokens"] = [token for token in values["added_tokens"] if token["content"] == "<unk>"]
        return json.dumps(values)
    tokenizer = Tokenizer(models.BPE())
    if kind == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        split = pre_tokenizers.Split(Regex(LLAMA3 if kind == "llama3" else QWEN), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    if kind == "qwen":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=2500, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer.to_str()


def tokenizer_for(kind: str, template: str | None, *, bos: bool = False) -> PreTrainedTokenizerFast:
    """A trained tokenizer with a chat template and the special tokens that it writes.

    Args:
        kind: one of ``KINDS``.
        template: the chat template.
        bos: whether the tokenizer puts its beginning of text before a single text.
    """
    tokenizer = Tokenizer.from_str(base(kind))
    specials = dict.fromkeys(["<|bos|>", "<|eos|>", "<|pad|>", *MARKERS.findall(template or "")])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in PLAIN_ADDED])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A", pair="<|bos|> $A $B", special_tokens=[("<|bos|>", tokenizer.token_to_id("<|bos|>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )
