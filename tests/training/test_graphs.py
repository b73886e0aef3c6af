"""Rows about the same answers as one group, in which every answer is read once."""

import random
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification

from ranker.checkpoints import native
from ranker.config import TrainingConfig, load_config
from ranker.errors import ConfigError
from ranker.models import pointwise
from ranker.records import Message, Preference
from ranker.scoring.pipeline import TextPipeline
from ranker.training import losses
from ranker.training.batches import Collator, grouped, planned
from ranker.training.blocks import Blocks
from ranker.training.defaults import resolved
from ranker.training.groups import Groups, LossNeeds
from tests.conftest import LAYOUTS, tiny
from tests.support.layouts import layout
from tests.support.selection import cases
from tests.support.texts import CharacterTokenizer

NAN = float("nan")


def pair(better, worse, prompt="Q?", **fields):
    return Preference(prompt, (better, worse), ((1.0,), (0.0,)), **fields)


def ranked(prompt="Q?", **scores):
    return Preference(prompt, tuple(scores), tuple((score,) for score in scores.values()))


def text(name="pointwise", **changes):
    return TextPipeline(layout(name, **changes), CharacterTokenizer())


def merged(rows, pipeline=None, **options):
    return Groups(rows, pipeline or text(), merge=True, **options)


def whole(groups, number=0):
    """A group with all its answers."""
    return groups[(number, tuple(range(len(groups.graphs[number].tokens.candidates))))]


ROWS = [
    pair("a", "b"),
    pair("c", "d", "other?"),
    pair("b", "c"),
    pair("a", "b"),
    pair("b", "a"),
    pair("e", "f"),
    pair("c", "a", margin=0.5),
]
"""Rows 0, 2, 3, 4 and 6 share answers."""


def test_rows_that_share_an_answer_are_one_group_where_the_first_stood():
    groups = merged(ROWS)
    assert [graph.rows for graph in groups.graphs] == [(0, 2, 3, 4, 6), (1,), (5,)]
    assert len(groups.graphs[0].tokens.candidates) == 3
    assert groups.graphs[0].places == ((0, 1), (1, 2), (0, 1), (1, 0), (2, 0))
    assert [(c.left, c.right, c.targets, c.weight, c.margin) for c in whole(groups).comparisons] == [
        (0, 1, (2 / 3,), 3.0, 0.0),
        (1, 2, (1.0,), 1.0, 0.0),
        (0, 2, (0.0,), 1.0, 0.5),
    ]


def test_the_same_rows_in_both_directions_are_a_tie():
    (only,) = whole(merged([pair("a", "b"), pair("b", "a")])).comparisons
    assert (only.targets, only.weight) == ((0.5,), 2.0)


def test_a_list_gives_its_weight_to_all_its_comparisons():
    comparisons = whole(merged([ranked(a=3, b=2, c=1), pair("c", "a")])).comparisons
    assert [(c.left, c.right, c.weight) for c in comparisons] == [
        (0, 1, pytest.approx(1 / 3)),
        (0, 2, pytest.approx(4 / 3)),
        (1, 2, pytest.approx(1 / 3)),
    ]
    assert comparisons[1].targets[0] == pytest.approx(1 / 4)


def test_missing_labels_stay_apart():
    rows = [
        Preference("Q?", ("a", "b"), ((1.0, NAN), (0.0, NAN))),
        Preference("Q?", ("a", "b"), ((0.0, 1.0), (1.0, 0.0))),
    ]
    assert len(whole(merged(rows)).comparisons) == 2


def test_rows_stay_lists_of_their_own():
    lists = whole(merged([ranked(a=3, b=2, c=1), ranked(d=1, b=0)])).lists
    assert [(one.answers, one.labels, one.weight) for one in lists] == [
        ((0, 1, 2), ((3,), (2,), (1,)), 1.0),
        ((3, 1), ((1,), (0,)), 1.0),
    ]


def test_texts_are_the_same_where_their_ids_are():
    """The model could not tell them apart."""
    lower = text()
    lower.tokenizer.encode = lambda texts: CharacterTokenizer().encode([one.lower() for one in texts])
    groups = Groups([pair("A", "b"), pair("B", "c", "q?")], lower, merge=True)
    assert [graph.rows for graph in groups.graphs] == [(0, 1)]
    assert len(groups.graphs[0].tokens.candidates) == 3


