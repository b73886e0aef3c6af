import numpy as np
import pytest

from ranker.errors import ConfigError
from ranker.ranking.tournament import WINDOW, Played, play, ranked, with_reference
from ranker.records import Group
from ranker.scorer import GroupScores, failed


class Lengths:
    """Prefers longer answers, without noise; answers of 99 letters fail."""

    pairwise = True

    def __init__(self):
        self.calls = []

    def compare(self, pairs):
        self.calls.append(len(pairs))
        logits = [len(p.candidates[0]) - len(p.candidates[1]) for p in pairs]
        bad = [any(len(c) == 99 for c in p.candidates) for p in pairs]
        return np.where(bad, np.nan, np.array(logits, np.float32))

    def score(self, groups, *, as_given=False):
        return [failed(group, "not asked") for group in groups]


def group(*lengths):
    return Group("p", tuple("x" * length for length in lengths))


def test_rounds_of_all_groups_are_one_batch():
    scorer = Lengths()
    groups = [group(3, 1, 2), group(5), group(4, 9), group(*range(1, 9)), group()]
    found = play(scorer, groups, schedule="knockout")
    assert scorer.calls == [1 + 1 + 4, 1 + 2, 1]
    assert [t.rounds for t in found] == [2, 0, 1, 3, 0]
    assert [t.ranking.order[0] for t in found if len(t.seen)] == [0, 1, 7]


def test_a_group_is_ranked_alike_whatever_its_company():
    groups = [group(3, 1, 2, 7, 5), group(*range(1, 30))]
    together = play(Lengths(), groups, budget=40)
    for one, alone in zip(together, (play(Lengths(), [g], budget=40)[0] for g in groups), strict=True):
        np.testing.assert_array_equal(one.aggregate.scores, alone.aggregate.scores)
    assert together[0].ranking.order.tolist() == [3, 4, 0, 2, 1]


def test_a_pair_that_fails_ends_its_group_alone():
    bad, good = play(Lengths(), [group(3, 99, 2), group(3, 1, 2)])
    assert bad.error is not None
    assert "and 1 could not be compared" in bad.error or "candidates 1 and" in bad.error
    with pytest.raises(ValueError, match="could not be compared"):
        _ = bad.ranking
    assert good.ranking.ranks.tolist() == [1, 3, 2]


def test_the_budget_decides():
    for n, budget, most in ((8, None, 28), (8, 28, 28), (8, 27, 27), (8, 7, 7), (64, None, 384), (64, 63, 63)):
        (found,) = play(Lengths(), [group(*range(1, n + 1))], budget=budget)
        assert len(found.seen) <= most
        assert found.ranking.order[0] == n - 1
    large, small = play(Lengths(), [group(*range(1, 9)), group(1, 2)], budget=6)
    assert large.error == "a budget of 6 comparisons is too small for 8 candidates; it takes at least 7"
    assert small.error is None


def test_misused_settings_are_said():
    with pytest.raises(ConfigError, match="got 'knockuot'; did you mean 'knockout'"):
        play(Lengths(), [group(1, 2)], schedule="knockuot")
    with pytest.raises(ConfigError, match="got 'elo'"):
        play(Lengths(), [group(1, 2)], aggregator="elo")
    with pytest.raises(ConfigError, match="schedule 'swiss' has its own number of comparisons"):
        play(Lengths(), [group(1, 2)], schedule="swiss", budget=10)


def test_confidence_and_cycles_are_of_the_group():
    (found,) = play(Lengths(), [group(3, 1, 2)])
    assert found.cycles == (0, 1)
    assert found.confidence > 0.99


def test_scores_against_a_reference():
    class Scoring(Lengths):
        def score(self, groups, *, as_given=False):
            margins = self.compare(groups)
            return [
                failed(g, "broken") if np.isnan(m) else GroupScores(np.array([m, 0], np.float32), np.zeros(2, np.bool_))
                for g, m in zip(groups, margins, strict=True)
            ]

    one, bad, none = with_reference(Scoring(), [group(3, 1), group(2, 99), group()], ["xx", "x", "x"])
    assert one.scores.tolist() == [1, -1]
    assert bad.error == "broken"
    assert len(none.scores) == 0


def test_whole_passes_where_nothing_is_said_and_comparisons_where_it_is():
    class Whole(Lengths):
        def score(self, groups, *, as_given=False):
            self.calls.append([len(g.candidates) for g in groups])
            lengths = [np.array([len(c) for c in g.candidates], np.float32) for g in groups]
            return [GroupScores(own - own.mean(), np.zeros(len(own), np.bool_)) for own in lengths]

    scorer, groups = Whole(), [group(*range(1, 100)), group(1, 2)]
    large, small = ranked(scorer, groups)
    assert set(scorer.calls[0]) == {WINDOW, 2}
    assert large.scores.argmax() == 98
    assert small.scores.argmax() == 1
    scorer.pairwise = False
    ranked(scorer, groups)
    assert scorer.calls[1] == [99, 2]
    played, _ = ranked(scorer, groups, budget=200)
    assert isinstance(played, Played)
    assert played.comparisons <= 200
    assert played.confidence > 0.5
