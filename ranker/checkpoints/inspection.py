"""What a checkpoint is and whether it is whole, from its files alone: no weights are loaded, no code of it is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

from ranker.checkpoints.detection import EMBEDDINGS, Files, bare, candidates_for_head, head_of
from ranker.checkpoints.formats.registry import recognise
from ranker.checkpoints.report import CheckpointReport, HeadReport, Problem, TokenizerReport
from ranker.checkpoints.safety import COPY_AGAIN, check_folder, foreign, read_json
from ranker.checkpoints.weights import INDEX, PICKLE, PICKLE_INDEX, WEIGHTS, Header, headers, shards_of
from ranker.errors import CheckpointError

ADAPTERS: Final = ("adapter_model.safetensors", "adapter_model.bin")
VALUE_HEADS: Final = ("value_head.safetensors", "value_head.bin")
PICKLES: Final = (PICKLE, PICKLE_INDEX, ADAPTERS[1], VALUE_HEADS[1])
TRUST: Final = "if you trust its source, read it (weights only) with --allow-pickle; ranker convert makes it safe"


def inspect(
    folder: Path,
    *,
    head_prefix: str | None = None,
    allow_pickle: bool = False,
    remote_headers: Mapping[str, Header] | None = None,
) -> CheckpointReport:
    """What a checkpoint folder holds, and what is wrong with it.

    Args:
        folder: the checkpoint.
        head_prefix: the head's name, where it is not one of the known ones; it must be there.
        allow_pickle: also look into pickles, which means to load them (weights only).
        remote_headers: headers of the weights, where they are not in the folder.

    Raises:
        CheckpointError: the folder does not exist, holds neither a configuration nor weights, or not that head.
    """
    if folder.is_file():
        raise CheckpointError(
            f"{folder}: expected a checkpoint folder, got a file; ranker.load(path).info describes a model.onnx"
        )
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: expected a folder with a checkpoint, found none; check the path")
    check_folder(folder)
    with foreign(folder):
        return _inspect(folder, head_prefix=head_prefix, allow_pickle=allow_pickle, remote_headers=remote_headers)


def _inspect(
    folder: Path, *, head_prefix: str | None, allow_pickle: bool, remote_headers: Mapping[str, Header] | None
) -> CheckpointReport:
    names = frozenset(path.name for path in folder.iterdir())
    problems: list[Problem] = []
    config = _json(folder / "config.json", problems) | _json(folder / "adapter_config.json", [])
    tensors, shards = _headers(folder, allow_pickle, problems) if remote_headers is None else (dict(remote_headers), 0)
    if not config and not tensors and names.isdisjoint(PICKLES):
        raise CheckpointError(f"{folder}: expected config.json and safetensors, found neither; is it a checkpoint?")
    shapes = {name: header.shape for name, header in tensors.items()}
    files = Files(config, names, shapes)
    known = recognise(files)
    head = _head(folder, files, head_prefix)
    base = Path(str(config.get("base_model_name_or_path") or folder))  # an adapter may leave its tokenizer there
    texts = base if not (folder / "tokenizer.json").is_file() and base.is_dir() else folder
    tokenizer = _tokenizer(texts, files, problems)
    if not config:
        repair = "copy config.json of the base model beside it"
        problems.append(Problem("there is no config.json, so the backbone is not known", repair, fatal=True))
    problems += known.head_problems(files, head)
    if not known.readable and not any(problem.fatal for problem in problems):
        what = f"format '{known.name}' is not read as a reward model (class {files.architecture or 'not named'})"
        problems.append(Problem(what, known.why_not, fatal=True))
    return CheckpointReport(
        path=str(folder),
        format=known.name,
        native=known.native,
        readable=known.readable,
        backbone=(config.get("backbone") or {}).get("model_type") or config.get("model_type"),
        head=head,
        outputs=None if head is None else head.shape[0],
        labels=files.labels,
        scored=known.scored(files),
        dtypes=dict(Counter(header.dtype for header in tensors.values())),
        parameters=sum(prod(shape) for shape in shapes.values()),
        shards=shards,
        normalisation={name: config[name] for name in ("mean", "std") if name in config} or None,
        tokenizer=tokenizer,
        tensors=shapes,
        problems=tuple(problems),
        other_head=known.other_head,
    )


def _head(folder: Path, files: Files, prefix: str | None) -> HeadReport | None:
    """The head and its shape; None for a checkpoint without a head.

    Raises:
        CheckpointError: it has a name that no tensor has.
    """
    name = head_of(files, prefix=prefix)
    if name is not None:
        shape = next(shape for tensor, shape in files.shapes.items() if bare(tensor) == f"{name}.weight" and shape)
        return HeadReport(name, shape)
    if prefix is not None:
        raise CheckpointError(
            f"{folder}: no tensor '{prefix}.weight'; candidates for the head: "
            f"{', '.join(candidates_for_head(files.shapes)) or 'none'}"
        )
    return None


def _headers(folder: Path, allow_pickle: bool, problems: list[Problem]) -> tuple[dict[str, Header], int]:
    """Headers of all tensors by name, and the number of weight files; what is missing or damaged becomes a problem."""
    names = {path.name for path in folder.iterdir()}
    safe = not names.isdisjoint((WEIGHTS, INDEX, ADAPTERS[0]))
    index = _index(folder / (INDEX if safe or not allow_pickle else PICKLE_INDEX), problems)
    single = (WEIGHTS, ADAPTERS[0]) if safe or not allow_pickle else (PICKLE, ADAPTERS[1])
    wanted = sorted(set(index.values())) or [name for name in single if name in names]
    wanted += [name for name in VALUE_HEADS[: 2 if allow_pickle else 1] if name in names][:1]
    tensors: dict[str, Header] = {}
    of_shard: dict[str, list[str]] = {}
    for tensor, shard in sorted(index.items()):
        of_shard.setdefault(shard, []).append(tensor)
    for name in wanted:
        if name not in names:
            missing = of_shard[name]
            what = f"shard {name} is missing, and {len(missing)} tensors with it, first '{missing[0]}'"
            problems.append(Problem(what, COPY_AGAIN, fatal=True))
            continue
        try:
            tensors |= headers(folder / name)
        except CheckpointError as error:
            what = str(error).removeprefix(f"{folder / name}: ").removesuffix(f"; {COPY_AGAIN}")
            problems.append(Problem(f"{name} is {what}", COPY_AGAIN, fatal=True))
    if VALUE_HEADS[1] in names and VALUE_HEADS[0] not in names and not allow_pickle:
        problems.append(
            Problem(f"the head is a pickle ({VALUE_HEADS[1]}), which can run code when loaded", TRUST, True)
        )
    problems += _incomplete(names, index, {name: header.shape for name, header in tensors.items()})
    return tensors, len(wanted)


def _index(path: Path, problems: list[Problem]) -> dict[str, str]:
    return _read(path, shards_of, problems)


def _problem(path: Path, error: CheckpointError) -> Problem:
    """An error of a file as a problem of the folder."""
    what, _, repair = str(error).removeprefix(f"{path}: ").rpartition("; ")
    return Problem(f"{path.name} is {what}" if what.startswith("not ") else f"{path.name}: {what}", repair, fatal=True)


def _incomplete(names: set[str], index: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> list[Problem]:
    """Tensors that are indexed and absent, or empty, and weights that are not there at all."""
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


def _tokenizer(folder: Path, files: Files, problems: list[Problem]) -> TokenizerReport:
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
    ends = files.config.get("eos_token_id")
    ends = {*(ends if isinstance(ends, list) else [ends]), ids.get(eos)} - {None}
    number = files.config.get("pad_token_id")
    if files.is_decoder and (number in ends if number is not None else pad is not None and pad == eos):
        what = f"padding is the end-of-text token ({pad}): transformers scores the token before it"
        repair = (
            "none if transformers or TRL trained it so; a head that was trained on the end itself (OpenRLHF) needs a "
            "padding token of its own in pad_token_id and in the tokenizer, as ranker convert --to hf gives it"
        )
        if "score.weight" in files.shapes:
            problems.append(Problem(what, repair, serious=False))
    return TokenizerReport(pad, eos, pad_is_eos=pad is not None and pad == eos, ids=size, embeddings=rows)


def _token(value: Any) -> str | None:
    return value.get("content") if isinstance(value, dict) else value


def _json(path: Path, problems: list[Problem]) -> dict[str, Any]:
    return _read(path, read_json, problems)


def _read(path: Path, read: Callable[[Path], dict[str, Any]], problems: list[Problem]) -> dict[str, Any]:
    """What a file holds; nothing without the file, and where it is damaged, which becomes a problem."""
    if not path.is_file():
        return {}
    try:
        return read(path)
    except CheckpointError as error:
        problems.append(_problem(path, error))
        return {}