def test_the_same_answer_to_another_prompt_is_another():
    assert [graph.rows for graph in merged([pair("a", "b"), pair("a", "b", "P?")]).graphs] == [(0,), (1,)]


def test_a_model_that_reads_pairs_reads_each_pair_of_answers_once():
    groups = merged(ROWS, text("ordered_pair"))
    assert [graph.rows for graph in groups.graphs] == [(0, 3, 4), (1,), (2,), (5,), (6,)]
    batch = Collator(groups.pipeline)([whole(groups)])
    assert batch["targets"].flatten().tolist() == pytest.approx([2 / 3, 1 / 3])
    assert batch["weight"].tolist() == [1.5, 1.5]
    assert groups.summary() == [
        "7 comparisons of 7 answers to 2 prompts: ordered_pair reads two answers together, so an answer is read in each "
        "of its pairs"
    ]


def test_a_row_of_a_pair_model_that_holds_an_answer_twice_stays_as_it_is():
    rows = [Preference("Q?", ("a", "a"), ((1.0,), (0.0,)))] * 2
    assert [graph.rows for graph in merged(rows, text("ordered_pair")).graphs] == [(0,), (1,)]


def test_a_prompt_that_is_read_once_has_all_its_rows_together():
    sharing = TextPipeline(layout("pointwise"), CharacterTokenizer(), prefix_sharing=True)
    groups = merged([*ROWS, pair("x", "y", ""), pair("z", "u", "")], sharing)
    assert [graph.rows for graph in groups.graphs] == [(0, 2, 3, 4, 5, 6), (1,), (7,), (8,)]
    (line,) = groups.summary()
    assert line.startswith(
        "9 comparisons of 11 answers to 3 prompts: each answer read once per pass, and its prompt once"
    )
    assert [graph.rows for graph in merged(ROWS, text("shared_prompt")).graphs] == [(0, 2, 3, 4, 6), (1,), (5,)]


def test_a_long_list_stays_a_group_of_its_own():
    long = Preference("Q?", tuple(f"{n}" for n in range(300)), tuple((float(n),) for n in range(300)))
    assert [graph.rows for graph in merged([long, long, pair("1", "2"), pair("2", "1")]).graphs] == [(0,), (1,), (2, 3)]


def test_a_row_that_names_an_answer_twice_keeps_its_weight():
    rows = [Preference("Q?", ("a", "a"), ((1.0,), (1.0,))), pair("a", "b"), pair("b", "a")]
    comparisons = whole(merged(rows)).comparisons
    assert [(c.left, c.right, c.targets, c.weight) for c in comparisons] == [(0, 0, (0.5,), 1.0), (0, 1, (0.5,), 2.0)]


def test_chat_prompts_are_merged():
    prompt = (Message("user", "Q?"), Message("assistant", "what?"), Message("user", "that"))
    assert [graph.rows for graph in merged([pair("a", "b", prompt), pair("b", "c", prompt)]).graphs] == [(0, 1)]


def test_the_start_says_how_often_answers_are_named():
    assert merged(ROWS).summary() == [
        "7 comparisons of 7 answers to 2 prompts: each answer read once per pass (1.7 times less than pair by pair)"
    ]
    labelled = [Preference("Q?", (answer,), ((score,),)) for answer, score in (("a", 1.0), ("b", 0.5), ("a", 0.8))]
    assert merged(labelled).summary() == [
        "3 rows of 2 answers to 1 prompt: each answer read once per pass (1.5 times less than row by row)"
    ]
    assert merged([pair("a", "b"), pair("c", "d")]).summary() == []
    assert Groups(ROWS, text()).summary() == []


