"""sentence-transformers' modular rerankers: a pooled backbone under dense layers, or a language model's words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat, Description
from ranker.checkpoints.formats.modules_file import MODULES, SETTINGS, Module, SentenceTransformers, is_cross_encoder
from ranker.checkpoints.report import CheckpointReport, HeadReport, Problem
from ranker.errors import CheckpointError

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec

WEIGHTS: Final = "model.safetensors"
KNOWN: Final = ("Pooling", "Dense", "LayerNorm", "Dropout")


class _Modular(CheckpointFormat):
    """A folder with ``modules.json``. Its head lies in other files, so loading checks it, not ``inspect``."""

    def head_problems(self, files: Files, head: HeadReport | None) -> list[Problem]:
        """None: the head is in the folders of the modules."""
        return []


class ModularCrossEncoder(_Modular):
    """Transformer, Pooling, then Dense and LayerNorm. Scores are raw logits, whatever activation it names."""

    name = "sentence-transformers modules"
    other_head = "Dense and LayerNorm in the folders of modules.json"
    about = Description(
        producers="sentence-transformers from 5.4 (Ettin rerankers)",
        recognised_by="`modules.json` and a backbone without a head",
        head="`Dense` and `LayerNorm` in folders of their own",
        scored="as its `Pooling` says",
    )

    def matches(self, files: Files) -> bool:
        """By its list of modules, over a backbone that has no head."""
        headless = not files.architecture.endswith(("ForSequenceClassification", "ForCausalLM"))
        return files.has_file(MODULES) and headless

    def load(self, folder: Path, values: dict[str, Any], report: CheckpointReport) -> LoadSpec:
        """A stack of modules on the pooled states.

        Raises:
            CheckpointError: an embedding model, or a module that is not read.
        """
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        from ranker.checkpoints.formats.reranker_text import pair_layout
        from ranker.checkpoints.formats.spec import LoadSpec, outputs
        from ranker.checkpoints.weights import KeyMap
        from ranker.models.backbones import DECODERS, FAMILIES
        from ranker.models.modules import ModulesConfig, ModulesModel

        _check_kind(folder)
        described = SentenceTransformers.read(folder)
        if described.task != "feature-extraction" or values["model_type"] not in (*FAMILIES, *DECODERS):
            known = ", ".join((*FAMILIES, *DECODERS))
            raise CheckpointError(
                f"{folder}: expected a backbone ({known}) that gives token states, got '{values['model_type']}' for "
                f"'{described.task}'"
            )
        pooling, modules, places = _stack(folder, described)
        inner = CONFIG_MAPPING[values["model_type"]].from_dict(values)
        output, labels = outputs(modules[-1]["outputs"], report.labels)
        layout = pair_layout(folder, inner, described, output)
        config = ModulesConfig(
            backbone=inner.to_dict(),
            text=layout.model_dump(mode="json"),
            pooling=pooling,
            modules=modules,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
        )
        folders = {"": "model.", **{place: f"head.{number}." for number, place in places}}
        extra = tuple(f"{place}/{WEIGHTS}" for _, place in places)
        return LoadSpec(config, ModulesModel, KeyMap({}, dropped=("pooler.",), folders=folders), extra)


class LogitScore(_Modular):
    """A language model that answers in a word. Scores are raw logits, whatever activation it names."""

    name = "sentence-transformers LogitScore"
    other_head = "the words of LogitScore"
    about = Description(
        producers="sentence-transformers from 5.4 (Qwen3-Reranker)",
        recognised_by="`modules.json` and a language model",
        head="the words of its `LogitScore`",
        scored="last token",
    )
    scored_state = "last_token"

    def matches(self, files: Files) -> bool:
        """By its list of modules, over a language model."""
        return files.has_file(MODULES) and files.architecture.endswith("ForCausalLM")

    def load(self, folder: Path, values: dict[str, Any], report: CheckpointReport) -> LoadSpec:
        """The difference of two words.

        Raises:
            CheckpointError: another module, or a chat template that reads no pair.
        """
        from ranker.checkpoints.formats import words
        from ranker.checkpoints.formats.reranker_text import pair_layout

        _check_kind(folder)
        described = SentenceTransformers.read(folder)
        kinds = [module.kind for module in described.modules]
        if described.task != "text-generation" or kinds != ["LogitScore"]:
            raise CheckpointError(
                f"{folder / MODULES}: expected a language model and LogitScore, got '{described.task}' and "
                f"{', '.join(kinds) or 'nothing after it'}"
            )
        settings = described.modules[0].settings
        if settings.get("module_input_name", "causal_logits") != "causal_logits":
            raise CheckpointError(f"{folder}: LogitScore reads '{settings['module_input_name']}', not the word logits")
        answers = [settings.get("true_token_id"), settings.get("false_token_id")]
        numbers = [int(answer) for answer in answers if answer is not None]
        if answers[0] is None:
            raise CheckpointError(f"{folder}: LogitScore names no true_token_id, whose logit is the score")
        config = words.configuration(folder, values)
        return words.answering(config, report, numbers, pair_layout(folder, config, described))


def _check_kind(folder: Path) -> None:
    if not is_cross_encoder(folder):
        raise CheckpointError(
            f"{folder}: modules.json is that of an embedding model ({SETTINGS} does not say CrossEncoder), which gives "
            "a vector and no score"
        )


def _stack(
    folder: Path, described: SentenceTransformers
) -> tuple[list[str], list[dict[str, Any]], list[tuple[int, str]]]:
    """Poolings, the settings of our modules, and (number, folder) of those that have weights.

    Raises:
        CheckpointError: a module or one of its settings that is not read, by name.
    """
    pooling: list[str] = []
    modules: list[dict[str, Any]] = []
    places: list[tuple[int, str]] = []
    for module in described.modules:
        if module.kind not in KNOWN:
            raise CheckpointError(f"{folder / MODULES}: module '{module.kind}' is not read; {', '.join(KNOWN)} are")
        if module.kind == "Dropout":
            continue
        if module.kind == "Pooling":
            pooling += _pooling(folder, module, described, already=bool(pooling or modules))
            continue
        if not pooling:
            raise CheckpointError(f"{folder / MODULES}: '{module.kind}' comes before a Pooling, which is not read")
        places.append((len(modules), module.path))
        modules.append(_dense(module) if module.kind == "Dense" else _norm(module))
    if not modules or modules[-1]["kind"] != "dense":
        raise CheckpointError(f"{folder / MODULES}: expected a Dense at the end, which gives the scores")
    return pooling, modules, places


def _pooling(folder: Path, module: Module, described: SentenceTransformers, *, already: bool) -> list[str]:
    settings = module.settings
    old = [
        name.removeprefix("pooling_mode_") for name, on in settings.items() if name.startswith("pooling_mode_") and on
    ]
    names = {"cls_token": "cls", "max_tokens": "max", "mean_tokens": "mean", "weightedmean_tokens": "weightedmean"}
    mode = settings.get("pooling_mode") or [names.get(name, name) for name in old] or "mean"
    if already:
        raise CheckpointError(f"{folder / MODULES}: a second Pooling is not read")
    if described.instruction and not settings.get("include_prompt", True):
        raise CheckpointError(f"{folder / module.path}: include_prompt false, under a default prompt, is not read")
    return [mode] if isinstance(mode, str) else list(mode)


def _dense(module: Module) -> dict[str, Any]:
    settings = module.settings
    return {
        "kind": "dense",
        "inputs": int(settings["in_features"]),
        "outputs": int(settings["out_features"]),
        "bias": bool(settings.get("bias", True)),
        "activation": settings.get("activation_function", "torch.nn.modules.activation.Tanh"),
        "residual": bool(settings.get("use_residual", False)),
    }


def _norm(module: Module) -> dict[str, Any]:
    return {"kind": "layer_norm", "dimension": int(module.settings["dimension"])}
