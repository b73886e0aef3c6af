"""A language model without a head: only a question that it answers in words makes a score of it."""

from __future__ import annotations

from ranker.checkpoints.detection import Files, candidates_for_head
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat, Description
from ranker.checkpoints.report import HeadReport, Problem


class LanguageModel(CheckpointFormat):
    """Named, so that ``ranker inspect`` says what it is; not read."""

    name = "language model without a head"
    about = Description(
        producers="any language model",
        recognised_by="class name ends with `ForCausalLM` or `LMHeadModel`",
        head="none",
        scored="not read",
    )
    readable = False
    why_not = (
        "nothing in it says how it would score. If it is a reranker that answers yes or no, or a judge that answers A "
        "or B, name its text: text={'format': 'qwen3-reranker'}, 'mxbai-rerank-v2', 'bge-reranker-gemma' or "
        "'rlhflow-pair' (--text format=...)"
    )

    def head_problems(self, files: Files, head: HeadReport | None) -> list[Problem]:
        """Those of a head under another name; a language model that has none misses none."""
        return super().head_problems(files, head) if candidates_for_head(files.shapes) else []

    def matches(self, files: Files) -> bool:
        """By the class that the configuration names."""
        return files.architecture.endswith(("ForCausalLM", "LMHeadModel"))
