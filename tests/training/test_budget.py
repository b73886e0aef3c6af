"""Forward passes of the size that fits the memory, found before the first step or when one runs out of it."""

import json
import logging

import pytest
import torch
from transformers import TrainerCallback

from ranker.config import TrainingConfig, load_config
from ranker.errors import ConfigError
from ranker.models import memory
from ranker.training import losses
from ranker.training.batches import grouped
from ranker.training.budget import TokensThatFit
from ranker.training.resume import END, STEPS, TOKENS
from ranker.training.train import train as fit
from ranker.training.trainer import RankerTrainer
from tests.conftest import tiny

SETTINGS = {
    "model.max_length": 128,
    "training.report_to": [],
    "training.precision": "fp32",
    "training.eval_steps": 1.0,
    "training.logging_steps": 1,
    "export.precisions": [],
    "training.tokens_per_step": 1600,
    "data.train": ["sample"],
    "data.max_train_samples": 40,
    "data.max_eval_samples": 4,
    "data.max_test_samples": 4,
}


class Gradients(TrainerCallback):
    """Those of the first step, of all weights in one vector."""

    first = None

    def on_pre_optimizer_step(self, args, state, control, *, model, **_):
        if self.first is None:
            self.first = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.fixture
def train(tiny_backbone, tmp_path):
    """Trains on the sample, in the folder ``name``."""

    def run(name="run", recipe="encoder-bradley-terry", resume=False, **settings):
        named = {key.replace("__", "."): value for key, value in settings.items()}
        named |= {"output_dir": str(tmp_path / name), "model.name_or_path": str(tiny_backbone)}
        overrides = [f"{key}={json.dumps(value)}" for key, value in (SETTINGS | named).items()]
        gradients = Gradients()
        trained = fit(load_config(recipe, overrides), resume=resume, callbacks=[gradients])
        return trained.steps, gradients.first

    run.folder = tmp_path
    return run


def find(preferences, **settings):
    model, tokenizer = tiny("pointwise")
    config = TrainingConfig(max_tokens_per_forward="auto", tokens_per_step=2048, **settings)
    loss = losses.build(config.loss)
    return TokensThatFit(config, grouped(config, preferences, model, tokenizer, loss), model, loss)


@pytest.fixture(scope="module")
def preferences():
    from ranker.data.load import load_preferences

    return load_preferences(["sample:validation"], limit=60).preferences


def test_a_pass_takes_what_the_memory_holds(preferences, monkeypatch):
    sizes = find(preferences)
    needed = {tokens: sizes._need(tokens) for tokens in (2048, 1024, 512)}
    assert needed[2048] > needed[1024] > needed[512]
    for tokens, wanted in needed.items():
        monkeypatch.setattr(memory, "free_memory", lambda device, wanted=wanted: int(wanted * 1.25))
        assert find(preferences).find() == tokens


def test_a_pass_that_does_not_run_is_halved(preferences, monkeypatch):
    sizes = find(preferences)
    tried = []
    runs = sizes._runs
    monkeypatch.setattr(sizes, "_runs", lambda tokens: (tried.append(tokens), tokens < 1024 and runs(tokens))[1])
    assert sizes.find() == 512
    assert tried == [2048, 1024, 512]


