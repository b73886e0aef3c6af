import numpy as np
import pytest
import torch

from ranker.data.formats import parse_preference
from ranker.data.sample import build
from ranker.errors import ConfigError
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Preference
from ranker.scoring.pipeline import TextPipeline
from ranker.training.batches import Collator, RunPlan
from ranker.training.groups import Groups
from tests.conftest import LAYOUTS, tiny


def preferences(count=24):
    rows = [parse_preference(row, row["id"]) for _, row in zip(range(count), build.rows("validation"), strict=False)]
    return [*rows, Preference("Q?", ("good", "bad"), ((1.0,), (0.0,)), label=0.8)]


def plan(groups, **kwargs):
    return RunPlan(
        groups,
        **({"num_train_epochs": 1, "max_tokens_per_forward": 600, "candidates_per_prompt": (2, 4), "seed": 0} | kwargs),
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_group_once_per_epoch_within_the_budget(layout):
    model, tokenizer = tiny(layout)
    groups = Groups(preferences(), TextPipeline(model.layout, tokenizer))
    for batch in plan(groups):
        rows, longest = zip(*(groups.cost(item) for item in batch), strict=True)
        assert len(batch) == 1 or sum(rows) * max(longest) <= 600
    seen = [row for batch in plan(groups, num_train_epochs=2) for row, _ in batch]
    assert sorted(seen) == sorted(list(range(len(groups))) * 2)


def test_groups_shrink_to_the_budget_and_a_pair_that_does_not_fit_is_named():
    model, tokenizer = tiny("ordered_pair")
    groups = Groups(preferences(), TextPipeline(model.layout, tokenizer))
    for batch in plan(groups, max_tokens_per_forward=400, candidates_per_prompt=(4, 4)):
        rows, longest = zip(*(groups.cost(item) for item in batch), strict=True)
        assert sum(rows) * max(longest) <= 400
    with pytest.raises(ConfigError, match=r"more than training\.max_tokens_per_forward 64"):
        plan(groups, max_tokens_per_forward=64)


def test_the_plan_is_decided_by_its_seed():
    model, tokenizer = tiny()
    groups = Groups(preferences(), TextPipeline(model.layout, tokenizer))
    assert plan(groups).batches == plan(groups).batches
    assert plan(groups).batches != plan(groups, seed=1).batches
    sizes = {len(chosen) for batch in plan(groups) for _, chosen in batch}
    assert sizes == {2, 3, 4}


def test_labelled_pairs_keep_their_order():
    model, tokenizer = tiny()
    groups = Groups(preferences(), TextPipeline(model.layout, tokenizer))
    assert {chosen for batch in plan(groups, num_train_epochs=3) for row, chosen in batch if row == 24} == {(0, 1)}


def test_nothing_to_train_on_is_said():
    model, tokenizer = tiny()
    with pytest.raises(ConfigError, match="expected at least one group"):
        plan(Groups([], TextPipeline(model.layout, tokenizer)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_collated_comparisons_are_those_of_the_scorer(layout):
    """Logits read through left and right equal differences of the scores that the serving path gives."""
    model, tokenizer = tiny(layout)
    rows = preferences(4)
    groups = Groups(rows, TextPipeline(model.layout, tokenizer))
    items = [(i, tuple(range(len(p.candidates)))) for i, p in enumerate(rows)]
    batch = Collator(groups.pipeline)([groups[item] for item in items])
    inputs = {k: v for k, v in batch.items() if k in ("input_ids", "block_ids", "position_ids", "readout", "members")}
    with torch.no_grad():
        out = model(**inputs)
    logits = (out[tuple(batch["left"].T)] - out[tuple(batch["right"].T)])[:, 0].numpy()
    if layout == "ordered_pair":
        logits = (logits[0::2] - logits[1::2]) / 2
        assert torch.equal(batch["targets"][0::2], 1 - batch["targets"][1::2])
    expected = []
    for preference, result in zip(rows, TorchScorer(model, tokenizer).score([p.group for p in rows]), strict=True):
        pairs = preference.pairs()
        if layout == "ordered_pair":
            results = TorchScorer(model, tokenizer).compare(
                [
                    type(preference.group)(preference.prompt, (preference.candidates[i], preference.candidates[j]))
                    for i, j, _ in pairs
                ]
            )
            expected += results.tolist()
        else:
            expected += [float(result.scores[i] - result.scores[j]) for i, j, _ in pairs]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert batch["weight"].sum().item() == pytest.approx(len(rows))


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_out_the_plan_and_ballast_is_not_counted(world):
    model, tokenizer = tiny("set_encoder")
    groups = Groups(preferences(), TextPipeline(model.layout, tokenizer))
    plans = [plan(groups, max_tokens_per_forward=700, world=world, rank=rank) for rank in range(world)]
    assert len({len(p) for p in plans}) == 1
    together = [batch for step in zip(*(p.process_batches for p in plans), strict=True) for batch in step]
    counted = [batch for batch in together if batch[0][0] >= 0]
    assert counted == plan(groups, max_tokens_per_forward=700).batches
    assert len(together) - len(counted) == -len(counted) % world
    row, chosen = counted[-1][0]
    batch = Collator(groups.pipeline)([groups[(-1 - row, chosen)]])
    assert batch["counted"] == 0
    assert batch["weight"].sum() == 0
    assert batch["labels"].isnan().all()
    np.testing.assert_array_equal(batch["input_ids"], Collator(groups.pipeline)([groups[(row, chosen)]])["input_ids"])
