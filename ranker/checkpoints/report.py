"""What ``inspect`` reports of a checkpoint: typed fields, the table that is printed, and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Scored = Literal["first_token", "mean", "last_token", "last_nonpad", "markers", "answer_token", "unknown"]
"""Which state the head reads. ``last_nonpad`` is the library's rule: the last id that is not the padding id."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check, whether it passed, and what was seen."""

    name: str
    passed: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and the repair.

    ``fatal``: the checkpoint cannot be scored with at all. Not ``serious``: the checkpoint may well be meant so.
    """

    what: str
    repair: str
    fatal: bool = False
    serious: bool = True

    def __str__(self) -> str:
        return f"{self.what}. Repair: {self.repair}"


@dataclass(frozen=True, slots=True)
class HeadReport:
    """The module that gives the outputs: its name, and the shape of its weight (outputs, states)."""

    name: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)}"


@dataclass(frozen=True, slots=True)
class TokenizerReport:
    """Padding and end of text as the tokenizer names them, its number of ids, and the rows of the embeddings."""

    pad: str | None
    eos: str | None
    pad_is_eos: bool
    ids: int
    embeddings: int | None

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """What a checkpoint is, from its files; ``str(report)`` is the table that ``ranker inspect`` prints.

    Attributes:
        path: the folder, or the name on the hub.
        format: the name of its format, "unknown" where none is recognised.
        native: whether the format is ours.
        readable: whether ``ranker.load`` reads the format.
        backbone: the backbone's family (``model_type``).
        head: the head's name and shape; None if the checkpoint has no head.
        outputs: rows of the head.
        labels: names of the outputs in ``config.json``.
        scored: which state the head reads.
        dtypes: number of tensors by their type, as the files spell it.
        parameters: number of values in all tensors.
        shards: number of files with weights.
        normalisation: ``mean`` and ``std`` of the scores; None if the checkpoint has neither.
        tokenizer: padding, end of text and size of the vocabulary.
        example: a question and its answer as the model reads them; None where the checkpoint was not asked to load.
        date: the date that the chat template writes; None where it writes none.
        other_head: what gives the outputs where it is no tensor of these files by itself.
        tensors: shapes by name.
        problems: what is wrong, each with its repair.
    """

    path: str
    format: str
    native: bool
    readable: bool
    backbone: str | None
    head: HeadReport | None
    outputs: int | None
    labels: tuple[str, ...]
    scored: Scored
    dtypes: Mapping[str, int]
    parameters: int
    shards: int
    normalisation: Mapping[str, float] | None
    tokenizer: TokenizerReport
    tensors: Mapping[str, tuple[int, ...]] = field(repr=False)
    problems: tuple[Problem, ...] = ()
    example: str | None = None
    date: str | None = None
    other_head: str | None = None

    def rows(self) -> list[tuple[str, str]]:
        """Names and values of the printed table; problems come last, each with its repair."""
        dtypes = ", ".join(f"{count} tensors {name}" for name, count in self.dtypes.items()) or "no tensors"
        labels = ", ".join(self.labels) or "unnamed"
        return [
            ("format", f"{self.format} ({'' if self.readable else 'not '}read by ranker.load)"),
            ("backbone", str(self.backbone)),
            ("head", (self.other_head or "none") if self.head is None else str(self.head)),
            *([] if self.other_head and self.head is None else [("outputs", f"{self.outputs} ({labels})")]),
            ("head reads", self.scored),
            ("parameters", f"{self.parameters:,} in {self.shards} files ({dtypes})"),
            ("normalisation", str(dict(self.normalisation) if self.normalisation else "none")),
            ("tokenizer", str(self.tokenizer)),
            *([] if self.example is None else [("reads", repr(self.example))]),
            *([] if self.date is None else [("date", f"{self.date} (the chat template writes it)")]),
            *(("problem", str(problem)) for problem in self.problems),
            *([] if self.problems else [("problems", "none")]),
        ]

    def __str__(self) -> str:
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        return "\n".join([self.path, *(f"  {name:<{width}}  {value}" for name, value in rows)])

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON has them. ``tensors`` may hold thousands of names; ``ranker inspect --json`` omits it."""
        return {
            "path": self.path,
            "format": self.format,
            "native": self.native,
            "readable": self.readable,
            "backbone": self.backbone,
            "head": None if self.head is None else {"name": self.head.name, "shape": list(self.head.shape)},
            "other_head": self.other_head,
            "outputs": self.outputs,
            "labels": list(self.labels),
            "scored": self.scored,
            "dtypes": dict(self.dtypes),
            "parameters": self.parameters,
            "shards": self.shards,
            "normalisation": None if self.normalisation is None else dict(self.normalisation),
            "tokenizer": asdict(self.tokenizer),
            "example": self.example,
            "date": self.date,
            "tensors": dict(self.tensors),
            "problems": [asdict(problem) for problem in self.problems],
        }
