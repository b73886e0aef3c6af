"""A whole run: where rows come from, how it is trained, what is exported."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ranker.config.losses import (
    AnswerLossConfig,
    ComparisonLossConfig,
    CrossEntropyLossConfig,
    LossConfig,
    PairLossConfig,
    TokenPairwiseLossConfig,
)
from ranker.config.models import ArmoRMConfig, ModelConfig, PointwiseConfig
from ranker.config.section import (
    AttentionKernel,
    ExportPrecision,
    Names,
    Precision,
    Quantization,
    Section,
    WeightBy,
    several,
)
from ranker.layouts import LAYOUTS
from ranker.layouts.layout import Output

SAMPLE: Final = "sample"
"""The data source that comes with the package."""


AUTO_TOKENS: Final = 2048
"""Tokens of a forward pass under ``max_tokens_per_forward: auto`` on a CPU, whose caches larger ones leave."""

LEAST_TOKENS: Final = 64
"""Fewest tokens of a forward pass."""

HELD_OUT_ROWS: Final = "rows held out of data.train"
"""What the validation rows are called where ``data.validation`` names none."""


class DataConfig(Section):
    """Where rows come from."""

    train: Names = Field(description="files, dataset names (name:split), or sample: the packaged rows")
    aspects: Names = Field((), description="armorm: rows with scores per aspect; train holds the preferences")
    aspect_columns: dict[str, str] = Field({}, description="the same as columns, for the rows of aspects")
    validation: Names = Field(
        (),
        description="rows that choose the checkpoint and decide early stopping; without them a twentieth of the "
        "training prompts is held out, of few a fifth (of sample, its own validation rows)",
    )
    test: Names = Field((), description="held-out rows, reported at the end; without them validation is reported")
    weights: tuple[float, ...] = Field((), description="how often each source of train is taken; empty: once each")
    columns: dict[str, str] = Field({}, description="names of the columns where they differ from the known ones")
    on_error: Literal["raise", "skip"] = "raise"
    max_train_samples: int | None = Field(None, ge=1, description="most training groups of each source, for trials")
    max_eval_samples: int | None = Field(None, ge=1, description="most validation groups")
    max_test_samples: int | None = Field(None, ge=1, description="most test groups")
    streaming: bool = Field(False, description="read datasets of the hub row by row; use with max_train_samples")
    deduplicate: Literal["none", "exact", "near"] = Field("none", description="drop repeated training rows")
    train_eval_overlap: Literal["ignore", "warn", "drop", "raise"] = Field(
        "warn", description="training rows whose prompt is also in validation or test"
    )
    similarity: float = Field(0.8, gt=0, le=0.95, description="Jaccard similarity of what counts as near")

    @model_validator(mode="before")
    @classmethod
    def _sample_has_its_own_held_out_rows(cls, values: Any) -> Any:
        """Only for the sample: rows of one's own are never evaluated on it."""
        if not isinstance(values, dict) or values.get("validation") or values.get("train") not in ([SAMPLE], (SAMPLE,)):
            return values
        test = values.get("test") or (f"{SAMPLE}:test",)
        return {**values, "validation": (f"{SAMPLE}:validation",), "test": test}


