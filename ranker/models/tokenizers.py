"""From the library's tokenizers to ours, with the files that other libraries read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ranker.errors import CheckpointError
from ranker.text.tokenizer import TextTokenizer


def text_tokenizer(tokenizer: PreTrainedTokenizerBase, structure: Iterable[int] = ()) -> TextTokenizer:
    """The same tokenizer without the library, and the files it is saved as.

    Raises:
        CheckpointError: the tokenizer has no fast form.
    """
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: expected a tokenizer with a tokenizer.json; install its fast form"
        )
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return TextTokenizer.from_folder(Path(folder), structure)
