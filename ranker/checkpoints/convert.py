"""Converts a checkpoint of any readable format to another format with the same scores."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoTokenizer

from ranker import atomic
from ranker.checkpoints import native
from ranker.checkpoints.formats.registry import WRITERS
from ranker.checkpoints.formats.spec import Source
from ranker.checkpoints.native import Loaded
from ranker.errors import CheckpointError, ConfigError, nearest
from ranker.layouts import Layout
from ranker.models.backbones import DECODERS
from ranker.models.pointwise import PAD_TOKEN, RewardReading
from ranker.models.tokenizers import text_tokenizer
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.scoring.protocol import GroupScores

TARGETS: Final = ("native", *WRITERS)
PROBES: Final = (
    Group("Name the capital of France.", ("Paris.", "It is Paris, the city on the Seine.", "Lyon", "")),
    Group("Sort: 3, 1, 2\nAnswer with numbers only.", ("1, 2, 3", "one two three", "3 2 1 " * 40)),
    Group("", ("Ünïcödé 🙂", "plain")),
)
"""Groups that a source and its conversion must score alike."""

DTYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float32}
"""Types by their names in safetensors headers; pickles have torch's names."""


def convert(
    source: Path, target: Path, to: str = "native", *, head_prefix: str | None = None, allow_pickle: bool = False
) -> list[str]:
    """Write ``source`` as a new folder of format ``to``, every tensor in the precision in which it was stored.

    The new folder is loaded again and must score the probes like the source.

    Args:
        source: a checkpoint that ``native.load`` reads; adapters are merged.
        target: a new or empty folder.
        to: one of ``TARGETS``.
        head_prefix: as in ``native.load``.
        allow_pickle: as in ``native.load``; the target is always safetensors.

    Returns:
        Notes on what could not be kept, or is read differently from what a user may expect.

    Raises:
        ConfigError: an unknown format.
        CheckpointError: as ``native.load``; the target exists; the format cannot hold the model.
    """
    if to not in TARGETS:
        raise ConfigError(f"expected --to {', '.join(TARGETS)}, got '{to}'{nearest(to, TARGETS)}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target}: expected a new folder, found files in it; choose another")
    loaded = native.open_checkpoint(source, head_prefix=head_prefix, allow_pickle=allow_pickle)
    notes = list(loaded.notes)
    if to in ("native", "hf"):
        loaded, note = own_padding(loaded)
        notes += note
    with _draft(target) as folder:
        notes += _write(loaded, folder, to)
        expected = TorchScorer(loaded.model, loaded.tokenizer).score(PROBES)
        layout = loaded.model.layout
        del loaded  # a large model is held once
        written = native.open_checkpoint(folder)
        notes += _other_layout(layout, written.model.layout)
        rescored = TorchScorer(written.model, written.tokenizer).score(PROBES)
        uncut = [(e, r) for e, r in zip(expected, rescored, strict=True) if not (_cut(e) or _cut(r))]
        native.compare([e for e, _ in uncut], [r for _, r in uncut], folder)
    return notes


def _other_layout(before: Layout, after: Layout) -> list[str]:
    """A note on settings of the layout that changed, because a format cannot hold them."""
    then, now = before.model_dump(), after.model_dump()
    changed = [f"{name} {then[name]} is {now[name]}" for name in then if then[name] != now[name]]
    return [f"the text layout, for which this format has no place: {', '.join(changed)}"] if changed else []


def _cut(result: GroupScores) -> bool:
    return result.prompt_truncated or bool(result.truncated.any())


def _write(loaded: Loaded, folder: Path, to: str) -> list[str]:
    if to == "native":
        state = stored(loaded)
        loaded.model.save_pretrained(folder, state_dict=state)
        loaded.tokenizer.save(folder)
        return []
    return WRITERS[to](Source(loaded.model, loaded.tokenizer, stored(loaded)), folder)


def stored(loaded: Loaded) -> dict[str, Tensor]:
    """The model's tensors in the precision of its files, without tied tensors."""
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
def _draft(target: Path) -> Iterator[Path]:
    """A draft beside ``target`` that replaces it when the block ends, or is removed when the block raises."""
    draft = atomic.draft_of(target)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        atomic.replace_folder(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def own_padding(loaded: Loaded) -> tuple[Loaded, list[str]]:
    """Add a padding token to a decoder whose padding token is also the token that is scored.

    transformers scores the last id that is not padding, which would be the one before the end.

    Returns:
        The checkpoint, changed if necessary, and notes on the change.
    """
    model: Any = loaded.model
    config = model.config
    if not isinstance(loaded.model, RewardReading) or config.model_type not in DECODERS:
        return loaded, []
    with TemporaryDirectory() as folder:
        loaded.tokenizer.save(Path(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder)
    pad = tokenizer.pad_token_id if config.pad_token_id is None else config.pad_token_id
    suffix = config.ranker["text"]["suffix"]
    if pad is not None and pad not in suffix[-1:]:
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