class TrainingConfig(Section):
    """How it is trained."""

    loss: LossConfig = Field(
        ComparisonLossConfig(type="bradley_terry"), description="of comparisons, lists or single answers; see docs"
    )
    num_train_epochs: float | None = Field(
        None, gt=0, description="passes over the data; default 1, and 2 where merging rows saves eight times or more"
    )
    learning_rate: float | None = Field(None, gt=0, description="default by the backbone's size")
    head_lr_multiplier: float = Field(10.0, gt=0, description="learning rate of the new head over the backbone's")
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: float = Field(0.1, ge=0, description="steps of warm-up; below 1 their share of the run, rounded down")
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    max_grad_norm: float = Field(1.0, ge=0)
    max_tokens_per_forward: int | Literal["auto"] = Field(
        2048, description="most padded tokens of one forward pass; auto: what the device's memory holds"
    )
    tokens_per_step: int | None = Field(
        None, ge=64, description="padded tokens of an optimizer step; default by the backbone's size"
    )
    candidates_per_prompt: tuple[int, int] = Field((2, 8), description="fewest and most candidates shown together")
    merge_rows: bool = Field(
        True, description="rows that share an answer train as one group, in which every answer is read once"
    )
    groups_per_forward: int = Field(
        4, ge=1, description="fewest groups of merged rows in a forward pass: larger ones are cut into blocks"
    )
    weight_by: WeightBy = Field(
        "row", description="what counts alike in losses of comparisons and lists: every row, or every prompt"
    )
    prefix_sharing: bool = Field(False, description="decoders: read the prompt once for several answers")
    precision: Precision = Field("auto", description="auto: bf16 where the processor has it")
    eval_steps: float = Field(
        0.25, gt=0, description="steps between evaluations (and checkpoints); below 1 their share of the run"
    )
    save_steps: float | None = Field(
        None, gt=0, description="steps between checkpoints beside those of evaluations; below 1 their share of the run"
    )
    save_minutes: float | None = Field(None, gt=0, description="minutes between checkpoints beside those")
    early_stopping_patience: int | None = Field(
        None, ge=1, description="stop after this many evaluations without a better accuracy"
    )
    activation_checkpointing: bool = False
    padding_free: bool | Literal["auto"] = Field(
        "auto", description="read rows without padding; auto: encoders without dropout, in fp32 on a CPU"
    )
    length_buckets: bool = Field(
        False, description="pad forward passes to a few shapes, for GPUs whose kernels plan anew for every shape"
    )
    attention_kernel: AttentionKernel = Field(
        "auto", description="on CUDA efficient, cudnn or math; of DeBERTa compiled; auto takes any but cudnn"
    )
    prefetch_batches: int = Field(
        0, ge=0, description="forward passes that a thread prepares ahead, on a GPU in pinned memory"
    )
    torch_compile: bool = Field(False, description="torch.compile: slow to start, faster on long runs on GPU")
    report_to: Names = Field(
        ("tensorboard",), description="where transformers logs to: tensorboard, wandb, mlflow; [] for nowhere"
    )
    logging_steps: int | None = Field(
        None, ge=1, description="steps between two logs; default a twentieth of the run, 20 at most"
    )
    seed: int = 0

    @field_validator("candidates_per_prompt")
    @classmethod
    def _sizes_in_order(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 2 <= value[0] <= value[1]:
            raise ValueError("expected [fewest, most] with 2 <= fewest <= most")
        return value

    @field_validator("max_tokens_per_forward", mode="before")
    @classmethod
    def _enough_tokens(cls, value: Any) -> Any:
        if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < LEAST_TOKENS):
            raise ValueError(f"expected a whole number of tokens, at least {LEAST_TOKENS}, or auto; got {value!r}")
        return value

    def check_reading(self, loss: str, *, answers: bool, every_token: bool) -> None:
        """Refuse settings of what is read together that do not fit a loss.

        Args:
            loss: its name.
            answers: whether it is of single answers.
            every_token: whether it needs the value of every token.

        Raises:
            ValueError: naming the setting.
        """
        if self.weight_by == "prompt" and answers:
            raise ValueError(f"training.weight_by 'prompt' is for losses of comparisons and lists, not for '{loss}'")
        if self.prefix_sharing and every_token:
            raise ValueError(
                f"training.prefix_sharing reads several answers in one row, and '{loss}' compares whole rows; remove "
                "one of them"
            )
        if self.prefix_sharing and self.padding_free is True:
            raise ValueError(
                "training.prefix_sharing needs an attention mask and padding_free has none; remove one of them"
            )

    def accumulation(self, processes: int = 1) -> int:
        """Forward passes of each process per optimizer step; all together read about ``tokens_per_step``."""
        tokens = self.tokens_per_step or self.tokens_per_forward
        return max(1, round(tokens / self.tokens_per_forward / processes))

    @property
    def tokens_per_forward(self) -> int:
        """``max_tokens_per_forward`` as a number; ``AUTO_TOKENS`` where nothing was measured yet."""
        return AUTO_TOKENS if self.max_tokens_per_forward == "auto" else self.max_tokens_per_forward


