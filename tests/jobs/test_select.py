"""Which scored rows are written, and in which form."""

from typing import get_args

import numpy as np
import pytest

from ranker.errors import ConfigError
from ranker.jobs.keep import NAMES
from ranker.jobs.select import OUTPUTS, OutputRows, Selection, numbers, selector
from ranker.records import Group, Message, Turns
from ranker.scoring.protocol import GroupScores

ROW = {"prompt": "q", "candidates": ["a", "bb", "ccc"]}
GROUP = Group("q", ("a", "bb", "ccc"))


def scored(*scores, truncated=None):
    flags = np.zeros(len(scores), bool) if truncated is None else np.array(truncated)
    return GroupScores(np.array(scores, np.float32), flags)


def selected(scores, group=GROUP, row=ROW, **options):
    return selector(Selection(**options))(row, group, scored(*scores))


def test_every_kind_of_output_has_a_function():
    assert set(OUTPUTS) == set(get_args(OutputRows))


def test_all_rows_are_kept_as_they_are_without_a_rule():
    assert selected((1, 3, 2)) is ROW


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("score > 2", True),
        ("score > 3", False),
        ("margin >= 1", True),
        ("characters == 2 and not truncated", True),
        ("candidates < 3", False),
    ],
)
def test_a_rule_keeps_rows_by_their_numbers(rule, kept):
    assert (selected((1, 3, 2), keep=rule) is not None) is kept


def test_an_invalid_rule_is_refused_before_a_row_is_read():
    with pytest.raises(ConfigError, match="--keep 'scroe > 1'"):
        selector(Selection(keep="scroe > 1"))


def test_the_best_answer_is_a_column():
    assert selected((1, 3, 2), output_rows="best") == {**ROW, "best": "bb"}


def test_the_best_of_equals_is_the_first():
    assert selected((3, 3, 2), output_rows="best")["best"] == "a"


def test_a_column_named_best_is_kept_under_another_name():
    assert selected((1, 3, 2), row={"best": "mine"}, output_rows="best") == {"input_best": "mine", "best": "bb"}


def test_a_row_without_candidates_has_no_best():
    assert selected((), Group("q", ()), output_rows="best") is None


def test_a_pair_is_the_best_and_the_worst_answer():
    assert selected((1, 3, 2), output_rows="pairs") == {
        "prompt": "q",
        "chosen": "bb",
        "rejected": "a",
        "margin": 2.0,
    }


def test_a_pair_with_a_prompt_of_messages_is_messages():
    group = Group((Message("system", "s"), Message("user", "q")), ("a", "b"))
    row = selected((1, 2), group, output_rows="pairs")
    assert row["prompt"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    assert (row["chosen"], row["rejected"]) == (
        [{"role": "assistant", "content": "b"}],
        [{"role": "assistant", "content": "a"}],
    )


def test_an_answer_of_several_messages_is_written_as_messages():
    messages = (Message("assistant", "Where?"), Message("user", "Rome"), Message("assistant", "Sun."))
    group = Group("q", (Turns(messages), "b"))
    row = selected((2, 1), group, output_rows="pairs")
    assert row["prompt"] == [{"role": "user", "content": "q"}]
    assert row["chosen"] == [message.to_dict() for message in messages]
    assert selected((2, 1), group, output_rows="best")["best"] == row["chosen"]


@pytest.mark.parametrize(("scores", "candidates"), [((1,), ("a",)), ((), ()), ((2, 1), ("a", "a"))])
def test_a_row_without_two_answers_has_no_pair(scores, candidates):
    assert selected(scores, Group("q", candidates), output_rows="pairs") is None


@pytest.mark.parametrize("output_rows", ["rows", "best"])
def test_a_tie_of_the_best_two_is_dropped(output_rows):
    assert selected((3, 3, 2), output_rows=output_rows, drop_ties=True) is None
    assert selected((3, 2, 2), output_rows=output_rows, drop_ties=True) is not None


def test_a_tie_of_best_and_worst_is_dropped_from_pairs():
    assert selected((2, 2, 2), output_rows="pairs", drop_ties=True) is None
    assert selected((3, 3, 2), output_rows="pairs", drop_ties=True) is not None


def test_a_lone_answer_is_no_tie():
    assert selected((3,), Group("q", ("a",)), drop_ties=True) is ROW


def test_numbers_are_those_of_the_best_answer():
    values = numbers(GROUP, scored(1, 3, 2, truncated=[True, False, True]))
    assert values == {
        "score": 3.0,
        "margin": 1.0,
        "truncated": False,
        "prompt_truncated": False,
        "candidates": 3,
        "characters": 2,
    }


def test_numbers_of_a_row_without_candidates_are_missing():
    values = numbers(Group("q", ()), scored())
    assert values == {
        "score": None,
        "margin": None,
        "truncated": None,
        "prompt_truncated": None,
        "candidates": 0,
        "characters": None,
    }


def test_numbers_are_what_rules_may_name():
    assert set(numbers(GROUP, scored(1, 2, 3))) == set(NAMES)


def test_facts_are_what_a_plan_records():
    assert Selection(keep="score > 1", output_rows="best", drop_ties=True).facts() == {
        "keep": "score > 1",
        "make": "best",
        "drop_ties": True,
    }
