"""datatrove: a filter that keeps documents by their score.

    LocalPipelineExecutor([JsonlReader("in"), RankerFilter("model.onnx", 0.5, prompt="question"), JsonlWriter("out")])

Source: pipeline/filters/base_filter.py of datatrove 0.10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datatrove.pipeline.filters.base_filter import BaseFilter

from ranker.batch_scorer import BatchScorer
from ranker.data.formats import parse_group
from ranker.errors import ConfigError, DataError
from ranker.records import BadRow, Group

BELOW = "ranker_below_threshold"
FAILED = "ranker_failed"


class RankerFilter(BaseFilter):  # type: ignore[misc, no-any-unimported]
    """Keeps a document whose text scores at least ``threshold`` (logits); the score goes to its metadata.

    A document that cannot be scored is dropped with the reason ``ranker_failed`` and its error in the metadata, so an
    ``exclusion_writer`` loses nothing.

    Args:
        model: a ``BatchScorer``, or its ``model``; each task loads it with its first documents.
        threshold: the lowest score that is kept.
        prompt: the metadata field with the prompt that the text answers. Default: only the text is read.
        exclusion_writer: where dropped documents go.
        batch_size: documents that are scored together.
        options: those of ``ranker.load``.
    """

    name = "ranker"

    def __init__(
        self,
        model: Any,
        threshold: float,
        *,
        prompt: str | None = None,
        exclusion_writer: Any = None,
        batch_size: int = 256,
        **options: Any,
    ) -> None:
        super().__init__(exclusion_writer, batch_size)
        self.scorer = model if isinstance(model, BatchScorer) else BatchScorer(model, **options)
        self.threshold, self.prompt = threshold, prompt

    def filter(self, doc: Any) -> bool | tuple[bool, str]:
        """Whether a document is kept, or False and why not."""
        return self.filter_batch([doc])[0]

    def filter_batch(self, batch: Sequence[Any]) -> list[bool | tuple[bool, str]]:
        """The same for many documents.

        Raises:
            ConfigError: the model compares answers, so that the score of a single text has no meaning.
        """
        if self.scorer.scorer.info.scores_are_relative:
            raise ConfigError(f"{self.scorer.model}: compares answers to one prompt; use a pointwise model")
        prefix, kept = self.scorer.prefix, list[bool | tuple[bool, str]]()
        for doc, result in zip(batch, self.scorer.score(list(map(self._group, batch))), strict=True):
            if result.error is not None:
                doc.metadata[f"{prefix}error"] = result.error
                kept.append((False, FAILED))
                continue
            score = doc.metadata[f"{prefix}score"] = float(result.scores[0])
            kept.append(score >= self.threshold or (False, BELOW))
        return kept

    def _group(self, doc: Any) -> Group | BadRow:
        prompt = "" if self.prompt is None else doc.metadata.get(self.prompt)
        try:
            return parse_group({"prompt": prompt, "candidates": [doc.text]}, f"document {doc.id}")
        except DataError as error:
            return BadRow.of(error)
