"""The memory of a pass is known before it runs: beside what torch allocates, and what the process takes."""

import subprocess
import sys

import pytest
import torch

from ranker.models import memory, pointwise
from ranker.models.memory import LiveBytes, scoring_memory, training_memory
from tests.conftest import tiny
from tests.models.test_reward import save_backbone
from tests.support.selection import cases

ROWS, LENGTH = 24, 96
KINDS = ("bert", "deberta-v2", "mpnet", "modernbert", "set_encoder", "llama")
WAYS = ("fp32", "bf16", "checkpointing")
CASES = [(kind, way) for kind in KINDS for way in WAYS if (kind, way) != ("mpnet", "checkpointing")]  # it has none
QUICK = (("bert", "fp32"), ("llama", "fp32"), ("bert", "checkpointing"))


def model_of(kind, folder):
    if kind == "llama":
        backbone = str(save_backbone(folder, "llama"))
        return pointwise.from_backbone(backbone, output="scalar", max_length=128, prompt_reserve=32)[0]
    return tiny("set_encoder")[0] if kind == "set_encoder" else tiny("pointwise", family=kind)[0]


def arrays_of(kind, rows=ROWS, length=LENGTH):
    arrays = {
        "input_ids": torch.randint(5, 600, (rows, length)),
        "block_ids": torch.zeros(rows, length, dtype=torch.long),
        "position_ids": torch.arange(length).repeat(rows, 1),
    }
    arrays["block_ids"][::2, length // 2 :] = -1
    return arrays | ({"members": torch.arange(rows)[:, None] ^ 1} if kind == "set_encoder" else {})


def loss(forward, arrays):
    return forward(**arrays).pow(2).mean()


def measured(model, arrays, autocast):
    """The most that two steps of training have alive beside the weights."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    with LiveBytes() as bytes_:
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast is not None):
                value = loss(model, arrays)
            torch.autograd.backward(value)
            optimizer.step()
            del value
            optimizer.zero_grad()
    return bytes_.peak


@pytest.mark.parametrize(("kind", "way"), cases(CASES, QUICK.__contains__))
def test_training_takes_what_was_said(kind, way, tmp_path):
    model, arrays = model_of(kind, tmp_path / "backbone").train(), arrays_of(kind)
    autocast = torch.bfloat16 if way == "bf16" else None
    if way == "checkpointing":
        model.gradient_checkpointing_enable()
    expected = training_memory(model, loss, arrays, autocast=autocast)
    assert measured(model, arrays, autocast) == pytest.approx(expected.beyond_weights, rel=0.25)


@pytest.mark.parametrize("kind", cases(KINDS, ("deberta-v2", "set_encoder").__contains__))
def test_scoring_takes_what_was_said(kind, tmp_path):
    model, arrays = model_of(kind, tmp_path / "backbone").eval(), arrays_of(kind)
    expected = scoring_memory(model, lambda forward, inputs: forward(**inputs), arrays)
    with LiveBytes() as bytes_, torch.no_grad():
        model(**arrays)
    assert bytes_.peak == pytest.approx(expected.passing, rel=0.25)
    assert expected.gradients == expected.states == 0


def test_frozen_weights_have_no_states(tmp_path):
    model = model_of("bert", tmp_path).train()
    whole = training_memory(model, loss, arrays_of("bert"))
    model.base_model.requires_grad_(False)
    head = training_memory(model, loss, arrays_of("bert"))
    assert head.weights == whole.weights
    assert head.states < whole.states / 10
    assert head.passing < whole.passing


def test_tracing_leaves_the_model_as_it_was(tmp_path):
    model = model_of("bert", tmp_path).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training_memory(model, loss, arrays_of("bert"))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert type(next(model.parameters()).data) is torch.Tensor


CHILD = """
import resource, torch
from transformers import BertConfig, BertForSequenceClassification
from ranker.models.memory import training_memory
torch.manual_seed(0)
torch.set_num_threads(2)
config = BertConfig(vocab_size=1000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024)
model = BertForSequenceClassification(config).train()
def loss(forward, arrays):
    return forward(**arrays).logits.pow(2).mean()
optimizer = torch.optim.AdamW(model.parameters())
def step(rows):
    arrays = {"input_ids": torch.randint(5, 900, (rows, 256))}
    torch.autograd.backward(loss(model, arrays))
    optimizer.step()
    optimizer.zero_grad()
    return arrays
step(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
arrays = step(40)
taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
print(taken / training_memory(model, loss, arrays).passing)
"""


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units")
def test_a_process_takes_what_was_said():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CHILD], capture_output=True, text=True, check=True)
    assert 0.75 < float(done.stdout.split()[-1]) < 1.25


def test_the_largest_size_that_fits_is_taken():
    free = 1000
    sizes = [800, 400, 200]
    assert memory.fitting(lambda size: size, sizes, free) == 800
    assert memory.fitting(lambda size: 2 * size, sizes, free) == 400
    assert memory.fitting(lambda size: 10 * size, sizes, free) == 200


def test_free_memory_is_what_the_machine_and_its_limit_leave(tmp_path, monkeypatch):
    for name, text in {"MEMORY": "MemAvailable: 1000 kB\n", "MEMORY_LIMIT": "max\n", "MEMORY_USED": "5\n"}.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(memory, name, tmp_path / name)
    assert memory.free_memory(torch.device("cpu")) == 1024_000
    (tmp_path / "MEMORY_LIMIT").write_text("600005")
    assert memory.available_memory() == 600_000
    (tmp_path / "MEMORY_LIMIT").unlink()
    assert memory.available_memory() == 1024_000
