"""Baselines that a model must beat: chance, length, and a bag of words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ranker.extras import require
from ranker.metrics import Comparisons, comparisons
from ranker.records import Preference
from ranker.scoring.protocol import GroupScores

MIN_COUNT = 2
"""Least number of documents with a word or word pair that is a feature."""


def by_score(preferences: Sequence[Preference], scores: Sequence[Sequence[float]]) -> Comparisons:
    """Comparisons by one number per candidate."""
    results = [GroupScores(np.array(s, np.float32), np.zeros(len(s), np.bool_)) for s in scores]
    return comparisons(preferences, results)


def random_scores(preferences: Sequence[Preference], seed: int = 0) -> Comparisons:
    """A coin: scores drawn from a seeded normal."""
    rng = np.random.default_rng(seed)
    return by_score(preferences, [rng.standard_normal(len(p.candidates)).tolist() for p in preferences])


def longer_wins(preferences: Sequence[Preference]) -> Comparisons:
    """The number of characters as score."""
    return by_score(preferences, [[float(len(c)) for c in p.candidates] for p in preferences])


def bag_of_words(train: Sequence[Preference], test: Sequence[Preference], *, seed: int = 0) -> Comparisons:
    """Logistic regression on differences of TF-IDF words and word pairs of the answers (scikit-learn).

    It does not read the prompt, so accuracy above 0.5 comes from the answers only.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    text = require("sklearn.feature_extraction.text")
    linear = require("sklearn.linear_model")
    vectorizer = text.TfidfVectorizer(ngram_range=(1, 2), min_df=MIN_COUNT, sublinear_tf=True)
    vectorizer.fit(c for p in train for c in p.candidates)

    start = 0
    left = []
    right = []
    targets = []
    rng = np.random.default_rng(seed)
    for preference in train:
        for i, j, target in preference.pairs():
            if target[0] == target[0] and target[0] != 0.5:
                swap = bool(rng.integers(2))
                left.append(start + (j if swap else i))
                right.append(start + (i if swap else j))
                targets.append((target[0] > 0.5) != swap)
        start += len(preference.candidates)
    features = vectorizer.transform([c for p in train for c in p.candidates])
    model = linear.LogisticRegression(fit_intercept=False, max_iter=1000)
    model.fit(features[left] - features[right], targets)
    weights = model.coef_[0]
    return by_score(test, [(vectorizer.transform(p.candidates) @ weights).tolist() for p in test])