def test_the_trial_leaves_gradients_and_random_numbers_alone(preferences):
    sizes = find(preferences)
    state = torch.get_rng_state()
    assert sizes._runs(1024)
    assert all(parameter.grad is None for parameter in sizes.model.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_nothing_that_fits_is_an_error_that_says_what_helps(preferences, monkeypatch):
    sizes = find(preferences)
    monkeypatch.setattr(sizes, "_runs", lambda tokens: False)
    with pytest.raises(ConfigError, match=r"a pass of 256 tokens does not fit.*activation_checkpointing"):
        sizes.find()


def test_a_model_that_cannot_be_traced_is_tried(preferences, monkeypatch, caplog):
    def untraceable(*_, **__):
        raise RuntimeError("no fake tensors of this type")

    monkeypatch.setattr(memory, "training_memory", untraceable)
    with caplog.at_level(logging.INFO):
        assert find(preferences)._need(1024) == 0
        assert find(preferences).find() == 2048
    assert "cannot be traced (no fake tensors of this type); it is tried instead" in caplog.text


@pytest.mark.full
def test_a_run_finds_its_tokens_and_a_resumed_one_keeps_them(train, monkeypatch):
    train(training__max_tokens_per_forward="auto")
    file = train.folder / "run" / STEPS / TOKENS
    assert file.read_text() == "1600"
    file.write_text("800")
    (train.folder / "run" / STEPS / END).unlink()  # as if it had been stopped: a finished run is not planned anew
    calls = []
    monkeypatch.setattr(TokensThatFit, "find", lambda self: calls.append(1))
    with pytest.raises(ConfigError, match="changed since the run was interrupted"):  # other passes are another plan
        train(training__max_tokens_per_forward="auto", resume=True)
    assert calls == []


class OutOfMemory:
    """A device on which passes of more than ``limit`` tokens fail, the first time in the middle of the backward pass."""

    def __init__(self, monkeypatch, limit, *, backward=False):
        self.tokens = []
        self.limit = limit
        self.backward = backward
        loss = RankerTrainer.compute_loss

        def compute_loss(trainer, model, inputs, *args, **kwargs):
            tokens = inputs["input_ids"].numel()
            self.tokens.append(tokens)
            if tokens > self.limit and not self.backward:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            value = loss(trainer, model, inputs, *args, **kwargs)
            if tokens > self.limit:
                embedding = model.get_input_embeddings().weight
                self._handle = embedding.register_hook(self._fail)
            return value

        monkeypatch.setattr(RankerTrainer, "compute_loss", compute_loss)

    def _fail(self, gradient):
        self._handle.remove()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def check_same(one, other):
    """The same steps, and gradients that differ by rounding."""
    assert one[0] == other[0]
    torch.testing.assert_close(other[1], one[1], rtol=0, atol=1e-5 * float(one[1].abs().max()))


@pytest.mark.full
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("tokens", [800, 1600])
def test_out_of_memory_halves_the_pass_and_keeps_the_step(train, monkeypatch, caplog, tokens, backward):
    whole = train("whole", training__max_tokens_per_forward=tokens)
    with monkeypatch.context() as patched:
        device = OutOfMemory(patched, 500, backward=backward)
        cut = train("cut", training__max_tokens_per_forward=tokens)
    check_same(whole, cut)
    assert max(device.tokens) > 500 >= device.tokens[-1]
    assert sum(count > 500 for count in device.tokens) <= 2  # later passes are cut before they are tried
    assert "out of memory with" in caplog.text
    assert "the step is computed again with at most" in caplog.text


def test_out_of_memory_with_one_group_says_what_helps(train, monkeypatch):
    OutOfMemory(monkeypatch, 10)
    with pytest.raises(
        RuntimeError, match=r"out of memory with a single group of \d+ tokens; set training\.activation"
    ):
        train(training__max_tokens_per_forward=800)


def test_another_error_of_a_step_is_raised_as_it_is(train, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(RankerTrainer, "compute_loss", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train()


@pytest.mark.parametrize("recipe", ["encoder-bradley-terry", "pairrm"])
@pytest.mark.full
def test_buckets_and_prefetching_train_what_plain_passes_do(train, recipe):
    common = {"training__max_tokens_per_forward": 100_000, "training__tokens_per_step": 100_000}
    if recipe == "pairrm":
        common["model__head_dropout"] = 0.0
    plain = train("plain", recipe, **common)
    other = train("other", recipe, training__length_buckets=True, training__prefetch_batches=3, **common)
    check_same(plain, other)


@pytest.mark.full
def test_buckets_train_with_few_shapes(train, monkeypatch):
    device = OutOfMemory(monkeypatch, 10**9)
    shapes = set()
    loss = RankerTrainer.compute_loss

    def watched(trainer, model, inputs, *args, **kwargs):
        shapes.add(tuple(inputs["input_ids"].shape))
        return loss(trainer, model, inputs, *args, **kwargs)

    monkeypatch.setattr(RankerTrainer, "compute_loss", watched)
    train(training__length_buckets=True, training__max_tokens_per_forward=800)
    assert device.tokens
    assert all(length % 8 == 0 for _, length in shapes)
