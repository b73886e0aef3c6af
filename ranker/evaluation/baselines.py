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
        ValueError: no word occurs twice, or all comparisons have one winner.
    """
    text = require("sklearn.feature_extraction.text")
    linear = require("sklearn.linear_model")
    texts = [c for p in train for c in p.candidates]
    number = {answer: place for place, answer in enumerate(dict.fromkeys(texts))}
    words = text.CountVectorizer(ngram_range=(1, 2), dtype=np.float64)
    counts = words.fit_transform(number)  # every distinct answer is read once
    places = np.array([number[answer] for answer in texts])
    kept = np.bincount(counts[places].indices, minlength=counts.shape[1]) >= MIN_COUNT
    if not kept.any():
        raise ValueError(f"no word occurs in {MIN_COUNT} training answers")
    weighting = text.TfidfTransformer(sublinear_tf=True).fit(counts[places][:, kept])

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
    features = weighting.transform(counts[:, kept])
    model = linear.LogisticRegression(fit_intercept=False, max_iter=1000)
    model.fit(features[places[left]] - features[places[right]], targets)
    asked = list(dict.fromkeys(c for p in test for c in p.candidates))
    scores = weighting.transform(words.transform(asked)[:, kept]) @ model.coef_[0]
    score = dict(zip(asked, scores.tolist(), strict=True))
    return by_score(test, [[score[c] for c in p.candidates] for p in test])
