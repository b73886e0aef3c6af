import json
import re
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from ranker import progress
from ranker.config import MODEL_TYPES, LossConfig, TrainingConfig, load_config
from ranker.records import Preference, subset_of
from ranker.scoring.pipeline import TextPipeline
from ranker.training import trainer
from ranker.training.groups import Groups
from ranker.training.losses import LOSSES, listwise
from ranker.training.train import train
from ranker.training.trainer import RankerTrainer
from tests.conftest import LAYOUTS, tiny
from tests.support.selection import cases
from tests.training.test_batches import plan, preferences


def trainer_for(layout, tmp_path, **kwargs):
    model, tokenizer = tiny(layout)
    groups = Groups(preferences(10), TextPipeline(model.layout, tokenizer))
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to=[], disable_tqdm=True, learning_rate=1e-3, max_steps=1
    )
    return RankerTrainer(
        model,
        arguments,
        groups=groups,
        plan=plan(groups),
        validation=preferences(2),
        tokenizer=tokenizer,
        config=TrainingConfig(**kwargs),
    )


@pytest.mark.parametrize("layout", cases(LAYOUTS, lambda layout: layout in ("set_encoder", "ordered_pair")))
def test_the_gradient_does_not_depend_on_how_a_step_is_cut(layout, tmp_path):
    """Micro-batches divide by the weight of the whole step, not by their own."""
    trainer = trainer_for(layout, tmp_path)
    model = trainer.model.eval()
    items = [(row, tuple(range(min(3, len(p.candidates))))) for row, p in enumerate(trainer.train_dataset.preferences)]
    gradients = []
    for size in (len(items), 3):
        model.zero_grad()
        cut = [items[i : i + size] for i in range(0, len(items), size)]
        batches = [trainer.data_collator([trainer.train_dataset[item] for item in part]) for part in cut]
        _, total = trainer.get_batch_samples(iter(batches), len(batches), torch.device("cpu"))
        for batch in batches:
            trainer.compute_loss(model, batch, num_items_in_batch=total).backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3)


def test_the_head_learns_at_its_own_rate_and_only_matrices_decay(tmp_path):
    trainer = trainer_for("set_encoder", tmp_path, head_lr_multiplier=10.0)
    optimizer = trainer.create_optimizer()
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    named = dict(trainer.model.named_parameters())
    assert len(rates) == len(named)
    assert rates[id(named["head.out.weight"])][0] == pytest.approx(1e-2)
    assert rates[id(named["backbone.embeddings.word_embeddings.weight"])][0] == pytest.approx(1e-3)
    assert rates[id(named["head.out.bias"])][1] == 0.0


