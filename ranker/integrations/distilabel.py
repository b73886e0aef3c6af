"""distilabel: a step that ranks groups of any size.

    from ranker.integrations.distilabel import RankerStep

    with Pipeline() as pipeline:
        LoadDataFromDicts(data=rows) >> RankerStep(model="model.onnx", threads=4)

Source: steps/tasks/pair_rm.py of distilabel 1.5.3, whose rows must all have the same number of candidates.
"""

# Annotations are objects here: the library looks for the parameter that is a StepInput.
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilabel.steps import Step, StepInput
from pydantic import PrivateAttr, field_validator

from ranker.batch_scorer import RESULTS, BatchScorer
from ranker.errors import ConfigError
from ranker.integrations.arguments import add_columns, check_options, load_batch_scorer
from ranker.loading import Ranker

if TYPE_CHECKING:
    from distilabel.typing import StepColumns, StepOutput


class RankerStep(Step):  # type: ignore[misc, no-any-unimported]
    """Ranks each row's candidates.

    The columns of ``BatchScorer`` are added: ``ranker_scores`` (raw logits) and ``ranker_ranks`` (1 is best) in the
    order of the candidates, ``ranker_order`` (indices, best first), and so on. A row that cannot be ranked has nulls,
    and the reason in ``ranker_error``.

    Attributes:
        model: what ``ranker.load`` reads. A loaded model is refused, because steps are sent to other processes.
        columns: ``{"prompt": NAME, "candidates": NAME}``; default those of the library's ``PairRM``, ``input`` and
            ``candidates``.
        prefix: of the columns that are added.
        options: those of ``ranker.load``; each may be given as a keyword argument instead.

    Raises:
        ConfigError: an option that ``ranker.load`` does not have, a column that is not read, or a loaded model.

    Example:
        >>> step = RankerStep(model="model.onnx")
        >>> step.load()
        >>> (rows,) = step.process([{"input": "Say hi", "candidates": ["Hi!", "No."]}])
        >>> rows[0]["ranker_ranks"]
        [1, 2]
    """

    model: str
    columns: dict[str, str] | None = None
    prefix: str = "ranker_"
    options: dict[str, Any] = {}
    _scorer: BatchScorer | None = PrivateAttr(None)

    def __init__(self, **arguments: Any) -> None:
        fields = {name: value for name, value in arguments.items() if name in type(self).model_fields}
        others = {name: value for name, value in arguments.items() if name not in fields}
        options = fields.pop("options", {}) | others
        check_options("RankerStep", None, options)
        super().__init__(**fields, options=options)

    @field_validator("model", mode="before")
    @classmethod
    def _path(cls, model: str | Path | Ranker) -> str:
        if isinstance(model, Ranker):
            raise ConfigError("RankerStep: a step is sent to other processes; give the model's path")
        return str(model)

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str] | None) -> dict[str, str] | None:
        for name in columns or {}:
            if name not in ("prompt", "candidates"):
                raise ConfigError(f"RankerStep: expected columns for 'prompt' and 'candidates', got one for '{name}'")
        return columns

    @property
    def inputs(self) -> "StepColumns":  # type: ignore[no-any-unimported]
        """Columns that are read: the prompt's and the candidates'."""
        return list(self._input_columns.values())

    @property
    def outputs(self) -> "StepColumns":  # type: ignore[no-any-unimported]
        """Columns that are added."""
        return [self.prefix + name for name in RESULTS]

    def load(self) -> None:
        """Check the model's file; it is opened when the first rows come."""
        super().load()
        self._scorer = load_batch_scorer(
            "RankerStep", self.model, self.options, columns=self._input_columns, prefix=self.prefix
        )

    def process(self, inputs: StepInput) -> "StepOutput":  # type: ignore[no-any-unimported]
        """Yields the rows with their columns.

        Raises:
            ConfigError: a row has one of the added columns already.
            RuntimeError: the step was not loaded.
        """
        if self._scorer is None:
            raise RuntimeError("call load() before process()")
        scored = self._scorer({name: [row[name] for row in inputs] for name in self.inputs})
        for number, row in enumerate(inputs):
            add_columns(row, {name: scored[name][number] for name in self.outputs}, self.prefix)
        yield inputs

    @property
    def _input_columns(self) -> dict[str, str]:
        return {"prompt": "input", "candidates": "candidates"} | (self.columns or {})
