"""Settings of the models: one class per ``model.type``; a type has no settings of another."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from ranker.config.losses import ComparisonLossName, ListLossName, RegressionLossName
from ranker.config.section import Pooling, Section
from ranker.layouts.settings import ChatSettings

COMPARISONS: Final[tuple[str, ...]] = get_args(ComparisonLossName)
LISTS: Final[tuple[str, ...]] = get_args(ListLossName)
REGRESSIONS: Final[tuple[str, ...]] = (*get_args(RegressionLossName), "huber")
CUSTOM: Final = "custom"


class BaseModelConfig(Section):
    """What every model has."""

    losses: ClassVar[tuple[str, ...]]
    """The losses that it trains with."""

    type: str
    name_or_path: str = Field(description="hub name or folder; 'offline' is the packaged MiniLM encoder")
    max_length: int = Field(512, ge=16, description="tokens of a row; of shared_prompt, of a block")
    prompt_reserve: int = Field(64, ge=1, description="tokens the prompt keeps before an answer is cut")

    @model_validator(mode="after")
    def _answers_have_room(self) -> Self:
        if 2 * self.prompt_reserve > self.max_length:
            raise ValueError(f"expected prompt_reserve at most half of max_length {self.max_length}")
        return self


class TrainableConfig(BaseModelConfig):
    """A model whose backbone trains."""

    init_head: bool = Field(False, description="start a new head even if the backbone's folder is a trained ranker")
    backbone_dropout: float = Field(0.0, ge=0, lt=1, description="0 trains faster and is usual for reward models")


class PointwiseConfig(TrainableConfig):
    """A reward model: one answer per row. ``cross_entropy`` gives it two outputs, ``aspects`` one each, others one."""

    losses: ClassVar[tuple[str, ...]] = (*COMPARISONS, *LISTS, *REGRESSIONS, "cross_entropy", "token_pairwise", CUSTOM)

    type: Literal["pointwise"] = "pointwise"
    aspects: tuple[str, ...] = Field((), description="names of the regressed aspects; sorted")
    pooling: Pooling = Field("first_token", description="of encoders; auto: the checkpoint's own setting")
    text: ChatSettings = Field(ChatSettings(), description="how conversations become text; default: the chat template")

    @field_validator("aspects")
    @classmethod
    def _in_the_order_of_labels(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(value))  # labels by name are read in this order, whatever a row's own


class PairwiseConfig(TrainableConfig):
    """An encoder that reads the candidates of a prompt together, with PairRM's head."""

    losses: ClassVar[tuple[str, ...]] = (*COMPARISONS, *LISTS, *REGRESSIONS, CUSTOM)

    num_labels: int = Field(1, ge=1, description="outputs of the head; scores of several criteria train one each")
    head_dropout: float = Field(0.05, ge=0, lt=1)


class SetEncoderConfig(PairwiseConfig):
    """One row per candidate; the rows of a group see each other's [CLS]."""

    type: Literal["set_encoder"] = "set_encoder"


class SharedPromptConfig(PairwiseConfig):
    """One sequence per group, whose prompt is read once."""

    type: Literal["shared_prompt"] = "shared_prompt"


class OrderedPairConfig(PairwiseConfig):
    """LLM-Blender's PairRM: one sequence per ordered pair."""

    losses: ClassVar[tuple[str, ...]] = (*COMPARISONS, CUSTOM)

    type: Literal["ordered_pair"] = "ordered_pair"


class SteamSHPConfig(TrainableConfig):
    """An encoder-decoder that answers A or B."""

    losses: ClassVar[tuple[str, ...]] = ("answer_token", *COMPARISONS, CUSTOM)

    type: Literal["steamshp"] = "steamshp"


class GateConfig(Section):
    """How ArmoRM's gate is trained on frozen features; the defaults are the published ones."""

    verbosity: str | None = Field(None, description="aspect whose correlation with the others is taken out")
    max_correlation: float = Field(0.03, ge=0, description="Spearman correlation with verbosity that may remain")
    hidden: int = Field(1024, ge=1, description="width of the gate's hidden layers")
    layers: int = Field(3, ge=1, description="hidden layers of the gate")
    dropout: float = Field(0.2, ge=0, lt=1)
    temperature: float = Field(10.0, gt=0)
    steps: int = Field(2000, ge=1)
    batch_pairs: int = Field(1024, ge=1, description="comparisons of one step")
    learning_rate: float = Field(1e-3, gt=0)


class ArmoRMConfig(BaseModelConfig):
    """Several aspects regressed on a frozen backbone and mixed by a gate that reads the prompt."""

    losses: ClassVar[tuple[str, ...]] = ("bradley_terry",)

    type: Literal["armorm"] = "armorm"
    aspects: tuple[str, ...] = Field(min_length=1, description="names of the regressed aspects; sorted")
    pooling: Pooling = Field("first_token", description="of encoders; auto: the checkpoint's own setting")
    gate: GateConfig = GateConfig()

    @field_validator("aspects")
    @classmethod
    def _in_the_order_of_labels(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(value))

    @model_validator(mode="after")
    def _verbosity_is_an_aspect(self) -> Self:
        if self.gate.verbosity is not None and self.gate.verbosity not in self.aspects:
            raise ValueError(f"gate.verbosity '{self.gate.verbosity}' is not in model.aspects")
        return self


ModelConfig = Annotated[
    PointwiseConfig | SetEncoderConfig | SharedPromptConfig | OrderedPairConfig | SteamSHPConfig | ArmoRMConfig,
    Field(discriminator="type"),
]
"""The model that is trained; ``type`` says which settings it has."""

MODEL_TYPES: Final[dict[str, type[BaseModelConfig]]] = {
    cls.model_fields["type"].default: cls
    for cls in (
        PointwiseConfig,
        SetEncoderConfig,
        SharedPromptConfig,
        OrderedPairConfig,
        SteamSHPConfig,
        ArmoRMConfig,
    )
}
"""The model types by name."""
