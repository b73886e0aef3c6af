"""What a checkpoint is and whether it is whole, from its files alone: no weights are loaded, no code of it is run."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open

from ranker.checkpoints.formats import Files, head_of, recognise
from ranker.errors import CheckpointError

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = ("model.safetensors", "adapter_model.safetensors")
PICKLES: Final = ("pytorch_model.bin", "adapter_model.bin", "value_head.bin")
EMBEDDINGS: Final = (
    "embed_tokens.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "wte.weight",
    "shared.weight",
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and the repair."""

    what: str
    repair: str


def inspect(folder: Path) -> dict[str, Any]:
    """Facts about a checkpoint folder; ``problems`` lists what is wrong with the repair for each.

    Returns:
        ``format``, ``native`` (whether ``ranker.load`` reads it), ``backbone``, ``head`` (name, shape), ``outputs``,
        ``labels``, ``scored`` (which state the head reads), ``dtypes`` (tensors of each), ``parameters``, ``shards``,
        ``normalisation`` (mean and std, None where there is none), ``tokenizer`` and ``problems``.

    Raises:
        CheckpointError: the folder does not exist or holds neither a configuration nor weights.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: expected a folder with a checkpoint, found none; check the path")
    names = frozenset(path.name for path in folder.iterdir())
    problems: list[Problem] = []
    config = _json(folder / "config.json", problems) | _json(folder / "adapter_config.json", [])
    shapes, dtypes, shards = tensors(folder, problems)
    if not config and not shapes:
        raise CheckpointError(f"{folder}: expected config.json and safetensors, found neither; is it a checkpoint?")
    files = Files(config, names, shapes)
    known = recognise(files)
    head = head_of(files)
    head_shape = next((shape for name, shape in shapes.items() if head and name.endswith(f"{head}.weight")), None)
    tokenizer = _tokenizer(folder, files, problems)
    _check_head(files, known.name if known else "unknown", head, head_shape, problems)
    return {
        "path": str(folder),
        "format": known.name if known else "unknown",
        "native": bool(known and known.native),
        "backbone": (config.get("backbone") or {}).get("model_type") or config.get("model_type"),
        "head": None if head is None else {"name": head, "shape": list(head_shape or ())},
        "outputs": head_shape[0] if head_shape else None,
        "labels": list(_labels(config).values()),
        "scored": known.scored(files) if known else "unknown",
        "dtypes": dict(dtypes),
        "parameters": sum(_count(shape) for shape in shapes.values()),
        "shards": shards,
        "normalisation": {k: config[k] for k in ("mean", "std") if k in config} or None,
        "tokenizer": tokenizer,
        "problems": [{"what": p.what, "repair": p.repair} for p in problems],
    }


def tensors(folder: Path, problems: list[Problem]) -> tuple[dict[str, tuple[int, ...]], Counter[str], int]:
    """Shapes of all tensors by name, counts of their dtypes, and the number of weight files; from headers alone.

    What is missing or damaged is added to ``problems``.
    """
    names = {path.name for path in folder.iterdir()}
    index = _json(folder / INDEX, problems).get("weight_map", {})
    wanted = sorted(set(index.values())) or [name for name in SINGLE if name in names]
    extra = [name for name in ("value_head.safetensors",) if name in names]
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: Counter[str] = Counter()
    for name in [*wanted, *extra]:
        if name not in names:
            missing = sorted(tensor for tensor, shard in index.items() if shard == name)
            problems.append(
                Problem(
                    f"shard {name} is missing, and {len(missing)} tensors with it, first '{missing[0]}'", COPY_AGAIN
                )
            )
            continue
        try:
            with safe_open(folder / name, framework="numpy") as file:
                for tensor in file.keys():  # noqa: SIM118
                    part = file.get_slice(tensor)
                    shapes[tensor] = tuple(part.get_shape())
                    dtypes[str(part.get_dtype())] += 1
        except Exception as error:
            problems.append(Problem(f"{name} is damaged or truncated ({error})", COPY_AGAIN))
    problems += _incomplete(names, index, shapes)
    return shapes, dtypes, len(wanted) + len(extra)


def _incomplete(names: set[str], index: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> list[Problem]:
    """Tensors that are indexed and absent, or empty, and weights that are not there at all."""
    problems = []
    for tensor in sorted(set(index) - set(shapes)):
        if index[tensor] in names:
            problems.append(Problem(f"tensor '{tensor}' is in the index but not in {index[tensor]}", COPY_AGAIN))
    for tensor, shape in shapes.items():
        if _count(shape) == 0:
            repair = "save again with the weights gathered (ZeRO-3: stage3_gather_16bit_weights_on_model_save: true)"
            problems.append(Problem(f"tensor '{tensor}' is empty (shape {list(shape)})", repair))
    pickles = sorted(names.intersection(PICKLES))
    if pickles and not shapes:
        repair = "convert it with: transformers' model.save_pretrained(folder, safe_serialization=True)"
        problems.append(Problem(f"weights are a pickle ({pickles[0]}), which can run code when loaded", repair))
    elif not shapes:
        problems.append(Problem("no weights were found", COPY_AGAIN))
    return problems


COPY_AGAIN: Final = "copy the checkpoint again from its source"


def _check_head(
    files: Files, name: str, head: str | None, shape: tuple[int, ...] | None, problems: list[Problem]
) -> None:
    """Compare what the configuration says of the head with what is in the files."""
    if name == "PEFT adapter":
        if not head:
            repair = "look for the head in the run's full checkpoint, or train again with modules_to_save=['score']"
            problems.append(Problem("the adapter holds no head, so the scores would be noise", repair))
        return
    if name in ("T5 (SteamSHP)", "ranker seq2seq", "ranker adapter"):
        return
    if head is None or shape is None:
        similar = [tensor for tensor in files.shapes if "head" in tensor or "score" in tensor]
        repair = f"name the head with value_head_prefix in config.json; candidates: {', '.join(similar[:5]) or 'none'}"
        problems.append(Problem("no head was found, so one would be newly initialised and the scores noise", repair))
        return
    declared = _labels(files.config)
    classifier = files.architecture.endswith(("ForSequenceClassification", "ForTokenClassification"))
    outputs = len(declared) or (2 if name == "OpenRLHF" or classifier else shape[0])
    if outputs != shape[0]:
        problems.append(
            Problem(
                f"config.json says {outputs} outputs{'' if declared else ' (its default)'}, the head '{head}' has "
                f"{shape[0]}: loaded without num_labels={shape[0]} it would be newly initialised",
                'write "id2label": {"0": "reward"} to config.json'
                if shape[0] == 1
                else f"write {shape[0]} labels to id2label in config.json",
            )
        )
    expected = {"score", "classifier", "classifier.out_proj"}
    if name in ("OpenRLHF", "trlx") and head not in expected:
        what = f"the head is named '{head}', which AutoModelForSequenceClassification would newly initialise in silence"
        problems.append(Problem(what, f"rename '{head}.weight' to 'score.weight', with id2label of one label"))


def _tokenizer(folder: Path, files: Files, problems: list[Problem]) -> dict[str, Any]:
    """Padding and end tokens, and whether the vocabulary fits the embeddings."""
    settings = _json(folder / "tokenizer_config.json", [])
    text = _json(folder / "tokenizer.json", problems)
    if not text:
        repair = "copy tokenizer.json beside it, or run AutoTokenizer.from_pretrained(base).save_pretrained(folder)"
        problems.append(Problem("there is no tokenizer.json", repair))
    ids = {token["content"]: token["id"] for token in text.get("added_tokens", [])}
    vocabulary = text.get("model", {}).get("vocab", {})
    ids = (vocabulary if isinstance(vocabulary, dict) else {}) | ids
    pad, eos = (_token(settings.get(name)) for name in ("pad_token", "eos_token"))
    rows = next((s[0] for name, s in files.shapes.items() if name.endswith(EMBEDDINGS) and s), None)
    size = max([*ids.values(), len(vocabulary) - 1], default=-1) + 1
    if rows is not None and size > rows:
        repair = "take the tokenizer that was saved with these weights"
        problems.append(Problem(f"the tokenizer has {size} ids, the embeddings {rows} rows", repair))
    decoder = any(name.endswith(("embed_tokens.weight", "wte.weight")) for name in files.shapes)
    if decoder and pad is not None and pad == eos and "score.weight" in files.shapes:
        repair = "give config.json a pad_token_id of another, unused id; transformers then scores the end of text"
        problems.append(
            Problem(f"padding is the end-of-text token ({pad}): transformers scores the token before it", repair)
        )
    return {"pad": pad, "eos": eos, "pad_is_eos": pad is not None and pad == eos, "ids": size, "embeddings": rows}


def _labels(config: dict[str, Any] | Any) -> dict[str, str]:
    if config.get("id2label"):
        return dict(config["id2label"])
    aspects = config.get("aspects") or []
    return {str(i): name for i, name in enumerate(aspects)}


def _token(value: Any) -> str | None:
    return value.get("content") if isinstance(value, dict) else value


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _json(path: Path, problems: list[Problem]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        problems.append(Problem(f"{path.name} is not valid JSON ({error})", COPY_AGAIN))
        return {}
    return values if isinstance(values, dict) else {}