def test_consistency_penalises_position_bias(tmp_path):
    plain, penalised = (
        trainer_for("ordered_pair", tmp_path, loss={"type": "bradley_terry", "order_consistency": c})
        for c in (0.0, 1.0)
    )
    items = [(0, (0, 1)), (1, (0, 1))]
    batch = plain.data_collator([plain.train_dataset[i] for i in items])
    model = plain.model.eval()
    scores = model(**{k: batch[k] for k in ("input_ids", "block_ids", "position_ids", "readout")}).detach()[..., 0]
    logits = scores[:, 0] - scores[:, 1]
    expected = ((logits[0::2] + logits[1::2]) ** 2).mean()
    difference = penalised.compute_loss(model, batch) - plain.compute_loss(model, batch)
    torch.testing.assert_close(difference.detach(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["list_net", "list_mle", "rank_net"])
def test_list_losses_read_the_scores_of_their_group(name, tmp_path):
    from ranker.models.torch_scorer import TorchScorer

    trainer = trainer_for("shared_prompt", tmp_path, loss=name)
    model, rows = trainer.model.eval(), trainer.train_dataset.preferences
    items = [(0, tuple(range(4))), (1, tuple(range(3))), (len(rows) - 1, (0, 1))]
    examples = [trainer.train_dataset[item] for item in items]
    got = trainer.compute_loss(model, trainer.data_collator(examples)).item()
    expected = []
    for number, chosen in items:
        (result,) = TorchScorer(model, trainer.tokenizer).score([subset_of(rows[number], chosen).group])
        labels = torch.tensor([[row[0] for row in subset_of(rows[number], chosen).labels()]])
        scores = torch.from_numpy(result.scores)[None]
        expected.append(getattr(listwise, name)(scores, labels, torch.ones_like(labels, dtype=torch.bool)).item())
    assert got == pytest.approx(sum(expected) / 3, rel=1e-4)


def test_the_registry_of_losses_has_every_loss_of_the_configuration():
    tags = [tag for cls in get_args(get_args(LossConfig)[0]) for tag in get_args(cls.model_fields["type"].annotation)]
    assert sorted(LOSSES) == sorted(set(tags) - {"custom"})
    assert set().union(*(cls.losses for cls in MODEL_TYPES.values())) == set(tags)


def trainer_on(family, tmp_path, output="scalar", **settings):
    """A trainer of a pointwise model."""
    from ranker.models import pointwise
    from tests.models.test_reward import save_backbone

    folder = save_backbone(tmp_path / "backbone", family)
    model, tokenizer = pointwise.from_backbone(str(folder), output=output, max_length=128, prompt_reserve=32)
    groups = Groups(preferences(4), TextPipeline(model.layout, tokenizer))
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], remove_unused_columns=False)
    return RankerTrainer(
        model,
        arguments,
        groups=groups,
        plan=plan(groups),
        validation=preferences(2),
        tokenizer=tokenizer,
        config=TrainingConfig(**settings),
    )


def test_token_loss_compares_differing_tokens_and_never_padding(tmp_path):
    """Against a loop over tokens; a shorter answer keeps the value of its last token."""
    trainer = trainer_on("llama", tmp_path, loss="token_pairwise")
    groups, model = trainer.train_dataset, trainer.model.eval()
    example = groups[(0, (0, 1))]
    batch = trainer.data_collator([example])
    values = model(**{k: batch[k] for k in ("input_ids", "block_ids", "position_ids")}, every_token=True)[..., 0]
    ids, lengths = batch["input_ids"].tolist(), (batch["block_ids"] >= 0).sum(dim=1).tolist()
    better, worse = (0, 1) if batch["targets"][0, 0] > 0.5 else (1, 0)
    assert lengths[0] != lengths[1]
    losses, differs = [], False
    for t in range(max(lengths)):
        over = [t >= length for length in lengths]
        differs = differs or over[0] != over[1] or ids[0][t] != ids[1][t]
        if differs:
            held = [values[row, min(t, lengths[row] - 1)].item() for row in (0, 1)]
            losses.append(np.log1p(np.exp(held[worse] - held[better])))
    got = trainer.compute_loss(model, batch)
    np.testing.assert_allclose(got.item(), np.mean(losses), rtol=1e-5)


def test_token_loss_compares_answers_where_the_prompt_was_cut(tmp_path):
    """The longer answer's prompt is cut, so the two begin at different places; only answer tokens are compared."""
    trainer = trainer_on("llama", tmp_path, loss="token_pairwise")
    model = trainer.model.eval()
    row = Preference("a long prompt " * 60, ("yes " * 4, "no, and " * 30), ((1.0,), (0.0,)))
    groups = Groups([row], trainer.train_dataset.pipeline)
    batch = trainer.data_collator([groups[(0, (0, 1))]])
    blocks = batch["block_ids"].tolist()
    begins, ends = [row.index(1) for row in blocks], [sum(b >= 0 for b in row) for row in blocks]
    assert begins[0] != begins[1]
    values = model(**{k: batch[k] for k in ("input_ids", "block_ids", "position_ids")}, every_token=True)[..., 0]
    ids, losses, differs = batch["input_ids"].tolist(), [], False
    for t in range(max(e - b for b, e in zip(begins, ends, strict=True))):
        at = [b + t for b in begins]
        over = [a >= e for a, e in zip(at, ends, strict=True)]
        differs = differs or over[0] != over[1] or ids[0][at[0]] != ids[1][at[1]]
        if differs:
            held = [values[row, min(at[row], ends[row] - 1)].item() for row in (0, 1)]
            losses.append(np.log1p(np.exp(held[1] - held[0])))
    np.testing.assert_allclose(trainer.compute_loss(model, batch).item(), np.mean(losses), rtol=1e-5)


