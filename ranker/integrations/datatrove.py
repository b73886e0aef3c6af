"""datatrove: a filter that keeps documents by their score.

    from ranker.integrations.datatrove import RankerFilter

    keep = RankerFilter("model.onnx", 0.5, columns={"prompt": "question"})
    LocalPipelineExecutor([JsonlReader("in"), keep, JsonlWriter("out")]).run()

Source: pipeline/filters/base_filter.py of datatrove 0.10.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from datatrove.pipeline.filters.base_filter import BaseFilter

from ranker.data.formats import parse_group
from ranker.data.read_row import Columns, UnusedColumns
from ranker.errors import ConfigError, DataError
from ranker.integrations.arguments import add_columns, load_batch_scorer, prompt_column
from ranker.loading import Ranker
from ranker.records import BadRow, Group

BELOW: Final = "ranker_below_threshold"
"""Why a document is dropped whose score is below the threshold."""

FAILED: Final = "ranker_failed"
"""Why a document is dropped that could not be scored."""


class RankerFilter(BaseFilter):  # type: ignore[misc, no-any-unimported]
    """Keeps a document whose text scores at least ``threshold`` logits.

    The columns of ``BatchScorer`` go to the document's metadata: ``ranker_scores`` is a list of one logit. A document
    that cannot be scored is dropped with the reason ``ranker_failed`` and its error in the metadata, so an
    ``exclusion_writer`` loses nothing.

    Args:
        model: what ``ranker.load`` reads; each task loads it with its first documents. A loaded model is for one
            process only.
        threshold: the lowest score that is kept, in logits.
        columns: ``{"prompt": NAME}``, the metadata field with the prompt that the text answers. Default: only the text
            is read.
        prefix: of the names that are added to the metadata.
        exclusion_writer: where dropped documents go.
        batch_size: documents that are scored together.
        options: those of ``ranker.load``.

    Raises:
        ConfigError: an option that ``ranker.load`` does not have, or a column for anything but the prompt.

    Example:
        >>> keep = RankerFilter("model.onnx", 0.5, columns={"prompt": "question"})
        >>> documents = [Document(text="Hi!", id="1", metadata={"question": "Say hi"})]
        >>> [document.metadata["ranker_scores"] for document in keep.run(documents)]
    """

    name = "ranker"

    def __init__(
        self,
        model: str | Path | Ranker,
        threshold: float,
        *,
        columns: Columns | None = None,
        prefix: str = "ranker_",
        exclusion_writer: Any = None,
        batch_size: int = 256,
        **options: Any,
    ) -> None:
        super().__init__(exclusion_writer, batch_size)
        self.scorer = load_batch_scorer("RankerFilter", model, options, prefix=prefix)
        self.prompt_column = prompt_column("RankerFilter", columns)
        self.threshold = threshold
        self._unused = UnusedColumns()

    def filter(self, doc: Any) -> bool | tuple[bool, str]:
        """Whether a document is kept, or False and why not."""
        return self.filter_batch([doc])[0]

    def filter_batch(self, batch: Sequence[Any]) -> list[bool | tuple[bool, str]]:
        """``filter`` of many documents.

        Raises:
            ConfigError: the model's scores are relative, so that the score of a single text has no meaning, or a
                document's metadata has one of the added names.
        """
        if self.scorer.scorer.info.scores_are_relative:
            raise ConfigError(f"{self.scorer.model}: compares answers to one prompt; use a pointwise model")
        decisions: list[bool | tuple[bool, str]] = []
        groups = [self._group(doc) for doc in batch]
        self._unused.say()
        for doc, result in zip(batch, self.scorer.score(groups), strict=True):
            add_columns(doc.metadata, self.scorer.results(result), self.scorer.prefix)
            if result.error is not None:
                decisions.append((False, FAILED))
            else:
                decisions.append(bool(result.scores[0] >= self.threshold) or (False, BELOW))
        return decisions

    def _group(self, doc: Any) -> Group | BadRow:
        prompt = "" if self.prompt_column is None else doc.metadata.get(self.prompt_column)
        row = {"prompt": prompt, "candidates": [doc.text]}
        if self.prompt_column is None:  # metadata is about the text then: its address, its date
            others = {}
        else:
            others = {name: value for name, value in doc.metadata.items() if name != self.prompt_column}
        try:
            return parse_group(others | row, f"documents:{doc.id}", unused=self._unused)
        except DataError as error:
            return BadRow.of(error)
