"""Repeats, leaks and mixtures."""

import numpy as np
import pytest

from ranker.config import load_config
from ranker.data.load import mixed
from ranker.data.overlap import _minhash, duplicates, leaks, normalised
from ranker.errors import ConfigError, DataError
from ranker.records import Preference
from ranker.training.rows import load
from tests.conftest import ROOT

LONG = "The committee met on Tuesday to talk about the new bridge over the river and who will pay for it. "


def row(prompt, *answers, name=""):
    return Preference(prompt, answers or ("yes", "no"), tuple((float(i),) for i in range(len(answers) or 2)), id=name)


def test_rows_that_share_a_long_prompt_are_no_repeats():
    """One post, six comparisons of different answers (SHP, summarize-from-feedback)."""
    answers = ["cook the rice", "sell the boat", "call your sister", "ask a lawyer", "sleep on it", "read the manual"]
    rows = [row(LONG * 10, f"{a} first and then {a} again", f"never {a} at all, whatever they say") for a in answers]
    assert duplicates(rows, "near", similarity=0.8) == []
    assert duplicates([*rows, rows[2]], "near", similarity=0.8) == [6]


def test_opposite_votes_are_no_repeats():
    assert duplicates([row("a", "x", "y"), row("a", "y", "x")], "exact") == []


def test_exact_repeats_differ_in_case_space_and_order_alone():
    turned = Preference("a b", ("no", "yes"), ((1.0,), (0.0,)))
    rows = [row("A  b"), row("a B"), turned, row("a b", "yes", "maybe"), row("c")]
    assert normalised("Ａ\n b ") == "a b"
    assert duplicates(rows, "exact") == [1, 2]


def test_near_repeats_are_those_of_high_jaccard_similarity():
    near = LONG.replace("Tuesday", "Monday")
    rows = [row(LONG * 3), row(near * 3), row("Something else entirely, about cooking rice in a clay pot.")]
    assert duplicates(rows, "near", similarity=0.7) == [1]
    assert duplicates(rows, "near", similarity=0.95) == []
    a, b = (normalised(text) for text in (LONG, near))
    shingles = [{t[i : i + 5] for i in range(len(t) - 4)} for t in (a, b)]
    jaccard = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
    np.testing.assert_allclose(_minhash(a).jaccard(_minhash(b)), jaccard, atol=0.15)


def test_leaks_are_prompts_that_are_held_out():
    training = [row("one"), row("Two "), row(LONG), row("", "x", "y")]
    held_out = [row("two", "other", "answers"), row(LONG.replace("river", "stream")), row("", "y", "x")]
    assert leaks(training, held_out, "exact") == [1, 3]
    assert leaks(training, held_out, "near", similarity=0.7) == [1, 2, 3]


def test_sources_are_mixed_by_weight():
    parts = [[row("a", name=str(i)) for i in range(10)], [row("b", name=f"b{i}") for i in range(4)]]
    names = [p.id for p in mixed(parts, [0.5, 2], seed=0)]
    assert sum(not n.startswith("b") for n in names) == 5
    assert sorted(n for n in names if n.startswith("b")) == sorted([f"b{i}" for i in range(4)] * 2)
    assert mixed(parts, [0.5, 2], seed=0) == mixed(parts, [0.5, 2], seed=0)
    with pytest.raises(ConfigError, match=r"one weight >= 0 per source of data\.train \(2\), got \[1\]"):
        mixed(parts, [1], seed=0)


def config(*overrides):
    data = ROOT / "data"
    return load_config(
        "pairrm", [f"data.validation=[{data / 'validation.jsonl'}]", "data.max_train_samples=10", *overrides]
    )


def test_a_run_leaves_out_what_it_is_told_to(caplog):
    data = ROOT / "data"
    twice = f"data.train=[{data / 'validation.jsonl'}, {data / 'train.jsonl'}, {data / 'train.jsonl'}]"
    training, _, _ = load(config(twice))
    assert len(training) == 30
    assert "10 of 30 training rows have a prompt that is also in the validation or test rows (exact)" in caplog.text
    training, _, _ = load(config(twice, "data.train_eval_overlap=drop", "data.deduplicate=exact"))
    assert len(training) == 10
    with pytest.raises(DataError, match="10 of 30 training rows have a prompt that is also in the validation"):
        load(config(twice, "data.train_eval_overlap=raise"))
    test = f"data.test=[{data / 'train.jsonl'}]"
    with pytest.raises(DataError, match="20 of 30 training rows"):
        load(config(twice, "data.train_eval_overlap=raise", test, f"data.validation=[{data / 'test.jsonl'}]"))
    with pytest.raises(DataError, match="10 of 10"):
        load(config(f"data.train=[{data / 'validation.jsonl'}]", "data.train_eval_overlap=drop"))
    training, _, _ = load(config(twice, "data.train_eval_overlap=ignore", "data.weights=[0, 1, 0.5]"))
    assert len(training) == 15