def test_a_loss_that_is_not_linear_in_its_targets_sees_every_verdict():
    """The guide's hinge takes the sign of a target, so a mean of two verdicts is not what they cost."""

    class Hinge(losses.ComparisonLoss):
        def per_comparison(self, left, right, targets, margin):
            sign = (targets - 0.5).sign().nan_to_num()
            return (1 - sign * (left - right)).clamp(min=0).mean(dim=-1)

    model, tokenizer = tiny("pointwise")
    rows = [pair("a hammer", "the saw"), pair("the saw", "a hammer"), pair("a hammer", "the saw")]
    figures = []
    for merge in (True, False):
        groups = grouped(TrainingConfig(merge_rows=merge), rows, model.double(), tokenizer, Hinge())
        examples = [whole(groups, number) for number in range(len(groups))]
        figures.append(gradient(model, Hinge(), Collator(groups.pipeline), examples))
    assert figures[0][1] == figures[1][1] == 3.0
    assert_same(figures[0][0], figures[1][0])


def test_rows_without_a_prompt_count_as_prompts_of_their_own():
    groups = merged([pair("a", "b", ""), pair("c", "d", ""), pair("e", "f")], weight_by="prompt")
    assert groups.weights.tolist() == [1, 1, 1]


def test_every_prompt_can_count_alike():
    groups = merged(ROWS, weight_by="prompt")
    weights = [sum(c.weight for c in whole(groups, number).comparisons) for number in range(3)]
    assert weights == pytest.approx([5 / 6, 1, 1 / 6])


@pytest.mark.parametrize("name", LAYOUTS)
def test_without_repeats_nothing_changes(name):
    """The same batches and the same tensors, to the last bit."""
    model, tokenizer = tiny(name)
    rows = [ranked("p", a=2, b=1, c=0), *(pair(f"{i} yes", f"{i} no", "Q?") for i in range(30)), pair("x", "y", "z")]
    runs = []
    for merge in (True, False):
        config = TrainingConfig(merge_rows=merge, num_train_epochs=2)
        groups = grouped(config, rows, model, tokenizer, losses.build(config.loss))
        plan = planned(config, groups)
        collate = Collator(groups.pipeline)
        runs.append((plan.batches, plan.digest(groups), [collate([groups[i] for i in b]) for b in plan.batches]))
    (batches, digest, tensors), (plain_batches, plain_digest, plain_tensors) = runs
    assert batches == plain_batches
    assert digest == plain_digest
    for batch, plain in zip(tensors, plain_tensors, strict=True):
        assert batch.keys() == plain.keys()
        assert all(torch.equal(batch[key].nan_to_num(-1.5), plain[key].nan_to_num(-1.5)) for key in batch)


# The gradient of a group is the sum of its rows' gradients.

LABELLED = [
    pair("the tall house", "a red door"),
    pair("a red door", "one more"),
    pair("a red door", "the tall house"),
    pair("the tall house", "a red door"),
    pair("one more", "the tall house", margin=0.3),
    replace(pair("one more", "a red door"), label=0.7),
    pair("not in company", "alone here", "Why?"),
]
LISTS = [
    Preference("Q?", ("the tall house", "a red door", "one more"), ((3.0,), (1.0,), (2.0,))),
    Preference("Q?", ("one more", "the tall house", "a fourth one"), ((0.5,), (1.0,), (0.0,))),
    *[pair("a fourth one", "a red door")] * 2,
]
ANSWER_LOSSES = ("mse", "binary_cross_entropy", "huber", "cross_entropy")


def exact(batch, examples):
    """The labels in fp64: two thirds are no number of fp32."""
    comparisons = [one for example in examples for one in example.comparisons]
    for name, values in (("targets", [c.targets for c in comparisons]), ("weight", [c.weight for c in comparisons])):
        double = torch.tensor(values, dtype=torch.float64)
        torch.testing.assert_close(batch[name].double(), double, rtol=1e-6, atol=0)
        batch[name] = double
    batch["margin"] = torch.tensor([c.margin for c in comparisons], dtype=torch.float64)
    return batch


def gradient(model, loss, collate, examples, weight=None):
    """Of the sum of the loss over the examples, and its size."""
    model.zero_grad()
    batch = exact(collate(examples), examples)
    inputs = {k: batch[k] for k in ("input_ids", "block_ids", "position_ids", "readout", "members") if k in batch}
    options = {"every_token": True} if loss.every_token else {}
    loss(model(**inputs, **options), batch).backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return grads, float(loss.size(batch))


