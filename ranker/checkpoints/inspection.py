"""The format and completeness of a checkpoint, from its files only: no weights are loaded, no code is run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

from ranker.checkpoints.detection import EMBEDDINGS, Files, bare, candidates_for_head, expected_head, head_of, recognise
from ranker.checkpoints.weights import COPY_AGAIN, INDEX, PICKLE, PICKLE_INDEX, WEIGHTS, Header, headers
from ranker.errors import CheckpointError

ADAPTERS: Final = ("adapter_model.safetensors", "adapter_model.bin")
VALUE_HEADS: Final = ("value_head.safetensors", "value_head.bin")
PICKLES: Final = (PICKLE, PICKLE_INDEX, ADAPTERS[1], VALUE_HEADS[1])
TRUST: Final = "if you trust its source, read it (weights only) with --allow-pickle; ranker convert makes it safe"


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a checkpoint, and its repair.

    ``fatal``: the checkpoint cannot score. Not ``serious``: the checkpoint may be as its producer intended.
    """

    what: str
    repair: str
    fatal: bool = False
    serious: bool = True


def inspect(
    folder: Path,
    *,
    head_prefix: str | None = None,
    allow_pickle: bool = False,
    remote_headers: Mapping[str, Header] | None = None,
) -> dict[str, Any]:
    """Facts about a checkpoint folder; ``problems`` lists its problems with a repair for each.

    Args:
        folder: the checkpoint.
        head_prefix: the head's name, if it is not one of the known names; the head must exist.
        allow_pickle: also inspect pickles, which loads them (weights only).
        remote_headers: headers of the weights, if the folder does not hold the weights.

    Returns:
        ``format``, ``native`` (whether it is this package's), ``readable`` (whether ``ranker.load`` reads it),
        ``backbone``, ``head`` (name, shape), ``outputs``, ``labels``, ``scored`` (which state the head reads),
        ``dtypes`` (tensors of each), ``parameters``, ``shards``, ``normalisation`` (mean and std, None if the
        checkpoint has none), ``tokenizer``, ``tensors`` (shapes by name) and ``problems``.

    Raises:
        CheckpointError: the folder does not exist, holds neither a configuration nor weights, or lacks that head.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: expected a folder with a checkpoint, found none; check the path")
    names = frozenset(path.name for path in folder.iterdir())
    problems: list[Problem] = []
    config = _json(folder / "config.json", problems) | _json(folder / "adapter_config.json", [])
    if remote_headers is None:
        tensor_headers, shards = _headers(folder, allow_pickle, problems)
    else:
        tensor_headers, shards = dict(remote_headers), 0
    if not config and not tensor_headers and names.isdisjoint(PICKLES):
        raise CheckpointError(f"{folder}: expected config.json and safetensors, found neither; is it a checkpoint?")
    shapes = {name: header.shape for name, header in tensor_headers.items()}
    files = Files(config, names, shapes)
    known = recognise(files)
    head = head_of(files, prefix=head_prefix)
    if head is None and head_prefix is not None:
        raise CheckpointError(
            f"{folder}: no tensor '{head_prefix}.weight'; candidates for the head: "
            f"{', '.join(candidates_for_head(shapes)) or 'none'}"
        )
    head_shape = next((shape for name, shape in shapes.items() if head and bare(name) == f"{head}.weight"), None)
    base = Path(str(config.get("base_model_name_or_path") or folder))  # an adapter's tokenizer may be there
    texts = base if not (folder / "tokenizer.json").is_file() and base.is_dir() else folder
    tokenizer = _tokenizer(texts, files, problems)
    if not config:
        repair = "copy config.json of the base model beside it"
        problems.append(Problem("there is no config.json, so the backbone is not known", repair, fatal=True))
    _check_head(files, known.name if known else "unknown", head, head_shape, problems)
    return {
        "path": str(folder),
        "format": known.name if known else "unknown",
        "native": bool(known and known.native),
        "readable": bool(known and (known.native or known.readable)),
        "backbone": (config.get("backbone") or {}).get("model_type") or config.get("model_type"),
        "head": None if head is None else {"name": head, "shape": list(head_shape or ())},
        "outputs": head_shape[0] if head_shape else None,
        "labels": list(_labels(config).values()),
        "scored": known.scored(files) if known else "unknown",
        "dtypes": dict(Counter(header.dtype for header in tensor_headers.values())),
        "parameters": sum(prod(shape) for shape in shapes.values()),
        "shards": shards,
        "normalisation": {k: config[k] for k in ("mean", "std") if k in config} or None,
        "tokenizer": tokenizer,
        "tensors": shapes,
        "problems": [asdict(problem) for problem in problems],
    }


def _headers(folder: Path, allow_pickle: bool, problems: list[Problem]) -> tuple[dict[str, Header], int]:
    """Headers of all tensors by name, and the number of weight files; missing and damaged files become problems."""
    names = {path.name for path in folder.iterdir()}
    safe = not names.isdisjoint((WEIGHTS, INDEX, ADAPTERS[0]))
    index = _json(folder / (INDEX if safe or not allow_pickle else PICKLE_INDEX), problems).get("weight_map", {})
    single = (WEIGHTS, ADAPTERS[0]) if safe or not allow_pickle else (PICKLE, ADAPTERS[1])
    wanted = sorted(set(index.values())) or [name for name in single if name in names]
    wanted += [name for name in VALUE_HEADS[: 2 if allow_pickle else 1] if name in names][:1]
    tensor_headers: dict[str, Header] = {}
    for name in wanted:
        if name not in names:
            missing = sorted(tensor for tensor, shard in index.items() if shard == name)
            what = f"shard {name} is missing, and {len(missing)} tensors with it, first '{missing[0]}'"
            problems.append(Problem(what, COPY_AGAIN, fatal=True))
            continue
        try:
            tensor_headers |= headers(folder / name)
        except CheckpointError as error:
            what = str(error).removeprefix(f"{folder / name}: ").removesuffix(f"; {COPY_AGAIN}")
            problems.append(Problem(f"{name} is {what}", COPY_AGAIN, fatal=True))
    if VALUE_HEADS[1] in names and VALUE_HEADS[0] not in names and not allow_pickle:
        problems.append(
            Problem(f"the head is a pickle ({VALUE_HEADS[1]}), which can run code when loaded", TRUST, True)
        )
    problems += _incomplete(names, index, {name: header.shape for name, header in tensor_headers.items()})
    return tensor_headers, len(wanted)


def _incomplete(names: set[str], index: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> list[Problem]:
    """Problems of tensors that are missing or empty, and of missing weights."""
    problems = []
    for tensor in sorted(set(index) - set(shapes)):
        if index[tensor] in names:
            what = f"tensor '{tensor}' is in the index but not in {index[tensor]}"
            problems.append(Problem(what, COPY_AGAIN, fatal=True))
    for tensor, shape in shapes.items():
        if prod(shape) == 0:
            repair = "save again with the weights gathered (ZeRO-3: stage3_gather_16bit_weights_on_model_save: true)"
            problems.append(Problem(f"tensor '{tensor}' is empty (shape {list(shape)})", repair, fatal=True))
    pickles = sorted(names.intersection(PICKLES))
    if pickles and not shapes:
        what = f"weights are a pickle ({pickles[0]}), which can run code when loaded"
        problems.append(Problem(what, TRUST, fatal=True))
    elif not shapes:
        problems.append(Problem("no weights were found", COPY_AGAIN, fatal=True))
    return problems


def _check_head(
    files: Files, name: str, head: str | None, shape: tuple[int, ...] | None, problems: list[Problem]
) -> None:
    """Compare the configuration's head with the tensors in the files."""
    if name == "PEFT adapter":
        base = Path(str(files.config.get("base_model_name_or_path") or ""))
        in_base = (base / "config.json").is_file() and inspect(base)["head"] is not None
        if not head and not in_base:
            repair = "look for the head in the run's full checkpoint, or train again with modules_to_save=['score']"
            problems.append(Problem("the adapter holds no head, so the scores would be noise", repair, fatal=True))
        return
    if name in ("T5 (SteamSHP)", "ranker seq2seq", "ranker adapter"):
        return
    if not files.shapes:
        return
    if head is None or shape is None:
        similar = ", ".join(candidates_for_head(files.shapes))
        repair = (
            f"name the head with --head-prefix, or value_head_prefix in config.json; candidates: {similar}"
            if similar
            else "take the checkpoint that still holds it, for no other tensor can be one; --head-prefix names another"
        )
        what = (
            f"the head, '{expected_head(files, name)}', is missing: no head was found, so one would be newly "
            "initialised and the scores noise"
        )
        problems.append(Problem(what, repair, fatal=True))
        return
    declared = _labels(files.config) or range(int(files.config.get("num_labels", 0)))
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
        problems.append(Problem("there is no tokenizer.json", repair, fatal=True))
    ids = {token["content"]: token["id"] for token in text.get("added_tokens", [])}
    vocabulary = text.get("model", {}).get("vocab", {})
    ids = (vocabulary if isinstance(vocabulary, dict) else {}) | ids
    pad, eos = (_token(settings.get(name)) for name in ("pad_token", "eos_token"))
    rows = next((s[0] for name, s in files.shapes.items() if name.endswith(EMBEDDINGS) and s), None)
    size = max([*ids.values(), len(vocabulary) - 1], default=-1) + 1
    if rows is not None and size > rows:
        repair = "take the tokenizer that was saved with these weights"
        problems.append(Problem(f"the tokenizer has {size} ids, the embeddings {rows} rows", repair, fatal=True))
    decoder = any(name.endswith(("embed_tokens.weight", "wte.weight")) for name in files.shapes)
    ends = files.config.get("eos_token_id")
    ends = {*(ends if isinstance(ends, list) else [ends]), ids.get(eos)} - {None}
    number = files.config.get("pad_token_id")
    if decoder and (number in ends if number is not None else pad is not None and pad == eos):
        what = f"padding is the end-of-text token ({pad}): transformers scores the token before it"
        repair = (
            "none if transformers or TRL trained it so; a head that was trained on the end itself (OpenRLHF) needs a "
            "padding token of its own in pad_token_id and in the tokenizer, as ranker convert --to hf gives it"
        )
        if "score.weight" in files.shapes:
            problems.append(Problem(what, repair, serious=False))
    return {"pad": pad, "eos": eos, "pad_is_eos": pad is not None and pad == eos, "ids": size, "embeddings": rows}


def _labels(config: dict[str, Any] | Any) -> dict[str, str]:
    if config.get("id2label"):
        return dict(config["id2label"])
    aspects = config.get("aspects") or []
    return {str(i): name for i, name in enumerate(aspects)}


def _token(value: Any) -> str | None:
    return value.get("content") if isinstance(value, dict) else value


def _json(path: Path, problems: list[Problem]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        problems.append(Problem(f"{path.name} is not valid JSON ({error})", COPY_AGAIN, fatal=True))
        return {}
    return values if isinstance(values, dict) else {}
