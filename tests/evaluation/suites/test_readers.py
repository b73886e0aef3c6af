"""Every suite on handmade rows with its columns, read by a scorer that prefers longer answers."""

import json

import numpy as np
import pytest

from ranker.errors import DataError
from ranker.evaluation.suites import rules, suite
from ranker.evaluation.suites.readers import SUITES
from ranker.metrics import Estimate
from ranker.scoring.protocol import GroupScores, failed
from tests.support.scorers import info_of


class Longer:
    """The number of characters as score; a text that begins with ! fails, one with ^ is liked when it is first."""

    info = info_of()

    def score(self, groups, *, preserve_order=False):
        assert preserve_order
        return [self.result(g) for g in groups]

    def result(self, group):
        if any(c.startswith("!") for c in group.candidates):
            return failed(group, "it begins with !")
        scores = [len(c) + 100 * (c.startswith("^") and i == 0) for i, c in enumerate(group.candidates)]
        return GroupScores(np.array(scores, np.float32), np.zeros(len(scores), np.bool_))


def figures(name, rows, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    loaded = suite.load(f"{name}={path}")
    estimates, failures = suite.evaluate(Longer(), name, loaded)
    assert all(isinstance(value, Estimate) for value in estimates.values())
    return estimates, failures


def test_rewardbench(tmp_path):
    rows = [
        {"prompt": "p", "chosen": "long" if i % 4 else "s", "rejected": "abc", "subset": subset, "id": i}
        for section in rules.SECTIONS.values()
        for subset in section
        for i in range(4)
    ]
    rows[0] |= {"chosen": "!", "rejected": "r"}
    estimates, failures = figures("rewardbench", rows, tmp_path)
    assert failures == 1
    assert estimates["average"].value == pytest.approx(0.75)
    assert (estimates["Chat"].n, estimates["math-prm"].n, estimates["average"].n) == (20, 4, len(rows))
    assert estimates["average"].low < 0.75 < estimates["average"].high
    with pytest.raises(DataError, match="not the whole suite: no row of section 'Chat Hard'"):
        figures("rewardbench", rows[:20], tmp_path)


def test_rewardbench_2(tmp_path):
    rows = [
        {
            "id": "1",
            "prompt": "p",
            "chosen": ["four"],
            "rejected": ["a", "b", "cc"],
            "subset": "Math",
            "num_correct": 1,
        },
        {
            "id": "2",
            "prompt": "p",
            "chosen": ["four"],
            "rejected": ["a", "b", "also"],
            "subset": "Math",
            "num_correct": 1,
        },
    ]
    for n in range(3):
        rows.append(
            {
                "id": f"ref:{n}",
                "prompt": "p",
                "chosen": ["12345"],
                "rejected": ["1"],
                "subset": "Ties",
                "num_correct": 1,
            }
        )
        rows.append(
            {
                "id": f"tied:{n}",
                "prompt": "p",
                "chosen": ["1234", "123"],
                "rejected": ["1"],
                "subset": "Ties",
                "num_correct": 2,
            }
        )
    estimates, _ = figures("rewardbench-2", rows, tmp_path)
    assert estimates["Math"].value == (1 + 0.5) / 2
    expected = 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * np.tanh(2 / 1 - 1)
    assert estimates["Ties"].value == pytest.approx(expected)
    assert estimates["Ties"].low == pytest.approx(expected), "every pair is the same, so every draw is"
    assert estimates["average"].value == pytest.approx((0.75 + expected) / 2)
    assert estimates["Ties"].n == 6


def test_rm_bench(tmp_path):
    rows = [
        {"prompt": "p", "chosen": ["aa", "bbb", "cccc"], "rejected": ["a", "bbbb", "c"], "domain": domain}
        for domain in ("chat", "code", "math", "safety-refuse", "safety-response")
    ]
    estimates, _ = figures("rm-bench", rows, tmp_path)
    # chosen 2, 3, 4 against rejected 1, 4, 1: rows of the matrix are (1, 0, 1), (1, 0, 1), (1, 0, 1)
    assert estimates["normal"].value == pytest.approx(2 / 3)
    assert estimates["hard"].value == pytest.approx((0 + 1 + 1) / 3)
    assert estimates["easy"].value == pytest.approx((1 + 1 + 0) / 3)
    assert estimates["safety"].n == 2
    assert estimates["average"].value == pytest.approx(2 / 3)


def test_judgebench_needs_both_orders(tmp_path):
    rows = [
        {"question": "q", "response_A": "long", "response_B": "s", "label": "A>B", "source": "mmlu-pro-law"},
        {"question": "q", "response_A": "long", "response_B": "s", "label": "B>A", "source": "mmlu-pro-law"},
        {"question": "q", "response_A": "^a", "response_B": "^bb", "label": "A>B", "source": "livecodebench"},
        {"question": "q", "response_A": "^a", "response_B": "^bb", "label": "B>A", "source": "livecodebench"},
    ]
    estimates, _ = figures("judgebench", rows, tmp_path)
    assert estimates["mmlu-pro"].value == 0.5
    assert estimates["livecodebench"].value == 0.0, "a scorer that likes what is first cancels itself"
    assert estimates["overall"].value == 0.25


def test_hhh_and_llmbar_by_part(tmp_path):
    for part, label in (("helpful", [1, 0]), ("honest", [0, 1])):
        (tmp_path / "hhh" / part).mkdir(parents=True)
        row = {"input": "q", "targets": {"choices": ["long", "s"], "labels": label}}
        (tmp_path / "hhh" / part / "task.json").write_text(json.dumps({"examples": [row, row]}))
    estimates, _ = suite.evaluate(Longer(), "hhh", suite.load(f"hhh={tmp_path / 'hhh'}"))
    assert (estimates["helpful"].value, estimates["honest"].value, estimates["average"].value) == (1.0, 0.0, 0.5)
    for part, label in (("Natural", 1), ("Manual", 2)):
        (tmp_path / "llmbar" / part).mkdir(parents=True)
        rows = [{"input": "q", "output_1": "long", "output_2": "s", "label": label}]
        (tmp_path / "llmbar" / part / "dataset.json").write_text(json.dumps(rows))
    estimates, _ = suite.evaluate(Longer(), "llmbar", suite.load(f"llmbar={tmp_path / 'llmbar'}"))
    assert (estimates["Natural"].value, estimates["Manual"].value) == (1.0, 0.0)


def test_mt_bench_leaves_human_ties_out_or_counts_them_as_lost(tmp_path):
    def row(winner, turn, **texts):
        sides = {
            f"conversation_{side}": [
                {"role": role, "content": content}
                for content_pair in (("q1", texts[side][0]), ("q2", texts[side][1]))
                for role, content in zip(("user", "assistant"), content_pair, strict=True)
            ]
            for side in "ab"
        }
        return {"question_id": turn, "winner": winner, "turn": turn, **sides}

    rows = [
        row("model_a", 1, a=("long", "x"), b=("s", "a very long second answer")),
        row("model_b", 2, a=("long", "x"), b=("s", "a very long second answer")),
        row("tie", 1, a=("long", "x"), b=("s", "y")),
        row("model_b", 1, a=("long", "x"), b=("s", "y")),
    ]
    estimates, _ = figures("mt-bench-human", rows, tmp_path)
    assert estimates["agreement without ties"].value == pytest.approx(2 / 3)
    assert estimates["agreement without ties"].n == 3
    assert estimates["agreement"].value == 0.5
    assert estimates["turn 2 without ties"].value == 1.0


def test_auto_j_counts_labelled_ties_as_lost_and_consistency(tmp_path):
    base = {"prompt": "q", "scenario": "code"}
    rows = [
        {**base, "response 1": "long", "response 2": "s", "label": 0},
        {**base, "response 1": "long", "response 2": "s", "label": 1},
        {**base, "response 1": "long", "response 2": "s", "label": 2},
        {**base, "response 1": "^a", "response 2": "^b", "label": 0},
    ]
    estimates, _ = figures("auto-j", rows, tmp_path)
    assert estimates["agreement"].value == 0.25
    assert estimates["consistency"].value == 0.75
    assert estimates["code"].n == 4


def test_pandalm_is_scikit_learns_macro_average(tmp_path):
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    rng = np.random.default_rng(0)
    rows = [
        {
            "instruction": "q",
            "input": "",
            "response1": "x" * int(rng.integers(1, 4)),
            "response2": "x" * int(rng.integers(1, 4)),
            **{f"annotator{k}": int(rng.integers(0, 3)) for k in (1, 2, 3)},
        }
        for _ in range(60)
    ]
    gold, predicted = [], []
    for row in rows:
        votes = [row[f"annotator{k}"] for k in (1, 2, 3)]
        gold.append(votes[0] if len(set(votes)) == 3 else max(set(votes), key=votes.count))
        a, b = len(row["response1"]), len(row["response2"])
        predicted.append(0 if a == b else 1 if a > b else 2)
    estimates, _ = figures("pandalm", rows, tmp_path)
    averages = precision_recall_fscore_support(gold, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
    precision, recall, f1, _ = averages
    assert estimates["accuracy"].value == pytest.approx(accuracy_score(gold, predicted))
    assert [estimates[k].value for k in ("precision", "recall", "F1")] == pytest.approx([precision, recall, f1])


def test_pandalm_rows_that_fail_are_lost(tmp_path):
    row = {"instruction": "q", "response1": "!", "response2": "x", "annotator1": 0, "annotator2": 0, "annotator3": 0}
    estimates, failures = figures("pandalm", [row, row | {"annotator1": 1, "annotator2": 2}], tmp_path)
    assert failures == 2
    assert estimates["accuracy"].value == 0


@pytest.mark.parametrize("name", SUITES)
def test_rows_without_the_columns_are_named(name, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"other": 1}')
    with pytest.raises(DataError, match=f"rows.jsonl:1: field '.*': expected the columns of {name}"):
        suite.load(f"{name}={path}")


def test_what_is_published_as_files_says_so():
    with pytest.raises(DataError, match="auto-j is published as files; give them: --data auto-j=FILE_OR_FOLDER"):
        suite.load("auto-j")
    assert suite.is_suite("rewardbench=x.jsonl")
    assert not suite.is_suite("data/test.jsonl")
