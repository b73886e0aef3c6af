"""What a sentence-transformers folder says of itself: its modules, its text, its prompts. Read without the library.

Files: ``modules.json``, ``sentence_bert_config.json``, ``config_sentence_transformers.json``, and a ``config.json`` in
the folder of each module. Source: sentence-transformers 6.2, ``base/model.py`` and ``base/modules/transformer.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ranker.errors import CheckpointError

MODULES: Final = "modules.json"
SETTINGS: Final = "config_sentence_transformers.json"
"""Where sentence-transformers keeps prompts and the kind of the model since version 5.4."""

TRANSFORMER: Final = "sentence_bert_config.json"
"""The settings of the first module, since version 5.4 its task and how it takes messages."""

CROSS_ENCODER: Final = "CrossEncoder"
TASKS: Final = ("feature-extraction", "sequence-classification", "text-generation")

IGNORED: Final = ("restore_suffix", "logits_to_keep", "padding", "padding_side")
"""Settings of processing that change no score of a row that fits."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module after the first: its class, its folder and its settings."""

    kind: str
    path: str
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SentenceTransformers:
    """A folder's own description.

    Attributes:
        task: of ``TASKS``: what the first module is.
        modules: those that follow it.
        instruction: what is put before every query; empty if nothing is.
        renders: whether a chat template renders the pair.
        ignores_template: whether the tokenizer has a chat template, which the version that wrote the folder ignores.
        content_parts: whether a message's content is a list of parts.
        variables: settings of the chat template.
        generation_prompt: whether a row ends with the beginning of an answer.
        max_length: tokens of a row; None if the tokenizer says.
    """

    task: str
    modules: tuple[Module, ...]
    instruction: str
    renders: bool
    ignores_template: bool
    content_parts: bool
    variables: dict[str, Any]
    generation_prompt: bool
    max_length: int | None

    @classmethod
    def read(cls, folder: Path) -> SentenceTransformers:
        """The description of a folder; an old folder, which has none of these files, is a classifier.

        Raises:
            CheckpointError: a module, a task or a setting that is not known here, by name.
        """
        settings, first = read_json(folder / SETTINGS), read_json(folder / TRANSFORMER)
        task = first.get("transformer_task", "sequence-classification")
        if task not in TASKS:
            raise CheckpointError(
                f"{folder / TRANSFORMER}: transformer_task '{task}' is not read; {', '.join(TASKS)} are"
            )
        modalities = first.get("modality_config") or {}
        template = read_json(folder / "tokenizer_config.json").get("chat_template")
        message: dict[str, Any] | None = modalities.get("message")
        has_template = template is not None or (folder / "chat_template.jinja").is_file()
        variables, generation_prompt = _chat_settings(folder / TRANSFORMER, first.get("processing_kwargs") or {})
        return cls(
            task=task,
            modules=_modules(folder),
            instruction=instruction_of(settings),
            # Versions before 5.4, which write no settings, encode a pair without the template.
            renders=has_template and bool(settings) and (message is not None or not modalities),
            ignores_template=has_template and not settings,
            content_parts=(message or {}).get("format") == "structured",
            variables=variables,
            generation_prompt=generation_prompt,
            max_length=first.get("max_seq_length"),
        )


def is_cross_encoder(folder: Path) -> bool:
    """Whether a folder says that it is a ``CrossEncoder``; one for embeddings has the same files."""
    return read_json(folder / SETTINGS).get("model_type") == CROSS_ENCODER


def instruction_of(settings: dict[str, Any]) -> str:
    """The prompt that is put before every query by default."""
    name = settings.get("default_prompt_name")
    return str((settings.get("prompts") or {}).get(name) or "") if name is not None else ""


def _modules(folder: Path) -> tuple[Module, ...]:
    path = folder / MODULES
    listed = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    following = []
    for entry in listed[1:]:
        kind, place = str(entry["type"]).rpartition(".")[2], str(entry["path"])
        if not str(entry["type"]).startswith("sentence_transformers."):
            raise CheckpointError(f"{path}: module '{entry['type']}' is code of the checkpoint, which is not run here")
        if not place or "/" in place or place.startswith("."):
            raise CheckpointError(f"{path}: expected a folder beside it for module '{kind}', got '{place}'")
        following.append(Module(kind, place, read_json(folder / place / "config.json")))
    return tuple(following)


def _chat_settings(path: Path, processing: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Variables of the chat template, and whether a generation prompt follows.

    Raises:
        CheckpointError: another setting of processing, which would change the ids.
    """
    chat = dict(processing.get("chat_template") or {})
    generation_prompt = bool(chat.pop("add_generation_prompt", False))
    others = {
        f"{bucket}.{name}"
        for bucket, values in processing.items()
        if bucket not in ("chat_template", "image", "audio", "video")
        for name in values or {}
        if name not in IGNORED
    }
    if others:
        raise CheckpointError(
            f"{path}: processing_kwargs {', '.join(sorted(others))} change how texts are tokenized, and are not read"
        )
    return {name: value for name, value in chat.items() if name not in IGNORED}, generation_prompt


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file.

    Raises:
        CheckpointError: the file is no JSON.
    """
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); copy the checkpoint again from its source") from error
    return values if isinstance(values, dict) else {}
