"""Settings that follow from the backbone's size: a rate that suits 22M parameters ruins 400M."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ranker.config import RunConfig
from ranker.models.build import backbone_parameters


@dataclass(frozen=True, slots=True)
class SizeDefaults:
    """What is usual up to ``parameters``: the learning rate, and padded tokens of an optimizer step."""

    parameters: float
    learning_rate: float
    tokens_per_step: int


SIZES: Final = (
    SizeDefaults(60e6, 2e-4, 2048),
    SizeDefaults(250e6, 2e-5, 16384),
    SizeDefaults(700e6, 1e-5, 32768),
    SizeDefaults(4e9, 5e-6, 65536),
    SizeDefaults(float("inf"), 2e-6, 65536),
)
"""By size: MiniLM; base encoders (DeBERTa-v3's authors fine-tune at 1.5e-5 to 3e-5); large encoders and small decoders
(5e-6 to 1e-5); decoders (9e-6 and less, InstructGPT, arXiv 2203.02155). The first row is measured on the sample."""

MERGED_PASSES: Final = 2
MANY_TIMES: Final = 8
"""Rows whose merging saves this many times or more are few answers, and are read twice (measured on argconv)."""

MERGED_RATE: Final = 0.5
SOME_TIMES: Final = 3
"""Factor of the rate where merging saves this many times or more, and rows are read once (MiniLM, on wmt19)."""

LORA_FACTOR: Final = 10
"""Adapters train at about ten times the rate of all weights (LoRA, arXiv 2106.09685, appendix D)."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A configuration without open settings, and the size that decided them."""

    config: RunConfig
    learning_rate: float
    tokens_per_step: int
    parameters: int
    step_follows: bool = False
    """Whether ``training.tokens_per_step`` was left open."""
    rate_follows: bool = False
    """Whether ``training.learning_rate`` was left open."""

    def rate(self, times: float) -> float:
        """The learning rate for rows whose merging saves so many times; measured only for small encoders."""
        small = self.parameters <= SIZES[0].parameters
        follows = self.rate_follows and small and self.config.training.num_train_epochs is None
        return self.learning_rate * (MERGED_RATE if follows and SOME_TIMES <= times < MANY_TIMES else 1)

    def accumulation(self, times: float, processes: int = 1) -> int:
        """Forward passes of one process in a step.

        Args:
            times: how many times more comparisons the merged rows hold per token than pair by pair. A step that was
                left open then has as many times fewer tokens, so that it holds as many comparisons, and at least one
                pass.
            processes: that train together.
        """
        training = self.config.training
        if not self.step_follows:
            return training.accumulation(processes)
        tokens = max(training.tokens_per_forward, round(self.tokens_per_step / max(1.0, times)))
        return training.model_copy(update={"tokens_per_step": tokens}).accumulation(processes)


def passes(times: float) -> int:
    """Passes over the data where they are not set; see ``RunPlan`` and ``Groups.times``."""
    return MERGED_PASSES if times >= MANY_TIMES else 1


def resolved(config: RunConfig) -> Resolved:
    """Fill in the learning rate and the tokens per step where the configuration leaves them open.

    Raises:
        ConfigError: the backbone is neither a folder nor a hub name.
    """
    parameters = backbone_parameters(config.model.name_or_path)
    usual = next(size for size in SIZES if parameters <= size.parameters)
    training = config.training
    factor = 1 if config.lora is None else LORA_FACTOR
    rate = training.learning_rate or factor * usual.learning_rate
    tokens = training.tokens_per_step or max(usual.tokens_per_step, training.tokens_per_forward)
    most = training.max_tokens_per_forward
    changes = {
        "learning_rate": rate,
        "tokens_per_step": tokens,
        "max_tokens_per_forward": most if most == "auto" else min(most, tokens),  # a step has at least one pass
    }
    changed = training.model_copy(update=changes)
    changed_config = config.model_copy(update={"training": changed})
    return Resolved(
        config=changed_config,
        learning_rate=rate,
        tokens_per_step=tokens,
        parameters=parameters,
        step_follows=training.tokens_per_step is None,
        rate_follows=training.learning_rate is None,
    )
