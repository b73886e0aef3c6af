import json
import re
from collections import Counter

import pytest

from ranker.data.formats import parse_preference
from ranker.data.sample import build
from ranker.data.sample.families import FAMILIES, TRAINED, UNSEEN, draw
from ranker.data.sample.replies import STYLES, holds
from ranker.evaluation.baselines import longer_wins
from ranker.metrics import accuracy
from tests.conftest import ROOT

SPLITS = {split: [json.loads(line) for line in (ROOT / "data" / f"{split}.jsonl").open()] for split in build.SIZES}


def test_the_generator_gives_the_committed_bytes(tmp_path):
    for path in build.write(tmp_path):
        assert path.read_bytes() == (ROOT / "data" / path.name).read_bytes()


def test_sizes():
    assert {split: len(rows) for split, rows in SPLITS.items()} == build.SIZES
    assert sum((ROOT / "data" / f"{split}.jsonl").stat().st_size for split in SPLITS) < 3_000_000


def test_splits_share_no_prompt_and_some_families_are_unseen():
    prompts = [{row["prompt"] for row in rows} for rows in SPLITS.values()]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == sum(build.SIZES.values())
    families = {split: {row["family"] for row in rows} for split, rows in SPLITS.items()}
    assert families["train"] == families["validation"] == set(TRAINED)
    assert families["test"] == set(TRAINED) | set(UNSEEN)
    assert len(TRAINED) >= 12


@pytest.mark.parametrize("split", list(SPLITS))
def test_neither_longer_nor_shorter_wins(split):
    share = accuracy(longer_wins([parse_preference(row, row["id"]) for row in SPLITS[split]]))
    assert 0.47 <= share.value <= 0.53


@pytest.mark.parametrize("split", list(SPLITS))
def test_labels_are_what_the_programs_say(split):
    """Style labels are checked from the reply's text; right replies are not also given as wrong ones."""
    for row in SPLITS[split]:
        assert 4 <= len(row["candidates"]) <= 6
        assert len(set(row["kinds"])) == len(row["kinds"])
        right = row["candidates"][row["kinds"].index("right")]
        for i, (reply, kind) in enumerate(zip(row["candidates"], row["kinds"], strict=True)):
            assert row["scores"][i] == build.GRADES[kind]
            assert STYLES[row["style"]].check(reply) == bool(row["aspects"]["format"][i]), (row["id"], reply)
            assert kind == "right" or reply != right
    assert all(
        set(row["aspects"]) == {"correctness", "instruction_following", "concision", "format"} for row in SPLITS[split]
    )


def test_right_answers_hold_the_items_and_wrong_ones_do_not():
    import random

    rng = random.Random(5)
    for name in FAMILIES:
        for _ in range(300):
            task = draw(name, rng)
            assert len(task.right) == len(task.wrong)
            assert holds(task, task.joiner.join(task.right)), name
            assert not holds(task, task.joiner.join(task.wrong)), (name, task)
            assert all(r != w for r, w in zip(task.right, task.wrong, strict=True)), (name, task)


def test_styles_are_used_evenly():
    """No style says by itself that an answer is good."""
    best = Counter(row["style"] for row in SPLITS["train"])
    assert max(best.values()) < 1.35 * min(best.values())


def test_arithmetic_is_right():
    for row in SPLITS["train"]:
        match = re.match(r"Work out the sum and the (difference|product) of (\d+) and (\d+)", row["prompt"])
        if match:
            a, b = int(match[2]), int(match[3])
            reply = row["candidates"][row["kinds"].index("right")]
            assert {a + b, a - b if match[1] == "difference" else a * b} <= set(map(int, re.findall(r"\d+", reply)))
