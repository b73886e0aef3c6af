"""Records and what they say of their labels."""

import math
import pickle

import pytest

from ranker.errors import DataError
from ranker.records import BadRow, Group, Preference, subset_of

NAN = math.nan


def ranked(*scores, **values):
    return Preference("p", tuple("abcdef"[: len(scores)]), tuple((float(score),) for score in scores), **values)


def test_pairs_are_all_comparisons_in_order():
    assert ranked(2, 1, 3).pairs() == [(0, 1, (1.0,)), (0, 2, (0.0,)), (1, 2, (0.0,))]


def test_equal_scores_are_a_tie():
    assert ranked(1, 1).pairs() == [(0, 1, (0.5,))]


@pytest.mark.parametrize("scores", [(NAN, 1), (1, NAN), (NAN, NAN)])
def test_a_missing_score_is_a_missing_target(scores):
    ((_, _, (target,)),) = ranked(*scores).pairs()
    assert math.isnan(target)


def test_pairs_have_a_target_per_task():
    row = Preference("p", ("a", "b"), ((1.0, 0.0), (0.0, 1.0)))
    assert row.pairs() == [(0, 1, (1.0, 0.0))]


def test_a_label_is_the_target_of_its_pair():
    assert ranked(1, 0, label=0.7).pairs() == [(0, 1, (0.7,))]


@pytest.mark.parametrize("scores", [(), (1,)])
def test_fewer_than_two_candidates_have_no_pairs(scores):
    assert ranked(*scores).pairs() == []


def test_labels_are_the_scores():
    assert ranked(2, 1, 3).labels() == ((2.0,), (1.0,), (3.0,))


def test_labels_of_a_pair_are_the_probability_that_each_is_better():
    assert ranked(1, 0, label=0.75).labels() == ((0.75,), (0.25,))


def test_a_group_is_the_row_without_labels():
    assert ranked(1, 0, id="x").group == Group("p", ("a", "b"))


def test_a_subset_has_the_chosen_candidates_in_the_chosen_order():
    row = ranked(2, 1, 3, kinds=("x", "y", "z"), spans=(((0, 1),), (), ()), id="7", subset="s", tasks=("t",))
    chosen = subset_of(row, [2, 0])
    assert chosen.candidates == ("c", "a")
    assert chosen.scores == ((3.0,), (2.0,))
    assert chosen.kinds == ("z", "x")
    assert chosen.spans == ((), ((0, 1),))
    assert (chosen.id, chosen.subset, chosen.tasks) == ("7", "s", ("t",))


def test_a_subset_of_a_row_without_kinds_and_spans_has_none():
    chosen = subset_of(ranked(2, 1, 3), [1])
    assert (chosen.kinds, chosen.spans) == ((), ())


def test_a_subset_of_a_labelled_pair_is_the_pair():
    row = ranked(1, 0, label=0.7)
    assert subset_of(row, [0, 1]) is row


@pytest.mark.parametrize("chosen", [[1, 0], [0]])
def test_a_labelled_pair_in_another_order_is_refused(chosen):
    with pytest.raises(ValueError, match=r"a pair with label 0\.7 keeps its two candidates in order"):
        subset_of(ranked(1, 0, label=0.7), chosen)


def test_a_bad_row_is_its_error_and_back():
    row = BadRow("rows.jsonl:3", "prompt", "expected text", "{broken")
    assert BadRow.of(row.error) == row
    assert isinstance(row.error, DataError)


def test_a_bad_row_says_where_which_field_and_why():
    assert str(BadRow("rows.jsonl:3", "prompt", "expected text")) == "rows.jsonl:3: field 'prompt': expected text"


def test_a_bad_row_and_its_error_are_the_same_after_pickling():
    row = BadRow("rows.jsonl:3", "prompt", "expected text", "{broken")
    assert pickle.loads(pickle.dumps(row)) == row
    assert BadRow.of(pickle.loads(pickle.dumps(row.error))) == row
