"""What a run will do, before it does it: rows, model, rates, steps, and three rows as the model reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ranker.config import RunConfig
from ranker.config.models import ArmoRMConfig
from ranker.config.run import HELD_OUT_ROWS
from ranker.extras import require
from ranker.training import losses
from ranker.training.batches import grouped, planned
from ranker.training.defaults import resolved
from ranker.training.rows import load
from ranker.training.start import starting_model

EXAMPLES: Final = 3
"""Rows that are shown as the model reads them."""


def preview(config: RunConfig) -> Iterator[str]:
    """Lines of text; nothing is written.

    Raises:
        ConfigError, DataError: as in ``ranker.train``.
    """
    require("transformers").utils.logging.disable_progress_bar()
    settings = resolved(config)
    config = settings.config
    training, validation, test = load(config)
    model, tokenizer = starting_model(config)
    groups = grouped(
        config.training, training, model, tokenizer, losses.build(config.training.loss), on_error=config.data.on_error
    )
    pipeline = groups.pipeline
    yield f"model: {config.model.type} on {config.model.name_or_path}, {settings.parameters / 1e6:.0f}M parameters"
    yield f"loss: {config.training.loss.type}; a score is {_meaning(config)}"
    for name, sources, rows in (
        ("training", config.data.train, training),
        ("validation", config.data.validation or (HELD_OUT_ROWS,), validation),
        ("test", config.data.test or ("the validation rows again",), test),
    ):
        yield f"{name}: {len(rows)} rows; {', '.join(sources)}"
    if not isinstance(config.model, ArmoRMConfig):
        plan = planned(config.training, groups)
        yield from groups.summary()
        yield plan.summary(groups, settings.accumulation(groups.times * plan.used), settings.rate(groups.times))
    yield f"writes to: {Path(config.output_dir)} (checkpoint, report.html, {', '.join(config.export.precisions)})"
    for preference in training[:EXAMPLES]:
        packed = pipeline.pack(pipeline.tokenize([preference.group])[0])
        yield f"--- {preference.id}: {len(packed.rows)} rows, the longest of {packed.length} tokens"
        for row in packed.rows:
            yield " ".join(tokenizer.token(int(i)) or f"<marker {i}>" for i in row.ids)
        cut = [str(i) for i, flag in enumerate(packed.truncated.tolist()) if flag]
        yield f"cut: candidates {', '.join(cut) or 'none'}; prompt {'yes' if packed.prompt_truncated else 'no'}"


def _meaning(config: RunConfig) -> str:
    """What a score means, by the model's outputs and the loss."""
    if config.output != "scalar":
        return SCORES[config.output]
    return OF_ONE_NUMBER.get(config.training.loss.type, "one raw logit, higher is better")


OF_ONE_NUMBER: Final = {
    **dict.fromkeys(("mse", "rmse", "huber"), "one number on the scale of the labels"),
    "binary_cross_entropy": "the log-odds of a label of 1",
    **dict.fromkeys(
        ("bradley_terry", "log_exp", "rank_net", "list_net", "list_mle"),
        "one raw logit; a difference of two is the log-odds of preference",
    ),
}
"""What a score means, by the loss: the last ones fit Bradley-Terry's model or Luce's."""

SCORES: Final = {
    "accept_reject": "the log-odds of accept over reject",
    "aspects": "the mean of the regressed aspects",
    "gated": "the aspects mixed by a gate that reads the prompt",
}
"""What a score means, by outputs that are not one number."""
