"""All formats, in the order in which they are tried: where two match one folder, the more specific comes first."""

from __future__ import annotations

from typing import Final

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.armorm import ArmoRM
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat, Description
from ranker.checkpoints.formats.cross_encoder import CrossEncoder
from ranker.checkpoints.formats.hf_classifier import HFClassifier
from ranker.checkpoints.formats.language_model import LanguageModel
from ranker.checkpoints.formats.llama_factory import LlamaFactory
from ranker.checkpoints.formats.modular import LogitScore, ModularCrossEncoder
from ranker.checkpoints.formats.openrlhf import OpenRLHF
from ranker.checkpoints.formats.pairrm import PairRM
from ranker.checkpoints.formats.peft_adapter import PeftAdapter
from ranker.checkpoints.formats.ranker_adapter import RankerAdapter
from ranker.checkpoints.formats.ranker_armorm import RankerArmoRM
from ranker.checkpoints.formats.ranker_modules import RankerModules
from ranker.checkpoints.formats.ranker_pairwise import RankerPairwise
from ranker.checkpoints.formats.ranker_pointwise import RankerPointwise
from ranker.checkpoints.formats.ranker_steamshp import RankerSteamSHP
from ranker.checkpoints.formats.steamshp import SteamSHP
from ranker.checkpoints.formats.token_classifier import TokenClassifier
from ranker.checkpoints.formats.trlx import Trlx

FORMATS: Final[tuple[CheckpointFormat, ...]] = (
    RankerAdapter(),
    LlamaFactory(),
    PeftAdapter(),
    RankerPairwise(),
    RankerArmoRM(),
    RankerModules(),
    RankerSteamSHP(),
    RankerPointwise(),
    PairRM(),
    ArmoRM(),
    Trlx(),
    OpenRLHF(),
    TokenClassifier(),
    LogitScore(),
    CrossEncoder(),
    HFClassifier(),
    SteamSHP(),
    ModularCrossEncoder(),
    LanguageModel(),
)


class UnknownFormat(CheckpointFormat):
    """A folder that no format matches. It is inspected all the same: a missing head is named."""

    name = "unknown"
    about = Description("", "no other format matches", "", "unknown")
    readable = False

    def matches(self, files: Files) -> bool:
        """Every folder."""
        return True


UNKNOWN: Final = UnknownFormat()


def _writers() -> dict[str, CheckpointFormat]:
    writers: dict[str, CheckpointFormat] = {}
    for known in FORMATS:
        if known.target is not None:
            writers.setdefault(known.target, known)
    return writers


WRITERS: Final = _writers()
"""The format that writes each target; formats that share a target share ``write``."""

TARGETS: Final[tuple[str, ...]] = ("native", *(target for target in reversed(WRITERS) if target != "native"))
"""What ``ranker convert --to`` takes: our own folder, then the most general format first."""


def recognise(files: Files) -> CheckpointFormat:
    """The format of a folder; ``UNKNOWN`` if no format matches."""
    return next((known for known in FORMATS if known.matches(files)), UNKNOWN)


def by_name(name: str) -> CheckpointFormat:
    """The format that a report names."""
    return next((known for known in FORMATS if known.name == name), UNKNOWN)
