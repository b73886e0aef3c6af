import numpy as np
import pytest

from ranker.errors import ConfigError
from ranker.ranking.tournament import WINDOW, Played, play, ranked, with_reference
from ranker.records import Group
from ranker.scoring.protocol import GroupScores, failed
from tests.support.scorers import info_of


class Lengths:
    """Prefers longer answers, without noise; answers of 99 letters fail."""

    info = info_of(scores_are_relative=True)

    def __init__(self):
        self.calls = []

    def score(self, groups, *, preserve_order=False):
        self.calls.append(len(groups))
        return [self.result(g) for g in groups]

    def result(self, pair):
        if any(len(c) == 99 for c in pair.candidates):
            return failed(pair, "it is too long")
        lengths = np.array([len(c) for c in pair.candidates], np.float32)
        return GroupScores(lengths, lengths == 7, prompt_truncated=bool((lengths == 7).any()))


def group(*lengths):
    return Group("p", tuple("x" * length for length in lengths))


def test_rounds_of_all_groups_are_one_batch():
    scorer = Lengths()
    groups = [group(3, 1, 2), group(5), group(4, 9), group(*range(1, 9)), group()]
    ranking = play(scorer, groups, schedule="knockout")
    assert scorer.calls == [1 + 1 + 4, 1 + 2, 1]
    assert [t.rounds for t in ranking] == [2, 0, 1, 3, 0]
    assert [t.ranking.order[0] for t in ranking if len(t.seen)] == [0, 1, 7]


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
    with pytest.raises(ValueError, match="could not be compared: it is too long"):
        _ = bad.ranking
    assert good.ranking.ranks.tolist() == [1, 3, 2]


def test_the_budget_decides():
    for n, budget, most in ((8, None, 28), (8, 28, 28), (8, 27, 27), (8, 7, 7), (64, None, 384), (64, 63, 63)):
        (ranking,) = play(Lengths(), [group(*range(1, n + 1))], budget=budget)
        assert len(ranking.seen) <= most
        assert ranking.ranking.order[0] == n - 1
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


def test_comparisons_that_depend_on_the_order_are_counted():
    class Flipping(Lengths):
        def result(self, pair):
            ranking = super().result(pair)
            flips = int(any(len(c) == 3 for c in pair.candidates))
            return GroupScores(ranking.scores, ranking.truncated, order_flips=flips)

    three, none = play(Flipping(), [group(3, 1, 2, 5), group(4, 5)], schedule="all")
    assert (three.order_flips, none.order_flips) == (3, 0)
    assert ranked(Flipping(), [group(3, 1, 2, 5)], schedule="all")[0].order_flips == 3


def test_confidence_and_cycles_are_of_the_group():
    (ranking,) = play(Lengths(), [group(3, 1, 2)])
    assert ranking.cycles == (0, 1)
    np.testing.assert_allclose(ranking.win_matrix[0, 1], 1 / (1 + np.exp(-2)), rtol=1e-6)
    assert ranking.confidence > 0.99


def test_scores_against_a_reference():
    one, bad, none = with_reference(Lengths(), [group(3, 1), group(2, 99), group()], ["xx", "x", "x"])
    assert one.scores.tolist() == [1, -1]
    assert bad.error == "it is too long"
    assert len(none.scores) == 0


def test_what_was_cut_in_a_comparison_is_known_of_the_group():
    cut, whole = ranked(Lengths(), [group(3, 7, 2), group(3, 1, 2)], schedule="all")
    assert cut.truncated.tolist() == [False, True, False]
    assert cut.prompt_truncated
    assert not whole.truncated.any()
    assert not whole.prompt_truncated


def test_whole_passes_where_nothing_is_said_and_comparisons_where_it_is():
    class Whole(Lengths):
        def score(self, groups, *, preserve_order=False):
            self.calls.append([len(g.candidates) for g in groups])
            lengths = [np.array([len(c) for c in g.candidates], np.float32) for g in groups]
            return [GroupScores(values - values.mean(), np.zeros(len(values), np.bool_)) for values in lengths]

    scorer, groups = Whole(), [group(*range(1, 100)), group(1, 2)]
    large, small = ranked(scorer, groups)
    assert set(scorer.calls[0]) == {WINDOW, 2}
    assert large.scores.argmax() == 98
    assert small.scores.argmax() == 1
    scorer.info = info_of()
    ranked(scorer, groups)
    assert scorer.calls[1] == [99, 2]
    played, _ = ranked(scorer, groups, budget=200)
    assert isinstance(played, Played)
    assert played.comparisons <= 200
    assert played.confidence > 0.5
