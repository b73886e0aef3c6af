"""A checkpoint of any format that is read, as a folder of another format that scores the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoTokenizer

from ranker.checkpoints import native
from ranker.checkpoints.formats.registry import TARGETS, WRITERS
from ranker.checkpoints.formats.spec import Source
from ranker.checkpoints.native import Loaded
from ranker.errors import CheckpointError, ConfigError, nearest
from ranker.layouts import Layout
from ranker.layouts.settings import TextSettings
from ranker.models.backbones import DECODERS
from ranker.models.pointwise import PAD_TOKEN, RewardReading, last_read_id
from ranker.models.tokenizers import text_tokenizer
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.scoring.protocol import GroupScores

PROBES: Final = (
    Group("Name the capital of France.", ("Paris.", "It is Paris, the city on the Seine.", "Lyon", "")),
    Group("Sort: 3, 1, 2\nAnswer with numbers only.", ("1, 2, 3", "one two three", "3 2 1 " * 40)),
    Group("", ("Ünïcödé 🙂", "plain")),
)
"""What a source and its conversion are both asked to score."""

DTYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float32}
"""Of safetensors headers; pickles say the library's own name."""


def convert(
    source: Path,
    target: Path,
    to: str = "native",
    *,
    head_prefix: str | None = None,
    allow_pickle: bool = False,
    text: TextSettings | None = None,
) -> tuple[str, ...]:
    """Write ``source`` as a new folder of format ``to``, every tensor in the precision in which it was stored.

    The new folder is read again and must score the probes like the source.

    Args:
        source: a checkpoint that ``native.load`` reads; adapters are merged.
        target: a folder that does not exist, or is empty.
        to: one of ``TARGETS``.
        head_prefix: as in ``native.load``.
        allow_pickle: as in ``native.load``; the target is always safetensors.
        text: as in ``native.load``; the new folder keeps it.

    Returns:
        What could not be kept, or is read otherwise than a user may expect.

    Raises:
        ConfigError: an unknown format.
        CheckpointError: as ``native.load``; the target exists; the format cannot hold the model.
    """
    if to not in TARGETS:
        raise ConfigError(f"expected --to {', '.join(TARGETS)}, got '{to}'{nearest(to, TARGETS)}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target}: expected a new folder, found files in it; choose another")
    loaded = native.open_checkpoint(source, head_prefix=head_prefix, allow_pickle=allow_pickle, text=text)
    notes = list(loaded.notes)
    writer = WRITERS[to]
    if writer.read_by_transformers:
        loaded, padding_notes = own_padding(loaded)
        notes += padding_notes
    with _whole(target) as folder:
        notes += writer.write(Source(loaded.model, loaded.tokenizer, stored(loaded)), folder)
        expected = TorchScorer(loaded.model, loaded.tokenizer).score(PROBES)
        layout = loaded.model.layout
        del loaded  # a large model is held once
        written = native.open_checkpoint(folder)
        notes += _other_layout(layout, written.model.layout)
        scores = TorchScorer(written.model, written.tokenizer).score(PROBES)
        whole = [(a, b) for a, b in zip(expected, scores, strict=True) if not (_cut(a) or _cut(b))]
        native.compare([before for before, _ in whole], [after for _, after in whole], folder)
    return tuple(notes)


def _other_layout(before: Layout, after: Layout) -> list[str]:
    """Settings of the text that a format has no place for, and what they are now; lengths say where texts are cut."""
    then, now = before.model_dump(), after.model_dump()
    changed = [f"{name} {then[name]} is {now[name]}" for name in then if then[name] != now[name]]
    return [f"the text layout, for which this format has no place: {', '.join(changed)}"] if changed else []


def _cut(result: GroupScores) -> bool:
    return result.prompt_truncated or bool(result.truncated.any())


def stored(loaded: Loaded) -> dict[str, Tensor]:
    """The model's tensors in the precision of its files, without those that are tied to another."""
    tied = loaded.model.all_tied_weights_keys
    return {
        name: tensor.to(_dtype(loaded.headers[name].dtype) if name in loaded.headers else tensor.dtype)
        for name, tensor in loaded.model.state_dict().items()
        if name not in tied
    }


def _dtype(name: str) -> torch.dtype:
    dtype: torch.dtype = DTYPES[name] if name in DTYPES else getattr(torch, name)
    return dtype


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place when everything in it is written and checked."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as name:
        folder = Path(name) / target.name
        folder.mkdir()
        yield folder
        if target.exists():
            target.rmdir()
        folder.rename(target)


def own_padding(loaded: Loaded) -> tuple[Loaded, list[str]]:
    """Give a decoder whose padding is the token it is read at a padding token of its own.

    The library scores the last id that is not padding, and would score the one before the end.

    Returns:
        The checkpoint, changed where it had to be, and what was changed.
    """
    model: Any = loaded.model
    config = model.config
    if not isinstance(loaded.model, RewardReading) or config.model_type not in DECODERS:
        return loaded, []
    with TemporaryDirectory() as folder:
        loaded.tokenizer.save(Path(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder)
    pad = tokenizer.pad_token_id if config.pad_token_id is None else config.pad_token_id
    if pad is not None and pad != last_read_id(model.layout, loaded.tokenizer):
        return loaded, []
    tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    model.resize_token_embeddings(max(config.vocab_size, len(tokenizer)))
    config.pad_token_id = tokenizer.pad_token_id
    config.ranker["text"]["pad_id"] = tokenizer.pad_token_id
    note = (
        f"padding was the end-of-text token, which is scored here and would be skipped by transformers: "
        f"'{PAD_TOKEN}' ({tokenizer.pad_token_id}) is the padding token now"
    )
    return Loaded(model, text_tokenizer(tokenizer), loaded.headers, loaded.notes), [note]