def test_token_spans_narrow_what_is_compared(tmp_path):
    """Against a loop over the tokens whose characters are in a span of either answer."""
    trainer = trainer_on("llama", tmp_path, loss="token_pairwise")
    groups, model = trainer.train_dataset, trainer.model.eval()
    answers = ("it opened in 1931 and closed", "it closed in 1913 or so, they say")
    spans = (((13, 17),), ((3, 9), (13, 17)))
    row = Preference("when?", answers, ((1.0,), (0.0,)), label=1.0, spans=spans)
    again = Groups([row, replace(row, spans=())], groups.pipeline)
    batch = trainer.data_collator([again[(0, (0, 1))], again[(1, (0, 1))]])
    assert batch["weight"].tolist() == [1.0, 1.0]
    blocks, compared = batch["block_ids"], batch["compared"]
    begin = int((blocks[0] > 0).int().argmax())
    assert batch["left"][0, 0] == 0
    assert batch["right"][0, 0] == 1
    for place, (answer, parts) in enumerate(zip(answers, spans, strict=True)):
        ids = batch["input_ids"][place][compared[0, place]].numpy()
        inside = "".join(answer[a:b] for a, b in parts)
        assert groups.pipeline.tokenizer.decode(ids).replace(" ", "").replace("##", "") == inside
    assert torch.equal(compared[1], blocks[2:] > 0)
    values = model(**{k: batch[k] for k in ("input_ids", "block_ids", "position_ids")}, every_token=True)[..., 0]
    lengths = (blocks >= 0).sum(dim=1).tolist()
    narrow = [t for t in range(begin, max(lengths[:2])) if any(t < lengths[r] and compared[0, r, t] for r in (0, 1))]
    differing = [
        t
        for t in narrow
        if t >= lengths[0] or (batch["input_ids"][0, begin : t + 1] != batch["input_ids"][1, begin : t + 1]).any()
    ]
    held = [[values[r, min(t, lengths[r] - 1)].item() for r in (0, 1)] for t in differing]
    expected = np.mean([np.log1p(np.exp(worse - better)) for better, worse in held])
    only = trainer.data_collator([again[(0, (0, 1))]])
    np.testing.assert_allclose(trainer.compute_loss(model, only).item(), expected, rtol=1e-5)
    whole = trainer.data_collator([again[(1, (0, 1))]])
    assert "compared" not in whole
    both = trainer.compute_loss(model, batch).item()
    np.testing.assert_allclose(both, (expected + trainer.compute_loss(model, whole).item()) / 2, rtol=1e-5)


def test_what_a_cut_answer_has_lost_is_not_compared(tmp_path):
    trainer = trainer_on("llama", tmp_path, loss="token_pairwise")
    pipeline = trainer.train_dataset.pipeline
    long = "yes " * 200
    row = Preference("when?", (long, "no"), ((1.0,), (0.0,)), label=1.0, spans=(((len(long) - 4, len(long)),), ()))
    batch = trainer.data_collator([Groups([row], pipeline)[(0, (0, 1))]])
    assert batch["input_ids"].shape[1] == pipeline.layout.max_length
    assert not batch["compared"].any()
    assert trainer.compute_loss(trainer.model.eval(), batch).item() == 0


