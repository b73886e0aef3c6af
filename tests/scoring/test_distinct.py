"""Each distinct answer is read once, where its score does not depend on its company."""

import random

import numpy as np
import pytest

from ranker.loading import load
from ranker.models.pointwise import from_backbone
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group, Message
from ranker.scoring.distinct import LARGEST, as_they_come, count_reads, once, once_per_group
from ranker.scoring.executor import score_groups
from tests.conftest import tiny
from tests.models.test_reward import save_backbone
from tests.scoring.test_executor import has_bad, pipeline
from tests.support.graphs import SumOfTokens

PAIRS = [Group("p", ("b", "a")), Group("q", ("a", "c")), Group("p", ("c", "b")), Group("p", ("b", "b"))]


def texts(reading, number):
    """What is read for a group, by its places."""
    return tuple(reading.groups[group].candidates[i] for group, i in reading.places[number])


@pytest.mark.parametrize("read", [as_they_come, once_per_group, once])
def test_every_candidate_has_its_place(read):
    reading = read(PAIRS)
    for number, group in enumerate(PAIRS):
        assert texts(reading, number) == group.candidates
        assert {reading.groups[g].prompt for g, _ in reading.places[number]} == {group.prompt}


def test_each_answer_to_a_prompt_is_read_once():
    assert once(PAIRS).groups == [Group("p", ("a", "b", "c")), Group("q", ("a", "c"))]
    assert once_per_group(PAIRS).groups[3] == Group("p", ("b",))
    assert as_they_come(PAIRS).groups == PAIRS


def test_many_answers_to_a_prompt_are_several_groups():
    many = [Group("p", tuple(f"{n:04}" for n in range(start, start + 100))) for start in (0, 50)]
    reading = once([*many, Group("q", ("x",))])
    assert [len(group.candidates) for group in reading.groups] == [LARGEST, LARGEST, 150 - 2 * LARGEST, 1]
    assert [texts(reading, number) for number in range(2)] == [group.candidates for group in many]


def test_a_prompt_may_be_a_list_of_messages():
    """The records say a tuple; callers give lists, too."""
    as_list, as_tuple = [Message("user", "hi")], (Message("user", "hi"),)
    reading = once([Group(as_list, ("a",)), Group(as_tuple, ("a", "b")), Group("hi", ("a",))])
    assert [len(group.candidates) for group in reading.groups] == [1, 2]


def test_what_is_read_is_counted():
    with count_reads() as outer:
        score_groups(pipeline(), PAIRS, SumOfTokens(), 100)
        with count_reads() as inner:
            score_groups(pipeline("shared_prompt"), PAIRS, SumOfTokens(columns=3), 100)
    score_groups(pipeline(), PAIRS, SumOfTokens(), 100)
    assert (inner.asked, inner.read) == (8, 7)
    assert (outer.asked, outer.read) == (16, 12)
    assert str(outer) == "12 of 16 answers read, the others are repeats"


def test_passes_hold_each_answer_once():
    forward = SumOfTokens()
    score_groups(pipeline(), PAIRS, forward, 100)
    assert len(forward.rows) == 5


def test_an_answer_that_fails_is_an_error_of_every_group_that_names_it():
    groups = [Group("p", ("a", "!")), Group("p", ("a", "b")), Group("p", ("!", "c"))]
    results = score_groups(pipeline(), groups, SumOfTokens(fails=has_bad), 100)
    assert [result.error is None for result in results] == [False, True, False]


def test_an_answer_without_a_number_is_an_error_of_every_group_that_names_it():
    def forward(arrays):
        sums = arrays["input_ids"].sum(1).astype(np.float32)
        return np.where(sums == sums.max(), np.nan, sums)[:, None, None]

    groups = [Group("p", ("aaaa", "a")), Group("p", ("a", "aa"))]
    first, second = score_groups(pipeline(), groups, forward, 1000)
    assert first.error.startswith("the model gave NaN")
    assert second.error is None


def test_flags_are_those_of_the_candidates_that_a_group_has():
    """A long answer cuts the prompt and itself; the group beside it has neither."""
    groups = [Group("p" * 60, ("a" * 100, "b")), Group("p" * 60, ("b", "c"))]
    first, second = score_groups(pipeline(max_length=100), groups, SumOfTokens(), 10_000)
    assert first.prompt_truncated
    assert first.truncated.tolist() == [True, False]
    assert not second.prompt_truncated
    assert not second.truncated.any()


def shuffled(seed, count=60):
    """Pairs of few answers, and all answers of each prompt as one group, with the words of both in any order."""
    rng = random.Random(seed)
    answers = {f"prompt {p}": [" ".join(["word"] * (1 + n % 7)) + f" {n}" for n in range(9)] for p in range(3)}
    pairs = [Group(prompt, tuple(rng.sample(answers[prompt], 2))) for prompt in [*answers] * (count // 3)]
    asked = {prompt: [c for g in pairs if g.prompt == prompt for c in g.candidates] for prompt in answers}
    merged = [Group(prompt, tuple(rng.sample(sorted(set(named)), len(set(named))))) for prompt, named in asked.items()]
    rng.shuffle(merged)
    return pairs, merged


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("tokens", [64, 300, 4096])
def test_merged_and_unmerged_rows_have_the_same_bits(family, tokens, tmp_path):
    if family == "llama":
        folder = save_backbone(tmp_path / "backbone", family)
        model, tokenizer = from_backbone(str(folder), output="scalar", max_length=128, prompt_reserve=32)
    else:
        model, tokenizer = tiny("pointwise", family=family)
    scorer = TorchScorer(model, tokenizer, max_tokens_per_forward=tokens)
    pairs, merged = shuffled(tokens)
    by_answer = {
        (group.prompt, answer): score
        for group, result in zip(merged, scorer.score(merged), strict=True)
        for answer, score in zip(group.candidates, result.scores, strict=True)
    }
    for group, result in zip(pairs, scorer.score(pairs), strict=True):
        np.testing.assert_array_equal(result.scores, [by_answer[group.prompt, answer] for answer in group.candidates])


def test_an_exported_model_gives_merged_and_unmerged_rows_the_same_bits(pointwise):
    scorer = load(pointwise).scorer
    pairs, merged = shuffled(1)
    scores = {
        (group.prompt, answer): score
        for group, result in zip(merged, scorer.score(merged), strict=True)
        for answer, score in zip(group.candidates, result.scores, strict=True)
    }
    with count_reads() as count:
        results = scorer.score(pairs)
    assert count.read == len(scores) < count.asked == 120
    for group, result in zip(pairs, results, strict=True):
        np.testing.assert_array_equal(result.scores, [scores[group.prompt, answer] for answer in group.candidates])
