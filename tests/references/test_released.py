"""Released models give the scores that their publishers print; needs the model hub."""

import json
from pathlib import Path

import numpy as np
import pytest

import ranker

RELEASED = json.loads((Path(__file__).parent / "released.json").read_text(encoding="utf-8"))
ACTIVATIONS = {"raw": lambda scores: scores, "sigmoid": lambda scores: 1 / (1 + np.exp(-scores))}
TOLERANCE = {"fp32": 0.01, "fp16": 0.05, "bf16": 0.15}
"""Of raw scores, by the precision in which they were published; a hundredth is the digits of a card."""


@pytest.mark.network
@pytest.mark.parametrize("model", RELEASED, ids=lambda model: model["model"])
def test_scores_are_the_published_ones(model):
    loaded = ranker.load(model["model"], allow_pickle=True, text=model.get("text"))
    prompts, answers = zip(*model["inputs"], strict=True)
    raw = np.array([loaded.score(prompt, [answer])[0] for prompt, answer in zip(prompts, answers, strict=True)])
    scores = ACTIVATIONS[model["activation"]](raw)
    limit = 0.02 if model["activation"] == "sigmoid" else TOLERANCE[model["precision"]]
    np.testing.assert_allclose(scores, model["scores"], rtol=0.02, atol=limit)