def assert_same(left, right, tolerance=1e-10):
    """Differences are at most ``tolerance`` of the largest number."""
    assert left.keys() == right.keys()
    largest = max(gradient.abs().max().item() for gradient in right.values())
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=tolerance * largest, msg=name)


@pytest.mark.parametrize("rows", [LABELLED, LISTS], ids=["pairs", "lists"])
@pytest.mark.parametrize("name", ["bradley_terry", "log_exp", "list_net", "list_mle", "rank_net", *ANSWER_LOSSES])
def test_a_group_has_the_gradient_of_its_rows_read_one_by_one(name, rows):
    """A model whose scores depend on nothing but prompt and answer, in fp64."""
    if name in ANSWER_LOSSES:
        rows = [row for row in rows if len(row.candidates) == len(rows[0].candidates)]
    model, tokenizer = tiny("pointwise", num_labels=2 if name == "cross_entropy" else 1)
    model = model.double()
    loss = losses.build(TrainingConfig(loss=name).loss)
    pipeline = TextPipeline(model.layout, tokenizer)
    together, alone = (Groups(rows, pipeline, merge=merge) for merge in (True, False))
    assert len(together) < len(alone) == len(rows)
    collate = Collator(pipeline)
    read = [whole(together, number) for number in range(len(together))]
    assert sum(example.answers for example in read) < sum(len(row.candidates) for row in rows)
    assert_same(
        gradient(model, loss, collate, read)[0],
        gradient(model, loss, collate, [whole(alone, number) for number in range(len(alone))])[0],
    )
    sizes = [
        gradient(model, loss, collate, [whole(groups, n) for n in range(len(groups))])[1]
        for groups in (together, alone)
    ]
    assert sizes[0] == pytest.approx(sizes[1])


@pytest.mark.parametrize("name", ["set_encoder", "shared_prompt"])
@pytest.mark.parametrize("loss_name", ["bradley_terry", "log_exp", "list_net", "list_mle", "rank_net", "mse"])
def test_a_group_that_sees_itself_has_the_gradient_of_its_rows_in_that_company(name, loss_name):
    """All answers are read together; the loss is the sum of what each row costs."""
    model, tokenizer = tiny(name)
    model = model.double()
    loss = losses.build(TrainingConfig(loss=loss_name).loss)
    groups = merged(LABELLED[:6], TextPipeline(model.layout, tokenizer))
    collate, example = Collator(groups.pipeline), whole(groups)
    total = {}
    for row, (one_list, places) in enumerate(zip(example.lists, groups.graphs[0].places, strict=True)):
        (single,) = [c for c in whole(Groups([LABELLED[row]], groups.pipeline)).comparisons]
        single = replace(single, left=places[0], right=places[1])
        part, _ = gradient(model, loss, collate, [replace(example, comparisons=(single,), lists=(one_list,))])
        total = {key: total.get(key, 0) + value for key, value in part.items()}
    assert_same(gradient(model, loss, collate, [example])[0], total)


@pytest.mark.parametrize("loss_name", ["bradley_terry", "log_exp"])
def test_a_pair_that_several_rows_name_has_the_gradient_of_its_rows(loss_name):
    """Of a model that reads two answers together; the pair is read once, in both orders."""
    model, tokenizer = tiny("ordered_pair")
    model = model.double()
    loss, pipeline = losses.build(TrainingConfig(loss=loss_name).loss), TextPipeline(model.layout, tokenizer)
    rows = [pair("a red door", "one more"), pair("one more", "a red door"), pair("a red door", "one more")]
    together, alone = (Groups(rows, pipeline, merge=merge) for merge in (True, False))
    assert (len(together), len(alone)) == (1, 3)
    figures = []
    for groups in (together, alone):
        model.zero_grad()
        batch = Collator(pipeline)([whole(groups, number) for number in range(len(groups))])
        batch["targets"] = batch["targets"].double()
        if groups is together:
            assert len(batch["input_ids"]) == 2
            batch["targets"] = torch.tensor([[2 / 3], [1 / 3]], dtype=torch.float64)
        inputs = {k: batch[k] for k in ("input_ids", "block_ids", "position_ids", "readout")}
        loss(model(**inputs), batch).backward()
        figures.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert_same(*figures)


