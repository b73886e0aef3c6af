import numpy as np
import pytest

from ranker.ranking import windows as stitching
from ranker.records import Group
from ranker.scoring.protocol import GroupScores, failed
from tests.support.scorers import info_of


@pytest.mark.parametrize(("n", "size"), [(1, 4), (4, 4), (5, 4), (17, 4), (64, 8), (9, 2), (10, 3)])
def test_windows_cover_all_and_hang_together(n, size):
    cover = stitching.windows(n, size, np.random.default_rng(0))
    assert {i for part in cover.parts for i in part} == set(range(n))
    assert all(len(part) == len(set(part)) == min(n, size) for part in cover.parts)
    reached, waiting = set(cover.parts[0]), list(cover.parts[1:])
    while joined := [part for part in waiting if reached & set(part)]:
        for part in joined:
            reached |= set(part)
            waiting.remove(part)
    assert reached == set(range(n))


def test_scores_up_to_a_constant_are_stitched_exactly():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=30)
    cover = stitching.windows(30, 8, rng)
    scores = [truth[list(part)] + rng.normal() * 10 for part in cover.parts]
    np.testing.assert_allclose(stitching.stitched(cover, scores), truth - truth.mean(), atol=1e-9)


class Relative:
    """Scores by length, around the group's mean, as exchange between candidates makes them."""

    info = info_of(scores_are_relative=True)

    def __init__(self):
        self.sizes = []

    def score(self, groups, *, preserve_order=False):
        self.sizes += [len(group.candidates) for group in groups]
        return [self._one(group) for group in groups]

    def _one(self, group):
        lengths = np.array([len(c) for c in group.candidates], np.float32)
        if 99 in lengths:
            return failed(group, "broken")
        return GroupScores(lengths - lengths.mean(), lengths > 50)

    def compare(self, pairs):
        raise NotImplementedError


def test_large_groups_are_read_in_windows_and_small_ones_as_they_are():
    scorer = Relative()
    lengths = np.random.default_rng(1).permutation(40) + 20
    large, small = Group("p", tuple("x" * i for i in lengths)), Group("p", ("x", "xxx"))
    big, little = stitching.score(scorer, [large, small], size=10)
    assert max(scorer.sizes) == 10
    np.testing.assert_allclose(big.scores, lengths - lengths.mean(), atol=1e-4)
    np.testing.assert_array_equal(big.truncated, lengths > 50)
    np.testing.assert_allclose(little.scores, [-1, 1])


def test_a_window_that_fails_fails_its_group():
    results = stitching.score(
        Relative(), [Group("p", tuple("x" * i for i in (1, 2, 99, 4, 5))), Group("p", ("x",))], size=2
    )
    assert results[0].error == "broken"
    assert results[1].error is None


def test_a_window_of_one_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        stitching.windows(5, 1, np.random.default_rng(0))
