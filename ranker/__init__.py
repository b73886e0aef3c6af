"""Rankers and reward models: train on preferences, export to one file, score without torch.

``ranker.load`` opens a model; the other rooms follow the flow of data: ``records``, ``text``, ``data``, ``models``,
``training``, ``checkpoints``, ``export`` (its files live in the top-level folder ``export/``), ``runtime``,
``evaluation``. Names are resolved on first use, so ``import ranker`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.errors import RankerError
    from ranker.loading import Ranker, load
    from ranker.ranking.ranks import Ranking
    from ranker.records import Group, Message

__version__ = "0.1.0"
__all__ = ["Group", "Message", "Ranker", "RankerError", "Ranking", "load"]

_HOME = {
    "Group": "records",
    "Message": "records",
    "Ranker": "loading",
    "RankerError": "errors",
    "Ranking": "ranking.ranks",
    "load": "loading",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"ranker.{_HOME[name]}"), name)
    raise AttributeError(f"module 'ranker' has no attribute '{name}'")