def decoder(tmp_path, family="llama"):
    from tests.models.test_reward import save_backbone

    folder = save_backbone(tmp_path / "backbone", family)
    model, tokenizer = pointwise.from_backbone(str(folder), output="scalar", max_length=128, prompt_reserve=32)
    return model.double().train(), tokenizer


@pytest.mark.parametrize("spans", [False, True])
def test_token_level_comparisons_have_the_tokens_of_their_pair(tmp_path, spans):
    """``the tall house`` differs from its rivals at different places, and its spans are those of each row."""
    model, tokenizer = decoder(tmp_path, "gpt2")
    rows = [
        pair("the tall house stands", "the tall tree stands"),
        pair("the small house", "the tall house stands"),
        pair("the tall tree stands", "the small house"),
    ]
    if spans:
        rows = [replace(row, spans=(((4 + 2 * n, 9 + 2 * n),), ((0, 8),))) for n, row in enumerate(rows)]
    pipeline = TextPipeline(model.layout, tokenizer)
    loss = losses.build(TrainingConfig(loss="token_pairwise").loss)
    collate = Collator(pipeline)
    together, alone = (Groups(rows, pipeline, merge=merge) for merge in (True, False))
    assert whole(together).answers == 3
    assert ("compared" in collate([whole(together)])) == spans
    assert_same(
        gradient(model, loss, collate, [whole(together)])[0],
        gradient(model, loss, collate, [whole(alone, number) for number in range(3)])[0],
    )


def test_a_group_has_the_gradient_of_trl_on_its_pairs(tmp_path):
    """TRL's collator and loss, on the classifier that plain transformers loads from our folder."""
    trl = pytest.importorskip("trl.trainer.reward_trainer")
    model, tokenizer = decoder(tmp_path)
    native.save(model.float(), tokenizer, tmp_path / "checkpoint")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint").train()
    rows = [row for row in LABELLED if row.label is None]
    pipeline = TextPipeline(model.layout, tokenizer)
    alone, together = (Groups(rows, pipeline, merge=merge) for merge in (False, True))
    ids = [[unit.rows[0].ids.tolist() for unit in whole(alone, number).units] for number in range(len(rows))]
    features = [
        {"chosen_ids": chosen, "rejected_ids": rejected, "margin": row.margin or 0.0}
        for row, (chosen, rejected) in zip(rows, ids, strict=True)
    ]
    theirs = trl.DataCollatorForPreference(pad_token_id=plain.config.pad_token_id)(features)
    state = SimpleNamespace(
        model=plain,
        args=SimpleNamespace(center_rewards_coefficient=0.01),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _total_train_tokens=0,
        _tp_size=1,
        _metrics={"train": defaultdict(list)},
    )
    trl.RewardTrainer.compute_loss(state, plain, theirs).backward()
    expected = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    loss = losses.build(TrainingConfig(loss={"type": "bradley_terry", "center_rewards_coefficient": 0.01}).loss)
    examples = [whole(together, number) for number in range(len(together))]
    assert sum(example.answers for example in examples) == 5 < 2 * len(rows)
    actual, size = gradient(model, loss, Collator(pipeline), examples)
    assert_same({name: values / size for name, values in actual.items()}, expected, 1e-5)


@pytest.mark.parametrize("name", ["bradley_terry", "list_net", "mse"])
@pytest.mark.parametrize("family", cases(("llama", "qwen3", "gemma2", "gpt2"), lambda family: family == "gpt2"))
def test_a_prompt_that_is_read_once_has_the_same_gradient(tmp_path, family, name):
    model, tokenizer = decoder(tmp_path, family)
    prompt = "a prompt that is longer than its answers are, by a good deal of words"
    rows = [replace(row, prompt=prompt) for row in LABELLED]
    loss = losses.build(TrainingConfig(loss=name).loss)
    figures = []
    for sharing in (True, False):
        groups = grouped(TrainingConfig(prefix_sharing=sharing), rows, model, tokenizer, loss)
        collate = Collator(groups.pipeline)
        examples = [whole(groups, number) for number in range(len(groups))]
        tokens = sum(len(row.ids) for example in examples for unit in example.units for row in unit.rows)
        figures.append((tokens, gradient(model, loss, collate, examples)[0]))
    (shared_tokens, shared), (plain_tokens, plain) = figures
    assert shared_tokens < 0.6 * plain_tokens
    assert_same(shared, plain, 1e-10 if family == "gpt2" else 1e-4)  # the others' norms and rotations are fp32


