import numpy as np
import pytest

from ranker.errors import ConfigError
from ranker.integrations.trl import PairRMJudge
from ranker.loading import Ranker
from ranker.models.torch_scorer import TorchScorer
from tests.conftest import tiny
from tests.ranking.test_tournament import Lengths


class Comparing(Lengths):
    """Longer answers win; what is read first gains a little."""

    bias = 0.0

    def compare(self, pairs):
        results = self.score(pairs)
        return np.array([r.scores[0] - r.scores[1] + self.bias for r in results], np.float32)


def test_a_judge_says_the_better_completions_index():
    judge = PairRMJudge(Ranker(Comparing()))
    pairs = [["long", "s"], ["s", "long"], ["x" * 99, "s"]]
    for shuffle in (True, False):
        assert judge.judge(["a", "b", "c"], pairs, shuffle) == [0, 1, -1]
    probabilities = judge.judge(["a", "b", "c"], pairs, return_scores=True, temperature=2.0)
    assert probabilities[:2] == pytest.approx([1 / (1 + np.exp(-3)), 1 / (1 + np.exp(3))])
    assert np.isnan(probabilities[2])


def test_shuffling_evens_out_a_liking_for_the_first_place():
    scorer = Comparing()
    scorer.bias = 0.5
    judge = PairRMJudge(Ranker(scorer))
    pairs = [["x", "y"]] * 400
    assert judge.judge(["p"] * 400, pairs, False) == [0] * 400
    assert 160 < sum(judge.judge(["p"] * 400, pairs)) < 240


def test_a_real_model_judges_as_it_compares():
    ranker = Ranker(TorchScorer(*tiny("ordered_pair")))
    pairs = [["a saw", "hammer b"], ["pear", "c d e"]]
    expected = [int(ranker.compare("p", *pair) < 0) for pair in pairs]
    assert PairRMJudge(ranker).judge(["p", "p"], pairs) == expected


def test_other_than_two_completions_are_refused():
    with pytest.raises(ConfigError, match="exactly two completions"):
        PairRMJudge(Ranker(Comparing())).judge(["p"], [["a", "b", "c"]])
