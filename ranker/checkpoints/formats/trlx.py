"""trlx's reward model: a raw state dict with ``v_head.weight``, beside it the base model's configuration.

In trlx padding is the end-of-text token, and the token before the first padding is scored: the answer's last token.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ranker.checkpoints.formats.classifiers import classifier
from ranker.checkpoints.formats.spec import Facts, LoadSpec
from ranker.checkpoints.weights import KeyMap

HEAD: Final = "v_head"


def read(folder: Path, values: dict[str, Any], facts: Facts) -> LoadSpec:
    """The state dict on the base model's configuration, read at the answer's last token."""
    spec = classifier(folder, values, facts)
    text = spec.config.ranker["text"]
    ends = spec.config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), spec.config.pad_token_id}
    while text["suffix"] and text["suffix"][-1] in ends:
        text["suffix"] = text["suffix"][:-1]
    return replace(spec, names=KeyMap({HEAD: "score"}, ("lm_head.",)))
