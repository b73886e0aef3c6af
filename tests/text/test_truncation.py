"""How texts share the tokens of a row."""

import numpy as np
import pytest

from ranker.text.truncation import split_budget


def test_texts_that_fit_are_kept_whole():
    assert split_budget(100, 50, [20, 20], 10) == (50, [20, 20])


def test_the_prompt_yields_before_an_answer_is_cut():
    assert split_budget(100, 90, [20, 20], 10) == (60, [20, 20])


def test_answers_that_are_too_long_share_what_the_reserve_leaves():
    assert split_budget(100, 90, [80, 80], 10) == (10, [45, 45])


def test_what_a_short_answer_leaves_goes_to_the_longer():
    assert split_budget(100, 90, [10, 200], 10) == (10, [10, 80])


def test_a_prompt_below_the_reserve_leaves_its_rest_to_the_answers():
    assert split_budget(100, 4, [200], 10) == (4, [96])


@pytest.mark.parametrize(("total", "kept"), [(7, 7), (0, 0), (-5, 0)])
def test_a_total_below_the_reserve_is_the_prompts(total, kept):
    assert split_budget(total, 90, [20, 20], 10) == (kept, [0, 0])


def test_tokens_kept_never_exceed_the_total_and_leave_none_unused():
    rng = np.random.default_rng(0)
    for _ in range(300):
        total, prompt = int(rng.integers(20, 100)), int(rng.integers(0, 150))
        answers = rng.integers(0, 100, rng.integers(1, 4)).tolist()
        kept, room = split_budget(total, prompt, answers, 10)
        assert kept + sum(room) <= total
        assert kept >= min(prompt, 10)
        assert all(part <= answer for part, answer in zip(room, answers, strict=True))
        cut = kept < prompt or room != answers
        assert not cut or total - kept - sum(room) < len(answers), "at most the rest of a division is unused"