class ExportConfig(Section):
    """What is exported after training."""

    precisions: Annotated[tuple[ExportPrecision, ...], BeforeValidator(several)] = ("fp32", "int8")
    push_to_hub: str | None = Field(None, description="owner/name of a repository, made private if new")


class CardConfig(Section):
    """What the model card says besides the figures; the hub shows and indexes it."""

    license: str | None = Field(None, description="of the weights, by the hub's name: apache-2.0, mit, cc-by-4.0")
    language: Names = Field((), description="ISO 639 codes of the rows' languages: en, de")


class LoraConfig(Section):
    """Low-rank adapters (LoRA, arXiv 2106.09685; QLoRA, arXiv 2305.14314); the head always trains whole."""

    r: int = Field(16, ge=1, description="rank of the updates")
    lora_alpha: float = Field(32.0, gt=0)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: Names = Field((), description="last names of the linear layers; empty: all of the backbone")
    quantization: Quantization = Field("none", description="of the frozen weights; needs bitsandbytes")
    continue_from: str | None = Field(None, description="folder of an adapter whose training continues")


class RunConfig(Section):
    """A whole run; the sections of a recipe."""

    output_dir: str = Field(description="folder of checkpoints, metrics and exports")
    model: ModelConfig
    data: DataConfig
    training: TrainingConfig = TrainingConfig()
    lora: LoraConfig | None = Field(None, description="adapters instead of all weights; absent: all weights train")
    qat: Literal["none", "int8"] = Field(
        "none", description="int8: quantization-aware training at the end, distilled from the model before it"
    )
    qat_steps: int = Field(100, ge=1, description="batches of the quantization-aware training")
    export: ExportConfig = ExportConfig()
    card: CardConfig = CardConfig()

    @property
    def output(self) -> Output:
        """What the model's outputs mean; it follows from the model and the loss."""
        if isinstance(self.training.loss, CrossEntropyLossConfig):
            return "accept_reject"
        if isinstance(self.model, ArmoRMConfig):
            return "gated"
        return "aspects" if isinstance(self.model, PointwiseConfig) and self.model.aspects else "scalar"

    @property
    def num_labels(self) -> int:
        """Labels that every answer of the data must have."""
        if isinstance(self.model, PointwiseConfig):
            return max(1, len(self.model.aspects))
        return int(getattr(self.model, "num_labels", 1))

    @model_validator(mode="after")
    def _loss_fits_the_model(self) -> Self:
        loss, model = self.training.loss, self.model
        if loss.type not in model.losses:
            raise ValueError(f"model.type '{model.type}' trains with {', '.join(model.losses)}; got '{loss.type}'")
        if isinstance(loss, CrossEntropyLossConfig) and isinstance(model, PointwiseConfig) and model.aspects:
            raise ValueError("training.loss 'cross_entropy' has the classes reject and accept; remove model.aspects")
        ordered = [name for name, layout in LAYOUTS.items() if not layout.order_free]
        if isinstance(loss, PairLossConfig) and loss.order_consistency and model.type not in ordered:
            raise ValueError(
                f"training.loss.order_consistency is for model.type {' or '.join(ordered)}; the scores of "
                f"'{model.type}' do not depend on the order"
            )
        return self

    @model_validator(mode="after")
    def _reading_fits_the_loss(self) -> Self:
        loss = self.training.loss
        tokens = isinstance(loss, TokenPairwiseLossConfig)
        self.training.check_reading(loss.type, answers=isinstance(loss, AnswerLossConfig), every_token=tokens)
        return self

    @model_validator(mode="after")
    def _weights_that_train(self) -> Self:
        frozen = isinstance(self.model, ArmoRMConfig)
        if frozen and (self.lora is not None or self.qat != "none"):
            raise ValueError("model.type 'armorm' freezes its backbone; remove lora and qat")
        if self.lora is not None and self.qat != "none":
            raise ValueError("qat trains all weights; merge the adapter and train on from it, or set qat=none")
        if frozen != bool(self.data.aspects):
            raise ValueError("model.type 'armorm' and the rows in data.aspects belong together")
        return self
