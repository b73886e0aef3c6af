"""The two stages of ArmoRM against independent formulas."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from ranker.config import load_config
from ranker.errors import ConfigError
from ranker.training.stages.gating import ALPHAS, PENALTIES, decorrelation, ridge
from ranker.training.train import train
from tests.conftest import ROOT
from tests.models.test_reward import save_backbone


def test_nine_penalties_and_the_published_steps():
    assert ALPHAS == (1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100, 1000, 10000)
    assert PENALTIES[:9] == (0, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2)
    assert PENALTIES[-1] == 0.95


def test_ridge_is_the_closed_form_of_the_best_penalty_and_skips_missing_labels():
    from sklearn.model_selection import train_test_split

    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 5))
    y = np.stack([x @ rng.standard_normal(5) + 0.1 * rng.standard_normal(80) for _ in range(2)], axis=1)
    y[:30, 1] = np.nan
    got = ridge(x, y)
    for aspect in range(2):
        known = ~np.isnan(y[:, aspect])
        a, b, c, d = train_test_split(x[known], y[known, aspect], test_size=0.2, random_state=0)
        best = min(
            (np.linalg.solve(a.T @ a + alpha * np.eye(5), a.T @ c) for alpha in ALPHAS),
            key=lambda w: ((b @ w - d) ** 2).mean(),
        )
        np.testing.assert_allclose(got[aspect], best, atol=1e-8)
    with pytest.raises(ConfigError, match="aspect 0 has 5 labels"):
        ridge(x[:5], y[:5])


def test_verbosity_is_taken_out_of_the_other_aspects():
    rng = np.random.default_rng(0)
    length = rng.standard_normal(500)
    aspects = np.stack([0.3 * length + rng.standard_normal(500), rng.standard_normal(500), length], axis=1)
    transform = decorrelation(aspects, 2, 0.03)
    assert spearmanr(aspects[:, 0], length).statistic > 0.2
    after = aspects @ transform
    assert spearmanr(after[:, 0], length).statistic <= 0.03
    assert -transform[2, 0] in PENALTIES
    np.testing.assert_array_equal(transform[:2, :2], np.eye(2))
    np.testing.assert_array_equal(after[:, 2], 0)


def test_labels_with_other_names_are_refused(tmp_path):
    backbone = save_backbone(tmp_path / "backbone", "llama")
    config = load_config(
        "armorm",
        [
            f"output_dir={tmp_path / 'run'}",
            f"model.name_or_path={backbone}",
            "model.max_length=128",
            "data.max_train_samples=4",
            "model.aspects=[truth, style]",
            f"data.aspects=[{ROOT / 'data' / 'train.jsonl'}]",
            f"data.train=[{ROOT / 'data' / 'train.jsonl'}]",
            f"data.validation=[{ROOT / 'data' / 'validation.jsonl'}]",
        ],
    )
    with pytest.raises(ConfigError, match="has labels concision, correctness, format.*expected some of style, truth"):
        train(config)


def test_rows_with_some_of_the_aspects_are_enough(tmp_path):
    """Several datasets with labels of their own, as ArmoRM's."""
    import json
    import math

    from ranker.training.rows import load_aspects

    rows = [{"prompt": f"p {i}", "response": "r", "scores": {"a": i} if i % 2 else {"b": i}} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = load_config(
        "armorm",
        ["model.aspects=[a, b, c]", f"data.aspects=[{tmp_path / 'rows.jsonl'}]", "data.aspect_columns={}"],
    )
    loaded = load_aspects(config, config.model.aspects, [])
    assert all(row.tasks == ("a", "b", "c") for row in loaded)
    assert [loaded[1].scores[0][0], loaded[2].scores[0][1]] == [1, 2]
    assert all(math.isnan(row.scores[0][2]) for row in loaded)
