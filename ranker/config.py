"""The configuration of a training run: YAML plus ``key=value``, strict, defaults in one place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ranker.errors import ConfigError, nearest
from ranker.text.layout import Output, PairwiseLayout

RECIPES: Final = Path(__file__).parent / "training" / "recipes"
CONFIG_BYTES: Final = 1_000_000  # of YAML that is read; aliases could expand a small file without bound

Precision = Literal["auto", "bf16", "fp32"]
ExportPrecision = Literal["fp32", "fp16", "int8", "int8-static"]
PairLoss = Literal["bradley_terry", "log_exp"]
ListLoss = Literal["list_net", "list_mle", "rank_net"]
PointLoss = Literal["cross_entropy", "binary_cross_entropy", "mse", "rmse", "huber"]
TokenLoss = Literal["token_pairwise"]
AnswerLoss = Literal["answer_token"]
LossName = PairLoss | ListLoss | PointLoss | TokenLoss | AnswerLoss
Scheme = Literal["pairwise", "reward", "gated", "seq2seq"]
Quantization = Literal["none", "4bit", "8bit"]
Pooling = Literal["auto", "first_token", "mean"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelConfig(_Section):
    """The model that is trained."""

    scheme: Scheme = Field("pairwise", description="gated: ArmoRM's aspects; seq2seq: SteamSHP's A or B")
    name_or_path: str = Field("offline", description="hub name or folder; 'offline' is the packaged MiniLM encoder")
    init_head: bool = Field(False, description="start a new head even if the backbone's folder is a trained ranker")
    output: Output = Field("scalar", description="reward: scalar, accept_reject (two classes) or aspects")
    aspects: tuple[str, ...] = Field((), description="reward, gated: names of the regressed aspects; sorted")
    pooling: Pooling = Field("first_token", description="of encoders; auto: the checkpoint's own setting")
    layout: PairwiseLayout = Field("set", description="hub, set (order-free) or published (LLM-Blender's PairRM)")
    exchange: bool = Field(True, description="set layout: rows of a group see each other's [CLS]; false is pointwise")
    max_length: int = Field(512, ge=16, description="tokens per block (hub), row (set, reward) or pair (published)")
    prompt_reserve: int = Field(64, ge=1, description="tokens the prompt keeps before an answer is cut")
    n_tasks: int = Field(1, ge=1, description="outputs of the head; scores of several aspects train one each")
    head_dropout: float = Field(0.05, ge=0, lt=1)
    backbone_dropout: float = Field(0.0, ge=0, lt=1, description="0 trains faster and is usual for reward models")

    @field_validator("aspects")
    @classmethod
    def _in_the_order_of_labels(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(value))  # labels by name are read in this order, whatever a row's own

    @model_validator(mode="after")
    def _answers_have_room(self) -> Self:
        if 2 * self.prompt_reserve > self.max_length:
            raise ValueError(f"expected prompt_reserve at most half of max_length {self.max_length}")
        return self


class DataConfig(_Section):
    """Where rows come from."""

    train: tuple[str, ...] = Field(description="files or dataset names (name:split)")
    aspects: tuple[str, ...] = Field((), description="gated: rows with scores per aspect; train holds the preferences")
    aspect_columns: dict[str, str] = Field({}, description="the same as columns, for the rows of aspects")
    validation: tuple[str, ...] = Field(description="rows that choose the checkpoint and decide early stopping")
    test: tuple[str, ...] = Field(
        (), description="held-out rows, reported at the end; without them validation is reported"
    )
    weights: tuple[float, ...] = Field((), description="how often each source of train is taken; empty: once each")
    columns: dict[str, str] = Field({}, description="names of the columns where they differ from the known ones")
    on_error: Literal["raise", "skip"] = "raise"
    max_train_samples: int | None = Field(None, ge=1, description="most training groups of each source, for trials")
    max_eval_samples: int | None = Field(None, ge=1)
    streaming: bool = Field(False, description="read datasets of the hub row by row; use with limit")
    deduplicate: Literal["none", "exact", "near"] = Field("none", description="drop repeated training rows")
    train_eval_overlap: Literal["ignore", "warn", "drop", "raise"] = Field(
        "warn", description="training rows whose prompt is also in validation or test"
    )
    similarity: float = Field(0.8, gt=0, le=0.95, description="Jaccard similarity of what counts as near")


class TrainingConfig(_Section):
    """How it is trained."""

    loss: LossName = Field("bradley_terry", description="of comparisons, lists or single answers; see docs")
    accept_threshold: float = Field(0.5, description="cross_entropy: an answer with at least this score is accepted")
    class_weights: tuple[float, ...] = Field((), description="cross_entropy: factors of reject and accept")
    label_smoothing_factor: float = Field(0.0, ge=0, lt=1, description="cross_entropy: share spread over both classes")
    huber_delta: float = Field(1.0, gt=0, description="huber: where the loss becomes linear")
    center_rewards_coefficient: float = Field(
        0.0, ge=0, description="weight of (r_left + r_right)^2; TRL recommends 0.01"
    )
    num_train_epochs: float = Field(1.0, gt=0)
    learning_rate: float = Field(1e-4, gt=0)
    head_lr_multiplier: float = Field(10.0, gt=0, description="learning rate of the new head over the backbone's")
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: float = Field(0.1, ge=0, description="steps of warm-up; below 1 their share of the run, rounded down")
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    max_grad_norm: float = Field(1.0, ge=0)
    max_tokens_per_forward: int = Field(2048, ge=64, description="most padded tokens of one forward pass")
    tokens_per_step: int | None = Field(
        None, ge=64, description="padded tokens of a step; default max_tokens_per_forward"
    )
    candidates_per_prompt: tuple[int, int] = Field((2, 8), description="fewest and most candidates shown together")
    consistency: float = Field(0.0, ge=0, description="ordered pairs: weight of the order-consistency penalty")
    precision: Precision = Field("auto", description="auto: bf16 where the processor has it")
    eval_steps: float = Field(
        0.25, gt=0, description="steps between evaluations (and checkpoints); below 1 their share of the run"
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, description="stop after this many evaluations without a better accuracy"
    )
    activation_checkpointing: bool = False
    padding_free: bool = Field(False, description="read rows without padding, by variable-length attention")
    torch_compile: bool = Field(False, description="torch.compile: slow to start, faster on long runs on GPU")
    report_to: tuple[str, ...] = Field(("tensorboard",), description="where transformers logs to; [] for nowhere")
    logging_steps: int = Field(20, ge=1)
    seed: int = 0

    @field_validator("candidates_per_prompt")
    @classmethod
    def _sizes_in_order(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 2 <= value[0] <= value[1]:
            raise ValueError("expected [fewest, most] with 2 <= fewest <= most")
        return value

    def accumulation(self, processes: int = 1) -> int:
        """Forward passes of each process per optimizer step; all together read about ``tokens_per_step``."""
        return max(
            1, round((self.tokens_per_step or self.max_tokens_per_forward) / self.max_tokens_per_forward / processes)
        )


class ExportConfig(_Section):
    """What is exported after training."""

    precisions: tuple[ExportPrecision, ...] = ("fp32", "int8")
    push_to_hub: str | None = Field(None, description="owner/name of a repository, made private if new")


class LoraConfig(_Section):
    """Low-rank adapters (LoRA, arXiv 2106.09685; QLoRA, arXiv 2305.14314); the head always trains whole."""

    r: int = Field(0, ge=0, description="rank of the updates; 0 trains all weights")
    lora_alpha: float = Field(32.0, gt=0)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] = Field(
        (), description="last names of the linear layers; empty: all of the backbone"
    )
    quantization: Quantization = Field("none", description="of the frozen weights; needs bitsandbytes")
    continue_from: str | None = Field(None, description="folder of an adapter to go on with")

    @model_validator(mode="after")
    def _needs_a_rank(self) -> Self:
        if not self.r and (self.quantization != "none" or self.continue_from is not None):
            raise ValueError("lora.quantization and lora.continue_from need lora.r")
        return self


class GateConfig(_Section):
    """Gated aspects (ArmoRM): how the gate is trained on frozen features; defaults are the published ones."""

    verbosity: str | None = Field(None, description="aspect whose correlation with the others is taken out")
    max_correlation: float = Field(0.03, ge=0, description="Spearman correlation with verbosity that may remain")
    hidden: int = Field(1024, ge=1, description="width of the gate's hidden layers")
    layers: int = Field(3, ge=1, description="hidden layers of the gate")
    dropout: float = Field(0.2, ge=0, lt=1)
    temperature: float = Field(10.0, gt=0)
    steps: int = Field(2000, ge=1)
    batch_pairs: int = Field(1024, ge=1, description="comparisons of one step")
    learning_rate: float = Field(1e-3, gt=0)


class RunConfig(_Section):
    """A whole run; the sections of a recipe."""

    output_dir: str = Field(description="folder of checkpoints, metrics and exports")
    model: ModelConfig = ModelConfig()
    data: DataConfig
    training: TrainingConfig = TrainingConfig()
    lora: LoraConfig = LoraConfig()
    gate: GateConfig = GateConfig()
    qat: Literal["none", "int8"] = Field(
        "none", description="int8: quantization-aware training at the end, distilled from the model before it"
    )
    qat_steps: int = Field(100, ge=1, description="batches of the quantization-aware training")
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _loss_fits_the_model(self) -> Self:
        loss, output, scheme = self.training.loss, self.model.output, self.model.scheme
        allowed = losses_of(scheme, self.model.layout)
        if loss not in allowed:
            what = "model.layout 'published'" if allowed == get_args(PairLoss) else f"model.scheme '{scheme}'"
            raise ValueError(f"{what} trains with {', '.join(allowed)}; got training.loss '{loss}'")
        if (loss == "cross_entropy") != (output == "accept_reject"):
            raise ValueError(
                f"loss 'cross_entropy' and output 'accept_reject' need each other; got '{loss}', '{output}'"
            )
        if self.training.center_rewards_coefficient and loss not in (*get_args(PairLoss), *get_args(AnswerLoss)):
            raise ValueError(f"training.center_rewards_coefficient is for losses of pairs; got training.loss '{loss}'")
        if self.model.n_tasks > 1 and scheme != "pairwise":
            raise ValueError(f"model.n_tasks is for model.scheme=pairwise; '{scheme}' has model.aspects")
        if len(self.training.class_weights) not in (0, 2):
            raise ValueError("training.class_weights: expected two factors, of reject and of accept")
        if output not in OUTPUTS[scheme]:
            raise ValueError(f"model.scheme '{scheme}' has output {', '.join(OUTPUTS[scheme])}; got '{output}'")
        return self

    @model_validator(mode="after")
    def _aspects_belong_to_their_models(self) -> Self:
        output, scheme = self.model.output, self.model.scheme
        if (output in ("aspects", "gated")) != bool(self.model.aspects):
            raise ValueError("model.output=aspects or gated and the names in model.aspects belong together")
        if scheme == "gated" and (self.lora.r or self.qat != "none"):
            raise ValueError("model.scheme=gated freezes its backbone; lora.r must be 0, qat none")
        if self.lora.r and self.qat != "none":
            raise ValueError("qat trains all weights; merge the adapter and train on from it, or set qat=none")
        if (scheme == "gated") != bool(self.data.aspects):
            raise ValueError("model.scheme=gated and the rows in data.aspects belong together")
        if self.gate.verbosity is not None and self.gate.verbosity not in self.model.aspects:
            raise ValueError(f"gate.verbosity '{self.gate.verbosity}' is not in model.aspects")
        return self


OUTPUTS: Final[dict[Scheme, tuple[Output, ...]]] = {
    "pairwise": ("scalar",),
    "reward": ("scalar", "accept_reject", "aspects"),
    "gated": ("gated",),
    "seq2seq": ("scalar",),
}
"""What the models of a scheme can put out."""


def losses_of(scheme: Scheme, layout: PairwiseLayout = "set") -> tuple[str, ...]:
    """The losses that a scheme trains with; lists and single answers need one score per candidate."""
    pairs = get_args(PairLoss)
    if scheme == "seq2seq":
        return (*get_args(AnswerLoss), *pairs)
    if scheme == "gated":
        return ("bradley_terry",)
    if scheme == "pairwise" and layout == "published":
        return tuple(pairs)
    alone = (*pairs, *get_args(ListLoss), *get_args(PointLoss))
    return (*alone, *get_args(TokenLoss)) if scheme == "reward" else alone


def recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def load_config(recipe: str, overrides: Sequence[str] = ()) -> RunConfig:
    """A recipe by name or a YAML file by path, with ``section.key=value`` overrides (values are YAML).

    Raises:
        ConfigError: naming every unknown key with the nearest known one, and every value that does not fit.
    """
    path = recipes().get(recipe, Path(recipe))
    if not path.is_file():
        raise ConfigError(f"expected a recipe or a YAML file, got '{recipe}'{nearest(recipe, recipes())}")
    if path.stat().st_size > CONFIG_BYTES:
        raise ConfigError(f"{path}: expected at most {CONFIG_BYTES} bytes of YAML")
    values = _mapping(path)
    for override in overrides:
        _apply(values, override)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(detail) for detail in error.errors())) from error


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML that ``load_config`` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _mapping(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections model, data, training; got {type(values).__name__}")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"expected key=value, got '{override}'; for example training.learning_rate=1e-5")
    *sections, last = key.split(".")
    target = values
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(f"'{key}': '{section}' is a value, not a section")
    try:
        target[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"'{key}': expected a YAML value, got '{text}'") from error


def _explain(detail: Any) -> str:
    path = [str(part) for part in detail["loc"]]
    name = ".".join(path)
    if detail["type"] == "value_error":
        return f"{name + ': ' if name else ''}{detail['msg'].removeprefix('Value error, ')}"
    if detail["type"] != "extra_forbidden":
        return f"'{name}': {detail['msg']}; got {detail['input']!r:.80}"
    section: Any = RunConfig
    for part in path[:-1]:
        section = section.model_fields[part].annotation
    return f"unknown key '{name}'{nearest(path[-1], section.model_fields)}"
