"""``CheckpointFormat``: what one producer's checkpoints look like, how they are read, and how they are written.

Recognition and inspection need no torch. ``load`` and ``write`` import it when they are called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ranker.atomic import output_errors
from ranker.checkpoints.detection import Files, candidates_for_head
from ranker.checkpoints.report import CheckpointReport, HeadReport, Problem, Scored
from ranker.errors import CheckpointError

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec, Source

CLASSIFIERS: Final = ("ForSequenceClassification", "ForTokenClassification")
"""Ends of the names of classes that have two outputs where the configuration names no labels."""

LIBRARY_HEADS: Final = ("score", "classifier", "classifier.out_proj")
"""Heads that ``AutoModelForSequenceClassification`` finds."""


@dataclass(frozen=True, slots=True)
class Description:
    """What ``docs/checkpoints.md`` says of a format, in Markdown: one cell of its table each.

    ``converted`` says what ``ranker convert --to`` gives, where the format has no target of its own.
    """

    producers: str
    recognised_by: str
    head: str
    scored: str
    converted: str = "no"


class CheckpointFormat(ABC):
    """A producer's format. Subclasses set the class attributes and override what is different for them.

    Attributes:
        name: how reports and errors call it.
        about: its row in ``docs/checkpoints.md``.
        target: its name in ``ranker convert --to``; None if it is not written. Formats that share a target share
            ``write``.
        native: whether it is ours.
        readable: whether ``ranker.load`` reads it.
        why_not: what to do with one that it does not read.
        head_name: the module that gives the outputs; None if it is called ``score`` (decoders) or ``classifier``.
        other_head: what gives the outputs, of formats whose head is no tensor by itself.
        scored_state: which state the head reads.
        needs_known_backbone: whether ``model_type`` must be known to transformers.
        names_labels: whether the producer writes ``num_labels``; if not, its absence is no fault.
        read_by_transformers: whether transformers scores what is written. It finds the scored token by the padding id,
            so a decoder needs a padding token of its own.
    """

    name: ClassVar[str]
    about: ClassVar[Description]
    target: ClassVar[str | None] = None
    native: ClassVar[bool] = False
    readable: ClassVar[bool] = True
    why_not: ClassVar[str] = "see the formats in docs/checkpoints.md"
    head_name: ClassVar[str | None] = None
    other_head: ClassVar[str | None] = None
    scored_state: ClassVar[Scored] = "unknown"
    needs_known_backbone: ClassVar[bool] = True
    names_labels: ClassVar[bool] = True
    read_by_transformers: ClassVar[bool] = False

    @abstractmethod
    def matches(self, files: Files) -> bool:
        """Whether a folder has this format."""

    def scored(self, files: Files) -> Scored:
        """Which state the head of a folder reads."""
        return self.scored_state

    def expected_head(self, files: Files) -> str:
        """The tensor in which the format keeps its head."""
        library = "score" if files.is_decoder else "classifier"
        return f"{files.config.get('value_head_prefix') or self.head_name or library}.weight"

    def default_outputs(self, files: Files, rows: int) -> int:
        """Outputs that a configuration without labels means; ``rows`` are those that the head has."""
        return 2 if files.architecture.endswith(CLASSIFIERS) else rows

    def head_problems(self, files: Files, head: HeadReport | None) -> list[Problem]:
        """Compare what the configuration says of the head with what is in the files."""
        if not files.shapes:
            return []
        if head is None:
            return [self._missing_head(files)]
        problems = [self._other_outputs(files, head), self.renamed_head_problem(head)]
        return [problem for problem in problems if problem is not None]

    def renamed_head_problem(self, head: HeadReport) -> Problem | None:
        """The problem of a head under another name, for formats that transformers reads too."""
        return None

    def load(self, folder: Path, values: dict[str, Any], report: CheckpointReport) -> LoadSpec:
        """How a folder of this format is read.

        Args:
            folder: the checkpoint.
            values: its ``config.json``.
            report: what ``inspect`` says of it; it has no fatal problem.

        Raises:
            CheckpointError: the format is not read, or not with this backbone, head or tokenizer.
        """
        raise CheckpointError(f"{folder}: format '{self.name}' is not read as a reward model")

    def write(self, source: Source, folder: Path) -> list[str]:
        """Write a loaded model as a folder of this format.

        Returns:
            What could not be kept.

        Raises:
            CheckpointError: the format is not written, or cannot hold the model.
        """
        raise CheckpointError(f"{folder}: format '{self.name}' is not written")

    def _missing_head(self, files: Files) -> Problem:
        candidates = ", ".join(candidates_for_head(files.shapes))
        repair = (
            f"name the head with --head-prefix, or value_head_prefix in config.json; candidates: {candidates}"
            if candidates
            else "use an earlier checkpoint that still has the head; if it has another name, give --head-prefix"
        )
        what = (
            f"the head, '{self.expected_head(files)}', is missing: no head was found, so one would be newly "
            "initialised and the scores noise"
        )
        return Problem(what, repair, fatal=True)

    def _other_outputs(self, files: Files, head: HeadReport) -> Problem | None:
        rows = head.shape[0]
        declared = len(files.labels) or int(files.config.get("num_labels", 0))
        outputs = declared or self.default_outputs(files, rows)
        if outputs == rows:
            return None
        return Problem(
            f"config.json says {outputs} outputs{'' if declared else ' (its default)'}, the head '{head.name}' has "
            f"{rows}: loaded without num_labels={rows} it would be newly initialised",
            'write "id2label": {"0": "reward"} to config.json'
            if rows == 1
            else f"write {rows} labels to id2label in config.json",
            serious=self.names_labels,
        )


class OwnFormat(CheckpointFormat):
    """A folder that this package writes. It says itself how it is read, so it is not inspected first."""

    target: ClassVar[str | None] = "native"
    native: ClassVar[bool] = True
    read_by_transformers: ClassVar[bool] = True

    @abstractmethod
    def load_own(self, folder: Path, values: dict[str, Any]) -> LoadSpec:
        """``load`` without a report.

        Raises:
            CheckpointError: the backbone is not known to transformers.
        """

    def load(self, folder: Path, values: dict[str, Any], report: CheckpointReport) -> LoadSpec:
        """As the folder says."""
        return self.load_own(folder, values)

    def write(self, source: Source, folder: Path) -> list[str]:
        """The model's own files; nothing is lost."""
        with output_errors(folder):
            source.model.save_pretrained(folder, state_dict=dict(source.tensors))
        source.tokenizer.save(folder)
        return []


def rename_to_score(head: HeadReport) -> Problem | None:
    """What transformers does with a head that ``AutoModelForSequenceClassification`` does not find; None if it does."""
    if head.name in LIBRARY_HEADS:
        return None
    return Problem(
        f"the head is named '{head.name}', which AutoModelForSequenceClassification would newly initialise in silence",
        f"rename '{head.name}.weight' to 'score.weight', with id2label of one label",
        serious=False,
    )