def test_class_weights_and_label_smoothing_reach_the_loss(tmp_path):
    loss = {
        "type": "cross_entropy",
        "accept_threshold": 0.7,
        "class_weights": (1.0, 3.0),
        "label_smoothing_factor": 0.1,
    }
    trainer = trainer_on("bert", tmp_path, output="accept_reject", loss=loss)
    model, example = trainer.model.eval(), trainer.train_dataset[(0, (0, 1, 2))]
    batch = trainer.data_collator([example])
    logits = model(**{k: batch[k] for k in ("input_ids", "block_ids", "position_ids")})[:, 0]
    labels = torch.tensor([int(row[0] >= 0.7) for row in example.lists[0].labels])
    log_p, weights = logits.log_softmax(-1), torch.tensor([1.0, 3.0])
    picked = -(weights[labels] * log_p[range(3), labels])
    expected = 0.9 * picked + 0.1 * -(weights * log_p).sum(-1) / 2
    torch.testing.assert_close(trainer.compute_loss(model, batch), expected.mean())


def test_held_out_numbers_come_from_the_serving_path(tmp_path):
    from ranker.metrics import pairwise_summary
    from ranker.models.torch_scorer import TorchScorer

    trainer = trainer_for("set_encoder", tmp_path)
    expected = pairwise_summary(
        trainer.validation,
        TorchScorer(trainer.model, trainer.tokenizer).score([p.group for p in trainer.validation]),
    )
    assert trainer.evaluate()["eval_accuracy"] == expected.accuracy.value


def test_a_run_shows_its_figures_from_the_first_step_and_moves_while_rows_are_validated(
    tiny_backbone, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(trainer, "SLICE", 4)
    monkeypatch.setenv(progress.EVERY_S_OF, "0")
    overrides = {
        "output_dir": str(tmp_path),
        "model.name_or_path": str(tiny_backbone),
        "model.max_length": 128,
        "data.train": ["sample"],
        "data.max_train_samples": 60,
        "data.max_eval_samples": 10,
        "training.report_to": [],
        "training.eval_steps": 1.0,
        "training.logging_steps": 1000,
    }
    config = load_config("encoder-bradley-terry", [f"{name}={json.dumps(value)}" for name, value in overrides.items()])
    with progress.shown():
        train(config)
    lines = capsys.readouterr().err.splitlines()
    steps = [line for line in lines if line.startswith("ranker: train: ")]
    assert re.match(r"ranker: train: 2 of \d+ steps, loss 0\.\d{3}, accuracy 0\.\d{3}", steps[1])
    assert "eval_accuracy 0." in steps[-1]
    validated = [int(n) for n in re.findall(r"validating: (\d+) of 10 rows", "\n".join(lines))]
    assert {4, 8, 10} <= set(validated)


@pytest.mark.parametrize(
    ("setting", "expected"), [("save_steps=2", {2, 4, 6}), ("save_minutes=1e-9", {1, 2, 3, 4, 5, 6})]
)
def test_checkpoints_come_between_evaluations_too(setting, expected, tiny_backbone, tmp_path, monkeypatch):
    saved = []
    finish = trainer.RankerTrainer._finish_checkpoint
    monkeypatch.setattr(
        trainer.RankerTrainer,
        "_finish_checkpoint",
        lambda self, draft, final: (saved.append(self.state.global_step), finish(self, draft, final)),
    )
    overrides = [
        f"output_dir={tmp_path}",
        f"model.name_or_path={tiny_backbone}",
        "model.max_length=128",
        "data.train=[sample]",
        "data.max_train_samples=60",
        "data.max_eval_samples=4",
        "training.report_to=[]",
        "training.eval_steps=5",
        f"training.{setting}",
    ]
    trained = train(load_config("encoder-bradley-terry", overrides))
    assert trained.steps >= 6
    assert expected <= set(saved)
    assert {5, trained.steps} <= set(saved), "those of evaluations stay"
    assert len(saved) == len(set(saved))
    if setting == "save_steps=2":
        assert 1 not in saved
