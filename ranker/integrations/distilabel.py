"""distilabel: a step with the columns of its ``PairRM``, for groups of any size.

    rank = RankerStep(model="model.onnx")  # input, candidates -> ranks, ranked_candidates, ratings, model_name

Source: steps/tasks/pair_rm.py of distilabel 1.5.3, whose rows must all have the same number of candidates.
"""

# Annotations are objects here: the library looks for the parameter that is a StepInput.
from typing import TYPE_CHECKING, Any

from distilabel.steps import Step, StepInput
from pydantic import PrivateAttr

from ranker.batch_scorer import BatchScorer

if TYPE_CHECKING:
    from distilabel.typing import StepColumns, StepOutput


class RankerStep(Step):  # type: ignore[misc, no-any-unimported]
    """Ranks each row's ``candidates`` to its ``input``.

    ``ranks`` (1 = best) and ``ratings`` (raw logits) are in the order of the candidates, ``ranked_candidates`` best
    first. A row that cannot be ranked has nulls, and the reason in ``ranker_error``.

    Attributes:
        model: what ``ranker.load`` reads.
        options: those of ``ranker.load``.
    """

    model: str
    options: dict[str, Any] = {}
    _scorer: BatchScorer | None = PrivateAttr(None)

    @property
    def inputs(self) -> "StepColumns":  # type: ignore[no-any-unimported]
        """Columns that are read."""
        return ["input", "candidates"]

    @property
    def outputs(self) -> "StepColumns":  # type: ignore[no-any-unimported]
        """Columns that are added."""
        return ["ranks", "ranked_candidates", "ratings", "model_name", "ranker_error"]

    def load(self) -> None:
        """Check the model's file; it is opened when the first rows come."""
        super().load()
        self._scorer = BatchScorer(self.model, columns={"prompt": "input"}, **self.options)

    def process(self, inputs: StepInput) -> "StepOutput":  # type: ignore[no-any-unimported]
        """Yields the rows with their columns.

        Raises:
            RuntimeError: the step was not loaded.
        """
        if self._scorer is None:
            raise RuntimeError("call load() before process()")
        columns = self._scorer({name: [row[name] for row in inputs] for name in self.inputs})
        for number, row in enumerate(inputs):
            order = columns["ranker_order"][number]
            row["ranks"] = columns["ranker_ranks"][number]
            row["ranked_candidates"] = None if order is None else [row["candidates"][i] for i in order]
            row["ratings"] = columns["ranker_scores"][number]
            row["ranker_error"] = columns["ranker_error"][number]
            row["model_name"] = self.model
        yield inputs
