"""The encoder recipes learn: held-out accuracy on the sample significantly above every baseline."""

import pytest

from ranker.config import load_config
from ranker.data.load import load_preferences
from ranker.evaluation.run import evaluate
from ranker.training.run import train
from tests.conftest import ROOT

ENCODERS = ("pairrm", "listwise", "encoder-bt", "encoder-regress", "encoder-classify", "encoder-classify-pooled")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ENCODERS)
def test_held_out_accuracy_is_above_the_baselines(recipe, tmp_path):
    config = load_config(
        recipe,
        [
            f"output_dir={tmp_path}",
            f"data.train=[{ROOT / 'data' / 'train.jsonl'}]",
            f"data.validation=[{ROOT / 'data' / 'validation.jsonl'}]",
            "data.limit=800",
            "data.validation_limit=32",
            "training.tensorboard=false",
            "training.evaluations=1",
        ],
    )
    trained = train(config)
    test = load_preferences([str(ROOT / "data" / "validation.jsonl")]).preferences[32:]
    report = evaluate(trained.scorer, test, train=trained.train).report
    highest = max(baseline["high"] for baseline in report["baselines"].values())
    assert report["accuracy"]["low"] > highest, report["accuracy"]
