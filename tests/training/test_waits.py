"""A training step does not wait for the device: nothing of it is read, and nothing is chosen by a mask, on the host."""

import traceback
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ranker
from ranker.training.trainer import RankerTrainer
from tests.models.test_reward import TEMPLATE, save_backbone
from tests.support.selection import cases

READS = (
    "aten._local_scalar_dense.default",
    "aten.nonzero.default",
    "aten.masked_select.default",
    "aten._unique2.default",
    "aten.equal.default",
)
INDEXED = ("aten.index.Tensor", "aten.index_put.default", "aten.index_put_.default")
RECIPES = ("pairrm", "encoder-regress", "encoder-bradley-terry", "encoder-classify", "listwise", "pairrm-original")
DECODERS = ("decoder-bradley-terry", "decoder-token-pairwise", "decoder-classify")


class Waits(TorchDispatchMode):
    """Counts the operations that wait for a device, by the line that asked for them."""

    def __init__(self):
        super().__init__()
        self.places = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masks = [index for index in args[1] if index is not None] if str(func) in INDEXED else []
        if str(func) in READS or any(index.dtype in (torch.bool, torch.uint8) for index in masks):
            frames = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename]
            last = frames[-2]
            self.places[f"{last.filename.rpartition('site-packages/')[2]}:{last.lineno} {func}"] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def waits(monkeypatch):
    """What waits in the steps of the trainings that a test runs."""
    mode = Waits()
    step = RankerTrainer.training_step

    def watched(self, *args, **kwargs):
        with mode:
            return step(self, *args, **kwargs)

    monkeypatch.setattr(RankerTrainer, "training_step", watched)
    return mode.places


def train(recipe, family, folder, **others):
    backbone = save_backbone(folder / "backbone", family, **({"template": TEMPLATE} if family == "llama" else {}))
    settings = {
        "model.name_or_path": str(backbone),
        "model.max_length": 128,
        "training.report_to": [],
        "training.precision": "fp32",
        "training.eval_steps": 1.0,
        "export.precisions": [],
        **others,
    }
    sizes = {"max_train_samples": 24, "max_eval_samples": 4, "max_test_samples": 4}
    return ranker.train(recipe, output_dir=folder / "run", data={"train": ["sample"], **sizes}, **settings)


@pytest.mark.parametrize("recipe", cases(RECIPES, "encoder-regress".__eq__))
def test_a_step_of_an_encoder_waits_for_nothing(recipe, waits, tmp_path):
    assert train(recipe, "bert", tmp_path).steps > 0
    assert waits == {}


@pytest.mark.full
@pytest.mark.parametrize(
    ("recipe", "family"),
    cases(
        [("encoder-bradley-terry", "bert"), ("pairrm", "electra"), ("decoder-bradley-terry", "llama")],
        ("pairrm", "electra").__eq__,
    ),
)
def test_a_step_without_padding_waits_for_nothing(recipe, family, waits, tmp_path):
    layout = {"model.type": "set_encoder"} if recipe == "pairrm" else {}
    assert train(recipe, family, tmp_path, **{"training.padding_free": True}, **layout).steps > 0
    assert waits == {}


@pytest.mark.full
@pytest.mark.parametrize("recipe", DECODERS)
def test_a_step_of_a_decoder_waits_only_where_transformers_does(recipe, waits, tmp_path):
    assert train(recipe, "llama", tmp_path).steps > 0
    assert [place for place in waits if not place.startswith("transformers/")] == []


def test_what_waits_is_seen():
    values = torch.arange(3.0)
    with Waits() as mode:
        values[values > 1]
        float(values.sum())
    assert len(mode.places) == 2


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_on_a_gpu_waits_for_nothing(recipe, tmp_path, monkeypatch):
    """By the driver's own count: an operation that waits raises."""
    step = RankerTrainer.training_step

    def strict(self, *args, **kwargs):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return step(self, *args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(RankerTrainer, "training_step", strict)
    settings = {"training.precision": "bf16", "training.prefetch_batches": 2, "training.length_buckets": True}
    assert train(recipe, "bert", tmp_path, **settings).steps > 0
