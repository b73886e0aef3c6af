import numpy as np
import pytest

from ranker.errors import ConfigError
from ranker.ranking.prefilter import GAP, prefiltered
from ranker.ranking.tournament import WINDOW
from ranker.records import Group
from ranker.scoring.protocol import GroupScores, failed
from tests.ranking.test_tournament import Lengths, group
from tests.support.scorers import info_of


class Rough:
    """Knows lengths up to tens."""

    info = info_of()

    def score(self, groups, *, preserve_order=False):
        return [
            failed(g, "no")
            if "y" in g.candidates
            else GroupScores(
                np.array([len(c) // 10 for c in g.candidates], np.float32), np.zeros(len(g.candidates), bool)
            )
            for g in groups
        ]


def test_the_best_are_looked_at_closely_and_the_others_come_after():
    close = Lengths()
    large = group(5, 31, 12, 38, 33, 1, 25)
    result, small, bad, none = prefiltered(
        Rough(), close, [large, group(2, 1), Group("p", ("y", "x")), group()], keep=3, budget=3
    )
    assert np.argsort(-result.scores).tolist()[:4] == [3, 4, 1, 6]
    assert result.scores[1] - result.scores[6] == pytest.approx(GAP)
    assert result.scores[2] - result.scores[0] == 1.0
    assert result.comparisons == 3
    assert small.scores[0] > small.scores[1]
    assert bad.error == "no"
    assert none.error is None
    assert len(none.scores) == 0


def test_what_was_cut_is_known_from_both():
    (result,) = prefiltered(Rough(), Lengths(), [group(7, 3, 2)], keep=2, schedule="all")
    assert result.truncated.tolist() == [True, False, False]


def test_keeping_one_is_no_comparison():
    with pytest.raises(ConfigError, match="at least 2 candidates, got 1"):
        prefiltered(Rough(), Lengths(), [], keep=1)


def test_a_first_model_that_reads_groups_reads_windows():
    sizes = []

    class LoadSpec(Lengths):
        def score(self, groups, *, preserve_order=False):
            sizes.extend(len(g.candidates) for g in groups)
            return super().score(groups)

    prefiltered(LoadSpec(), Lengths(), [group(*range(1, 90))], keep=4)
    assert max(sizes) == WINDOW
