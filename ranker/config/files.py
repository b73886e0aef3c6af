"""Recipes and YAML files as a configuration, and errors that name the key and the repair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ranker.config.models import MODEL_TYPES
from ranker.config.run import RunConfig
from ranker.errors import ConfigError, nearest

RECIPES: Final = Path(__file__).parents[1] / "training" / "recipes"
CONFIG_BYTES: Final = 1_000_000
"""Bytes of YAML that are read; aliases could expand a small file without bound."""


RECIPE: Final = "recipe"
COMPLETE: Final = "none"
"""What a file says of its recipe that holds all settings itself."""

SYNONYMS: Final = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "max_epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "batch_size": "max_tokens_per_forward",
    "micro_train_batch_size": "max_tokens_per_forward",
    "per_device_train_batch_size": "max_tokens_per_forward",
    "train_batch_size": "tokens_per_step",
    "gradient_accumulation_steps": "tokens_per_step",
    "scheduler": "lr_scheduler_type",
    "lr_scheduler": "lr_scheduler_type",
    "lr_warmup_ratio": "warmup_steps",
    "gradient_checkpointing": "activation_checkpointing",
    "patience": "early_stopping_patience",
    "evaluations": "eval_steps",
    "compile": "torch_compile",
    "bf16": "precision",
    "fp16": "precision",
    "loss_type": "loss",
    "tensorboard": "report_to",
    "logger": "report_to",
    "eval": "validation",
    "valid": "validation",
    "eval_dataset": "validation",
    "dataset": "train",
    "train_dataset": "train",
    "leaks": "train_eval_overlap",
    "limit": "max_train_samples",
    "max_samples": "max_train_samples",
    "dedup": "deduplicate",
    "backbone": "name_or_path",
    "base_model": "name_or_path",
    "pretrain": "name_or_path",
    "model_name_or_path": "name_or_path",
    "max_len": "max_length",
    "max_seq_length": "max_length",
    "rank": "r",
    "lora_r": "r",
    "lora_rank": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "targets": "target_modules",
    "precision": "precisions",
    "label_smoothing": "label_smoothing_factor",
    "output": "output_dir",
    "save_path": "output_dir",
}
"""Names of settings in other libraries and in earlier versions, and what they are called here."""

EXPECTED: Final = {
    "int_": "an integer",
    "float_": "a number",
    "finite_number": "a finite number",
    "bool_": "true or false",
    "string_": "text",
    "tuple_": "a text or a list of texts",
    "list_": "a list",
    "dict_": "a mapping of names to values",
    "model_": "a section of settings, a mapping of names to values",
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
}
"""What pydantic's kinds of errors expect, by the beginning of the kind."""


def recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def load_config(recipe: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> RunConfig:
    """A recipe by name or a YAML file by path, with changes.

    A file names the recipe that it changes, ``recipe: pairrm``, and holds only its changes; ``recipe: none`` says that
    it is complete, as ``dump_config`` and ``--print-config`` write it.

    Args:
        recipe: its name or path.
        overrides: ``section.key=value`` texts whose values are YAML, or a mapping from ``section.key`` to a value.

    Raises:
        ConfigError: naming every unknown key with the nearest known one, and every value that does not fit.

    Example:
        >>> ranker.load_config("pairrm", ["training.loss=list_mle"]).training.loss.type
        'list_mle'
        >>> ranker.load_config("encoder-regress", {"training.loss": {"type": "huber", "delta": 2}}).training.loss.delta
        2.0
    """
    path = recipes().get(str(recipe), Path(recipe))
    if not path.is_file():
        raise ConfigError(f"expected a recipe or a YAML file, got '{recipe}'{nearest(str(recipe), recipes())}")
    if path.stat().st_size > CONFIG_BYTES:
        raise ConfigError(f"{path}: expected at most {CONFIG_BYTES} bytes of YAML")
    values = _mapping(path) if path in recipes().values() else _on_its_recipe(path)
    changes = overrides.items() if isinstance(overrides, Mapping) else map(_parsed, overrides)
    for key, value in changes:
        _apply(values, key, deepcopy(value))  # a later change may set a key inside it
    return parse_config(values)


def parse_config(values: Mapping[str, Any]) -> RunConfig:
    """A configuration from nested mappings, as YAML gives them.

    Raises:
        ConfigError: as in ``load_config``.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(detail) for detail in error.errors())) from error


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML that ``load_config`` reads back."""
    values = {RECIPE: COMPLETE, **config.model_dump(mode="json")}
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def explained_config(config: RunConfig) -> str:
    """``dump_config`` with what every setting means as a comment before it."""
    return "\n".join([f"{RECIPE}: {COMPLETE}", *_explained(config, "")]) + "\n"


def _explained(section: BaseModel, indent: str) -> list[str]:
    lines: list[str] = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if field.description:
            lines.append(f"{indent}# {field.description}")
        if isinstance(value, BaseModel) and type(value).model_fields:
            lines += [f"{indent}{name}:", *_explained(value, f"{indent}  ")]
        else:
            plain = section.model_dump(mode="json", include={name})
            text = str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
            lines += [f"{indent}{line}" for line in text.splitlines()]
    return lines


def _on_its_recipe(path: Path) -> dict[str, Any]:
    """The values of a user's file over those of the recipe that it names.

    Raises:
        ConfigError: it names none, or an unknown one.
    """
    values = _mapping(path)
    base = values.pop(RECIPE, None)
    if base == COMPLETE:
        return values
    if base not in recipes():
        problem = "no recipe is named" if base is None else f"unknown recipe '{base}'{nearest(str(base), recipes())}"
        raise ConfigError(
            f"{path}: {problem}; begin the file with 'recipe: NAME', the recipe whose settings it changes "
            f"({', '.join(recipes())}), or with 'recipe: {COMPLETE}' where it is complete"
        )
    merged = _mapping(recipes()[base])
    for section, settings in values.items():
        if isinstance(settings, dict) and isinstance(merged.get(section), dict):
            for name, value in settings.items():
                _apply(merged, f"{section}.{name}", value)
        else:
            merged[section] = settings
    return merged


class _Loader(yaml.SafeLoader):
    """YAML without aliases, by which a small file could hold more values than memory does."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """See ``yaml.composer.Composer``."""
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()  # type: ignore[no-untyped-call]
            reason = f"aliases are not read; write the value of *{alias.anchor} out"
            raise yaml.composer.ComposerError(None, None, reason, alias.start_mark)
        return super().compose_node(parent, index)


def _yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: the text is not valid YAML, with the reason in one line.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError("the values are nested too deep") from None
    except (yaml.YAMLError, ValueError) as error:  # a date that no calendar has is a ValueError
        raise ValueError(" ".join(str(error).split())) from error


def _mapping(path: Path) -> dict[str, Any]:
    try:
        values = _yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError too
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections model, data, training; got {type(values).__name__}")
    return values


def _parsed(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"expected key=value, got '{override}'; for example training.learning_rate=1e-5")
    try:
        return key, _yaml(text)
    except ValueError as error:
        raise ConfigError(f"'{key}': expected a YAML value, got '{text:.80}' ({str(error):.200})") from error


def _apply(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a key; ``training.loss.delta`` of a loss that is only named adds to the name."""
    *sections, last = key.split(".")
    target = values
    for section in sections:
        inner = target.setdefault(section, {})
        if isinstance(inner, str) and section == "loss":
            inner = target[section] = {"type": inner}
        elif inner is None or (section == "loss" and not inner):
            inner = target[section] = {"type": "bradley_terry"} if section == "loss" else {}
        if not isinstance(inner, dict):
            raise ConfigError(f"'{key}': '{section}' is a value, not a section")
        target = inner
    target[last] = value


def _explain(detail: Any) -> str:
    """One validation error as a line: the key as it is written in YAML, what was expected, what was there."""
    names: list[str] = []
    section: Any = RunConfig
    parent: type[BaseModel] | None = RunConfig
    tag = ""
    for part in map(str, detail["loc"]):
        variants = _variants(section)
        if part in variants:
            tag = part
            section = variants[part]
            continue
        names.append(part)
        parent = _class_of(section)
        fields = parent.model_fields if parent is not None else {}
        section = fields[part].annotation if part in fields else None
    name = ".".join(names)
    if detail["type"] == "value_error":
        return f"{name + ': ' if name else ''}{detail['msg'].removeprefix('Value error, ')}"
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tags = list(_variants(section))
        value = detail.get("ctx", {}).get("tag")
        got = "no value" if value is None else f"unknown value '{value}'"
        return f"'{name}.type': {got}{nearest(str(value), tags)}"
    if detail["type"] == "missing":
        return f"'{name}': expected a value, it has no default"
    if detail["type"] != "extra_forbidden":
        return f"'{name}': expected {_expected(detail)}; got {_value(detail['input'])}"
    homes = [known for known, cls in MODEL_TYPES.items() if names[-1] in cls.model_fields] if tag in MODEL_TYPES else []
    if homes:
        return f"'{name}': model.type '{tag}' has no such setting; it belongs to {', '.join(homes)}"
    synonym = SYNONYMS.get(names[-1])
    if synonym is not None and parent is not None and synonym in parent.model_fields:
        unit = ", in tokens" if "tokens" in synonym else ""
        return f"unknown key '{name}'; it is called '{'.'.join([*names[:-1], synonym])}' here{unit}"
    places = [f"{key}.{names[-1]}" for key, fields in _sections().items() if names[-1] in fields]
    hint = f"; did you mean '{places[0]}'?" if places else ""
    return f"unknown key '{name}'{hint or nearest(names[-1], parent.model_fields if parent is not None else {})}"


def _expected(detail: Any) -> str:
    """What a value should have been, in words."""
    kind, context = detail["type"], detail.get("ctx", {})
    for begin, words in EXPECTED.items():
        if kind.startswith(begin):
            return words.format(**context)
    return str(detail["msg"].removeprefix("Input should be "))


def _value(value: Any) -> str:
    """A value as YAML has it, not longer than a line."""
    return f"{str(value).lower() if isinstance(value, bool) else repr(value):.80}"


def _sections() -> dict[str, set[str]]:
    """The keys of every section of a run."""
    classes = {key: _class_of(field.annotation) for key, field in RunConfig.model_fields.items()}
    return {key: set(cls.model_fields) for key, cls in classes.items() if cls is not None}


def _class_of(annotation: Any) -> type[BaseModel] | None:
    """The section of an annotation that may be optional."""
    classes = [item for item in (annotation, *get_args(annotation)) if isinstance(item, type)]
    return next((item for item in classes if issubclass(item, BaseModel)), None)


def _variants(annotation: Any) -> dict[str, type[BaseModel]]:
    """The members of a tagged union by their tags; several tags may mean one class."""
    classes: list[Any] = [annotation]
    for _ in range(3):  # Annotated and optional types wrap each other
        classes = [inner for item in classes for inner in (get_args(item) or (item,))]
    known = [item for item in classes if isinstance(item, type) and issubclass(item, BaseModel)]
    tags: dict[str, type[BaseModel]] = {}
    for cls in known:
        for tag in get_args(cls.model_fields["type"].annotation) if "type" in cls.model_fields else ():
            tags[tag] = cls
    return tags
