"""Checkpoint folders that are damaged, nonsense, or ask for far more than they hold."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

Change = Callable[[Path], None]

JUNK: Final = {
    "empty": b"",
    "zeros": b"\0" * 1000,
    "not UTF-8": b"\xff\xfe{}",
    "cut": b'{"a": ',
    "list": b"[]",
    "null": b"null",
    "number": b"3",
    "text": b'"x"',
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "large": b'{"a": "' + b"x" * (300 << 20) + b'"}',
    "page": b"<html>404</html>",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 99\n",
}
"""Contents of any file that should hold an object."""


def write(name: str, content: bytes) -> Change:
    """Replace a file's content."""
    return lambda folder: _write(folder / name, content)


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def setting(**changes: Any) -> Change:
    """Change settings of config.json; None removes one."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        values = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))

    return change


def pipe(name: str) -> Change:
    """Put a pipe in the place of a file: whoever opens it waits for ever."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def index(shards: dict[str, Any] | list[Any] | int) -> Change:
    """An index of shards in the place of the weights."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "other.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))

    return change


def header(values: bytes) -> Change:
    """Weights with a header of our own."""
    return write("model.safetensors", len(values).to_bytes(8, "little") + values)


SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "a million layers": {"num_hidden_layers": 1_000_000},
    "very many layers": {"num_hidden_layers": 10**30},
    "a layer too many": {"num_hidden_layers": 3},
    "negative layers": {"num_hidden_layers": -1},
    "layers as text": {"num_hidden_layers": "many"},
    "ten million labels": {"num_labels": 10_000_000, "id2label": None, "label2id": None},
    "many labels": {"id2label": {str(n): "x" for n in range(30_000)}},
    "labels as list": {"id2label": ["a"]},
    "labels as number": {"id2label": 3},
    "wide": {"hidden_size": 10**12},
    "no width": {"hidden_size": 0},
    "negative width": {"hidden_size": -32},
    "width as text": {"hidden_size": "32"},
    "many heads": {"num_attention_heads": 10**9},
    "no heads": {"num_attention_heads": 0},
    "large vocabulary": {"vocab_size": 10**9},
    "long": {"max_position_embeddings": 10**9},
    "inner width": {"intermediate_size": 10**11},
    "activation": {"hidden_act": "__import__('os').system('true')"},
    "kernel of the hub": {"attn_implementation": "stranger/kernel"},
    "private kernel of the hub": {"_attn_implementation": "stranger/kernel:main"},
    "experts of the hub": {"experts_implementation": "stranger/kernel"},
    "code": {"auto_map": {"AutoModel": "stranger/code--model.Model"}},
    "unknown type": {"model_type": "nothing"},
    "type as list": {"model_type": ["bert"]},
    "no type": {"model_type": None},
    "unknown class": {"architectures": ["Nothing"]},
    "classes as text": {"architectures": "BertForSequenceClassification"},
    "classes as number": {"architectures": 3},
    "class as null": {"architectures": [None]},
    "number type": {"torch_dtype": "float1"},
    "quantization": {"quantization_config": {"quant_method": "nothing"}},
    "quantization as list": {"quantization_config": []},
    "padding": {"pad_token_id": 10**9},
    "padding as text": {"pad_token_id": "[PAD]"},
    "head's name": {"value_head_prefix": ["a"]},
    "backbone as list": {"backbone": [1]},
    "part with many layers": {"text_config": {"num_hidden_layers": 10**7}},
    "problem type": {"problem_type": "nothing"},
    "dropout": {"hidden_dropout_prob": "x"},
    "own section": {"ranker": {"text": 3}},
    "own section as list": {"ranker": []},
    "own head": {"ranker": {"head": "nothing", "text": {}}},
    "rope": {"rope_scaling": {"type": "nothing", "factor": 0}, "rope_parameters": 3},
}

CHANGES: Final[dict[str, Change]] = {
    **{f"config {name}": setting(**values) for name, values in SETTINGS.items()},
    **{f"config.json: {name}": write("config.json", content) for name, content in JUNK.items()},
    **{f"tokenizer.json: {name}": write("tokenizer.json", content) for name, content in JUNK.items()},
    **{f"tokenizer_config.json: {name}": write("tokenizer_config.json", content) for name, content in JUNK.items()},
    **{f"adapter_config.json: {name}": write("adapter_config.json", content) for name, content in JUNK.items()},
    **{f"modules.json: {name}": write("modules.json", content) for name, content in JUNK.items()},
    **{
        f"index: {name}": write("model.safetensors.index.json", content) for name, content in JUNK.items()
    },  # beside the weights
    **{f"weights: {name}": write("model.safetensors", content) for name, content in JUNK.items() if name != "large"},
    **{
        f"pipe: {name}": pipe(name)
        for name in ("config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json")
    },
    "pipe: tokenizer_config.json": pipe("tokenizer_config.json"),
    "pipe: adapter_config.json": pipe("adapter_config.json"),
    "index out of the folder": index({"a": "../other/model.safetensors"}),
    "index of an absolute path": index({"a": "/etc/passwd"}),
    "index of the folder": index({"a": "."}),
    "index of nothing": index({}),
    "index as list": index([]),
    "index as number": index(3),
    "index of numbers": index({"a": 3}),
    "index of very many": index({f"tensor.{n}": f"shard-{n}.safetensors" for n in range(300_000)}),
    "header: long": header(b"{" + b" " * 10_000_000 + b"}"),
    "header: no JSON": header(b"nothing"),
    "header: list": header(b"[]"),
    "header: shape": header(b'{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 4]}}'),
    "header: offsets": header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}'),
    "header: type": header(b'{"a": {"dtype": "X99", "shape": [1], "data_offsets": [0, 4]}}'),
    "header: negative shape": header(b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}'),
    "header: length": write("model.safetensors", (1 << 60).to_bytes(8, "little") + b"{}"),
    "weights in a folder": lambda folder: (
        (folder / "model.safetensors").unlink(),
        (folder / "model.safetensors").mkdir(),
    )[1],
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "loop of links": lambda folder: (
        (folder / "config.json").unlink(),
        (folder / "config.json").symlink_to(folder / "config.json"),
    )[1],
}
