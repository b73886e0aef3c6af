"""Our own SteamSHP: the library's encoder-decoder with our section in ``config.json``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import Description, OwnFormat
from ranker.checkpoints.formats.ranker_pointwise import library_config
from ranker.checkpoints.report import HeadReport, Problem

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec


class RankerSteamSHP(OwnFormat):
    """An encoder-decoder that answers A or B; it has no head of its own."""

    name = "ranker steamshp"
    about = Description(
        producers="`ranker train`, `model.type` `steamshp`",
        recognised_by="`ranker.head` is `answer_token` in `config.json`",
        head="its words A and B",
        scored="first word of the answer",
    )
    scored_state = "answer_token"

    def matches(self, files: Files) -> bool:
        """By our section in its configuration."""
        return (files.config.get("ranker") or {}).get("head") == "answer_token"

    def head_problems(self, files: Files, head: HeadReport | None) -> list[Problem]:
        """None: the word A against the word B needs no head."""
        return []

    def load_own(self, folder: Path, values: dict[str, Any]) -> LoadSpec:
        """The library's model, asked as our section says."""
        from ranker.checkpoints.formats.spec import LoadSpec
        from ranker.models.steamshp import answer_class

        config = library_config(folder, values)
        return LoadSpec(config, answer_class(config))