@given(
    st.integers(0, 300),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_the_cost_of_a_shared_prompt_is_that_of_its_rows(prompt, answers):
    text = TextPipeline(layout("pointwise", max_length=64, prompt_reserve=8), CharacterTokenizer(), prefix_sharing=True)
    (tokens,) = text.tokenize([Preference("p" * prompt, tuple("a" * n for n in answers), ()).group])
    packed = text.pack(tokens)
    assert text.cost(prompt, answers) == (len(packed.rows), packed.length)


def test_prefix_sharing_is_refused_where_it_cannot_be(tmp_path):
    model, tokenizer = tiny("set_encoder")
    with pytest.raises(ConfigError, match=r"training\.prefix_sharing is for pointwise decoders; layout 'set_encoder'"):
        grouped(TrainingConfig(prefix_sharing=True), LABELLED, model, tokenizer, losses.build(TrainingConfig().loss))


# Groups that do not fit one pass.


def complete(count):
    """Every answer compared with every other."""
    return {a: {b: 1.0 for b in range(count) if b != a} for a in range(count)}


def at_most(size):
    return lambda block: len(block) <= size


@pytest.mark.parametrize("seed", range(5))
def test_blocks_are_disjoint_and_within_their_size(seed):
    rng = random.Random(seed)
    edges = {a: {} for a in range(40)}
    for _ in range(100):
        a, b = rng.sample(range(40), 2)
        edges[a][b] = edges[b][a] = edges[a].get(b, 0) + 1.0
    blocks = Blocks(edges, keep_lone=True).cut(at_most(9), lambda: 12, rng)
    assert sorted(answer for block in blocks for answer in block) == list(range(40))
    assert max(map(len, blocks)) == 9


def test_blocks_keep_what_is_compared_together():
    """Two groups of four that are compared within, and with one another once."""
    edges = {a: {b: 1.0 for b in range(8) if b != a and b // 4 == a // 4} for a in range(8)}
    edges[0][4] = edges[4][0] = 1.0
    blocks = Blocks(edges)
    cut = blocks.cut(at_most(4), lambda: 4, random.Random(0))
    assert sorted(map(sorted, cut)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert blocks.weight_of(cut) == 12
    assert any({0, 4} <= {*block} for block in blocks.cut(at_most(4), lambda: 4, random.Random(0)))


def test_every_comparison_gets_its_turn():
    blocks, rng = Blocks(complete(12)), random.Random(0)
    for _ in range(12):
        blocks.cut(at_most(5), lambda: 5, rng)
    assert len(blocks.turns) == 66


def test_turns_are_counted_without_end():
    blocks = Blocks(complete(3))
    for _ in range(200):
        assert len(blocks.cut(at_most(2), lambda: 2, random.Random(0))) == 2


@pytest.mark.parametrize("shape", ["star", "chain", "complete"])
def test_every_answer_is_read_beside_a_rival(shape):
    """Where all rivals of an answer are in other blocks, one of them is read again."""
    if shape == "complete":
        edges = complete(31)
    else:
        edges = {a: {} for a in range(31)}
        for a in range(1, 31):
            b = 0 if shape == "star" else a - 1
            edges[a][b] = edges[b][a] = 1.0
    blocks = Blocks(edges)
    cut = blocks.cut(at_most(7), lambda: 7, random.Random(0))
    assert {answer for block in cut for answer in block} == set(range(31))
    for block in cut:
        assert all(any(other in edges[answer] for other in block) for answer in block)
    assert sum(map(len, cut)) <= 31 + len(cut)
    if shape == "star":
        assert blocks.weight_of(cut) == 30


def test_an_answer_that_is_compared_with_nothing_is_read_only_where_that_is_of_use():
    edges = {0: {1: 1.0}, 1: {0: 1.0}, 2: {}, 3: {3: 1.0}}
    assert [*map(sorted, Blocks(edges).cut(at_most(2), lambda: 2, random.Random(0)))] == [[0, 1]]
    assert sum(map(len, Blocks(edges, keep_lone=True).cut(at_most(2), lambda: 2, random.Random(0)))) == 4


def test_blocks_of_one_prompt_take_what_is_not_compared_with_them():
    edges = {a: {a ^ 1: 1.0} for a in range(12)}
    assert {len(block) for block in Blocks(edges).cut(at_most(6), lambda: 12, random.Random(0))} == {2}
    assert {len(block) for block in Blocks(edges, fill=True).cut(at_most(6), lambda: 12, random.Random(0))} == {6}


def star(count, length=5):
    """One answer that all others lost to."""
    return [pair("best", f"{n:0{length}}", id=f"row {n}") for n in range(count)]


def test_large_groups_are_cut_anew_in_every_pass(monkeypatch):
    rows = [pair(f"answer {a}", f"answer {b}") for a in range(10) for b in range(a)]
    groups = merged(rows)
    plan = planned(TrainingConfig(num_train_epochs=3, max_tokens_per_forward=64), groups)
    items = [item for batch in plan.batches for item in batch]
    assert len(items) == len(set(items)) >= 9
    for batch in plan.batches:
        need, longest = zip(*(groups.cost(item) for item in batch), strict=True)
        assert sum(need) * max(longest) <= 64
    assert "large groups are cut into blocks, and a pass has" in plan.summary(groups, 1, 1e-4)
    assert 0.2 < plan.used < 0.9


def test_few_steps_at_a_small_rate_get_advice():
    config, every = TrainingConfig(), [pair(f"answer {a}", f"answer {b}") for a in range(10) for b in range(a)]
    for rows, rate, advised in (
        (every, 2e-5, True),
        (every, 2e-4, False),
        ([pair(f"a{n}", f"b{n}") for n in range(20)], 2e-5, False),
    ):
        groups = merged(rows)
        plan = planned(config, groups)
        plan.process_batches = [*plan.process_batches] * 20
        assert ("more passes are cheap: raise" in plan.summary(groups, 1, rate)) == advised


def test_very_few_steps_get_advice_at_any_rate():
    groups = merged([pair("a", "b")])
    assert "so few steps teach a model little" in planned(TrainingConfig(), groups).summary(groups, 1, 1e-3)


def test_few_answers_with_many_comparisons_are_read_twice():
    every = merged([pair(f"answer {a:02}", f"answer {b:02}") for a in range(20) for b in range(a)])
    assert every.times == 19
    for config, count in ((TrainingConfig(), 40), (TrainingConfig(num_train_epochs=1), 20)):
        items = [item for batch in planned(config, every).batches for item in batch]
        assert sum(len(chosen) for _, chosen in items) == count
    assert sum(len(chosen) for batch in planned(TrainingConfig(), merged(ROWS)).batches for _, chosen in batch) == 7


def test_open_settings_follow_what_merging_saves(tiny_backbone):
    config = load_config("pairrm", [f"model.name_or_path={tiny_backbone}", "training.max_tokens_per_forward=64"])
    settings = replace(resolved(config), tokens_per_step=640)
    assert [settings.accumulation(times) for times in (1, 2, 5, 50)] == [10, 5, 2, 1]
    assert settings.accumulation(1, 5) == 2
    assert [settings.rate(times) for times in (1, 2, 4, 22)] == [2e-4, 2e-4, 1e-4, 2e-4]
    fixed = resolved(load_config("pairrm", [f"model.name_or_path={tiny_backbone}", "training.tokens_per_step=8192"]))
    assert [fixed.accumulation(times) for times in (1, 50)] == [4, 4]
    config = load_config("pairrm", [f"model.name_or_path={tiny_backbone}", "training.learning_rate=3e-4"])
    assert resolved(config).rate(4) == 3e-4


def test_two_compared_answers_that_do_not_fit_are_named():
    groups = merged(star(30, 40), text(max_length=128))
    with pytest.raises(ConfigError, match=r"row 'row \d+' takes \d+ tokens, more than .*max_tokens_per_forward 64"):
        planned(TrainingConfig(max_tokens_per_forward=64), groups)


def test_answers_that_see_each_other_have_candidates_per_prompt_in_a_block():
    rows = [pair(f"answer {a}", f"answer {b}") for a in range(10) for b in range(a)]
    config = TrainingConfig(candidates_per_prompt=(3, 4), num_train_epochs=2)
    plan = planned(config, merged(rows, text("set_encoder")))
    assert {len(chosen) for batch in plan.batches for _, chosen in batch} <= {2, 3, 4}


def test_losses_of_single_answers_read_every_answer():
    config = TrainingConfig(loss="mse", max_tokens_per_forward=64)
    groups = merged(star(30), needs=LossNeeds(answers=True))
    plan = planned(config, groups)
    assert "blocks" not in plan.summary(groups, 1, 1e-4)
    assert sorted(answer for batch in plan.batches for _, chosen in batch for answer in chosen) == list(range(31))


@pytest.mark.parametrize("name", ["bradley_terry", "list_net", "rank_net", "token_pairwise"])
def test_a_group_that_is_cut_has_the_gradient_of_the_rows_in_its_blocks(tmp_path, name):
    """And their size: of a star each block holds the best answer and some that lost to it."""
    model, tokenizer = decoder(tmp_path, "gpt2")
    rows, pipeline = star(20), TextPipeline(model.layout, tokenizer)
    config = TrainingConfig(loss=name, max_tokens_per_forward=64)
    loss, collate = losses.build(config.loss), Collator(pipeline)
    together, alone = Groups(rows, pipeline, merge=True), Groups(rows, pipeline)
    items = [item for batch in planned(config, together).batches for item in batch]
    assert len(items) > 3
    for item in items:
        (best,) = [a for a in item[1] if len(together.graphs[0].mentions[a]) > 1]
        losers = [together.graphs[0].mentions[a][0] for a in item[1] if a != best]
        actual, size = gradient(model, loss, collate, [together[item]])
        assert size == len(losers)
        assert_same(actual, gradient(model, loss, collate, [whole(alone, row) for row in losers])[0])


def test_ballast_of_a_merged_block_counts_nothing():
    groups = merged(ROWS)
    (graph,) = [graph for graph in groups.graphs if graph.merged]
    batch = Collator(groups.pipeline)([groups[(-1, tuple(range(len(graph.tokens.candidates))))]])
    assert batch["weight"].sum() == batch["list_weight"].sum() == batch["counted"] == 0
    assert batch["labels"].isnan().all()


def test_a_single_answer_that_does_not_fit_is_named():
    rows = [Preference("Q?", ("a" * 100,), ((1.0,),), id="long")] * 2
    groups = merged(rows, text(max_length=128), needs=LossNeeds(answers=True))
    with pytest.raises(ConfigError, match=r"row 'long' takes \d+ tokens"):
        planned(TrainingConfig(loss="mse", max_tokens_per_forward=64), groups)


def test_processes_share_out_the_blocks():
    config = TrainingConfig(max_tokens_per_forward=64, num_train_epochs=2)
    groups = merged(star(30) + ROWS)
    parts = [planned(config, groups, world=2, rank=rank).process_batches for rank in range(2)]
    together = [batch for step in zip(*parts, strict=True) for batch in step]
    assert [batch for batch in together if batch[0][0] >= 0] == planned(config, groups).batches


def test_the_plan_is_bound_to_which_rows_name_an_answer():
    one, other = merged([pair("a", "b"), pair("b", "c")]), merged([pair("a", "b"), pair("c", "b")])
    config = TrainingConfig()
    digests = [planned(config, groups).digest(groups) for groups in (one, other)]
    assert digests[0] != digests[1]


def test_a_large_file_is_merged_in_bounds():
    """Twenty thousand rows; time and memory grow with the rows, not with their square."""
    rng = random.Random(0)
    rows = [pair(f"{rng.randrange(3000)}", f"x{rng.randrange(3000)}", f"prompt {n % 100}") for n in range(20_000)]
    groups = merged(rows)
    assert sum(len(graph.rows) for graph in groups.graphs) == 20_000
    distinct = {(row.prompt, answer) for row in rows for answer in row.candidates}
    assert sum(len(graph.tokens.candidates) for graph in groups.graphs) == len(distinct)
    assert groups.repeats.answers == len(distinct)
    np.testing.assert_allclose(groups.repeats.prompts, 100)
