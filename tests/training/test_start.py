"""A run starts from a plain backbone or continues with a trained model; no head is lost in silence."""

import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ranker.checkpoints import native
from ranker.config import load_config
from ranker.errors import CheckpointError, ConfigError
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.training.start import starting_model, without_padding
from tests.checkpoints.layouts import openrlhf, pairrm
from tests.conftest import tiny
from tests.models.test_reward import ANSWERS, PROMPT, save_backbone, trained
from tests.support.selection import cases
from tests.training.test_adapters import run


def config(recipe, folder, *more):
    rows = ["output_dir=x", "data.train=[x]", "data.validation=[x]", "model.prompt_reserve=16", "model.max_length=128"]
    return load_config(recipe, [*rows, f"model.name_or_path={folder}", *more])


def scores(model, tokenizer):
    return TorchScorer(model, tokenizer).score([Group(PROMPT, ANSWERS)])[0].scores


@pytest.mark.parametrize(("recipe", "family"), [("encoder-bradley-terry", "bert"), ("decoder-bradley-terry", "llama")])
def test_a_trained_model_is_gone_on_with(recipe, family, tmp_path, caplog):
    folder, scorer = trained(tmp_path, family)
    with caplog.at_level(logging.WARNING):
        got = scores(*starting_model(config(recipe, folder)))
    np.testing.assert_allclose(got, scorer.score([Group(PROMPT, ANSWERS)])[0].scores, atol=1e-6)
    assert "training continues from" in caplog.text


def test_the_released_pairrm_and_our_pair_rankers_are_gone_on_with(tmp_path):
    checkpoint = pairrm(tmp_path)
    more = ("model.num_labels=3", "model.name_or_path=" + str(checkpoint.folder))
    np.testing.assert_allclose(
        scores(*starting_model(config("pairrm-original", checkpoint.folder, *more))), checkpoint.scores, atol=1e-4
    )
    native.save(*tiny("set_encoder"), tmp_path / "set")
    starting_model(config("pairrm", tmp_path / "set"))
    with pytest.raises(ConfigError, match="type 'set_encoder', but model.type is 'ordered_pair'"):
        starting_model(config("pairrm-original", tmp_path / "set"))


def test_another_trainer_s_head_is_gone_on_with_or_started_anew_on_purpose(tmp_path, caplog):
    folder, scorer = trained(tmp_path / "ours", "llama")
    old = scorer.score([Group(PROMPT, ANSWERS)])[0].scores
    assert (
        np.abs(scores(*starting_model(config("decoder-bradley-terry", folder, "model.init_head=true"))) - old).max()
        > 1e-3
    )
    checkpoint = openrlhf(tmp_path)
    np.testing.assert_allclose(
        scores(*starting_model(config("decoder-bradley-terry", checkpoint.folder))),
        checkpoint.scores,
        rtol=1e-5,
        atol=1e-5,
    )
    with caplog.at_level(logging.WARNING):
        fresh = scores(*starting_model(config("decoder-bradley-terry", checkpoint.folder, "model.init_head=true")))
    assert "new head on backbone" in caplog.text
    assert np.abs(fresh - checkpoint.scores).max() > 1e-2


def test_a_head_of_an_unknown_name_is_not_lost_in_silence(tmp_path):
    checkpoint = openrlhf(tmp_path)
    file = checkpoint.folder / checkpoint.file
    tensors = load_file(file)
    tensors["my_head.weight"] = tensors.pop(checkpoint.head)
    save_file(tensors, file, {"format": "pt"})
    settings = json.loads((checkpoint.folder / "config.json").read_text())
    del settings["value_head_prefix"]
    (checkpoint.folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(
        CheckpointError, match=r"'my_head\.weight' looks like a head.*--head-prefix my_head.*init_head=true"
    ):
        starting_model(config("decoder-bradley-terry", checkpoint.folder))


@pytest.mark.parametrize(
    ("recipe", "family"),
    cases(
        [
            ("encoder-bradley-terry", "bert"),
            ("encoder-bradley-terry", "deberta-v2"),
            ("decoder-bradley-terry", "llama"),
            ("pairrm", "bert"),
        ],
        lambda case: case[0] == "pairrm",
    ),
)
def test_training_without_padding_is_the_same_training(recipe, family, tmp_path):
    loaded = {}
    for free in ("false", "true"):
        folder = tmp_path / free
        folder.mkdir()
        more = (f"training.padding_free={free}", "training.activation_checkpointing=true", "training.precision=fp32")
        done = run(
            recipe, family, folder, *more, "lora=null", *(["model.head_dropout=0"] if recipe == "pairrm" else [])
        )
        results = done.scorer.score([p.group for p in done.validation])
        loaded[free] = np.concatenate([r.scores - r.scores.mean() for r in results])  # no comparison sees their level
    assert np.ptp(loaded["false"]) > 0.1
    np.testing.assert_allclose(loaded["true"], loaded["false"], atol=1e-2 * np.ptp(loaded["false"]))


def test_what_padding_is_needed_for_is_said_before_training(tmp_path, caplog):
    folder = save_backbone(tmp_path / "deberta", "deberta-v2")
    settings = config("encoder-bradley-terry", folder, "training.padding_free=true")
    with pytest.raises(ConfigError, match="'deberta-v2' has no variable-length kernel on a GPU"):
        without_padding(settings, starting_model(settings)[0], "cuda", bf16=True)
    dropped = config("encoder-bradley-terry", folder, "training.padding_free=true", "model.backbone_dropout=0.1")
    without_padding(dropped, starting_model(dropped)[0], "cpu", bf16=False)
    assert "attention has no dropout" not in caplog.text
    modern = save_backbone(tmp_path / "modern", "modernbert")
    for setting, what in {
        "model.type=shared_prompt": "masks of their own",
        "model.type=set_encoder": "do not see the other rows",
    }.items():
        settings = config("pairrm", modern, "training.padding_free=true", setting)
        with pytest.raises(ConfigError, match=what):
            without_padding(settings, starting_model(settings)[0], "cuda", bf16=True)
    settings = config("encoder-bradley-terry", modern, "training.padding_free=true", "model.backbone_dropout=0.1")
    without_padding(settings, starting_model(settings)[0], "cuda", bf16=True)
    assert "attention has no dropout; model.backbone_dropout 0.1 is that of the other layers" in caplog.text


@pytest.mark.parametrize(
    ("family", "setting", "device", "bf16", "free"),
    [
        ("bert", "", "cpu", False, True),
        ("bert", "model.type=set_encoder", "cpu", False, True),
        ("bert", "", "cpu", True, False),
        ("bert", "", "cuda", False, False),
        ("bert", "model.backbone_dropout=0.1", "cpu", False, False),
        ("bert", "model.type=shared_prompt", "cpu", False, False),
        ("bert", "model.type=ordered_pair", "cpu", False, False),
        ("deberta-v2", "", "cpu", False, True),
        ("deberta-v2", "", "cuda", True, False),
        ("mpnet", "", "cpu", False, True),
        ("bert", "training.padding_free=false", "cpu", False, False),
        ("bert", "training.padding_free=true", "cuda", True, True),
    ],
)
def test_padding_is_left_out_where_that_is_faster(tmp_path, family, setting, device, bf16, free):
    recipe = "pairrm" if "type" in setting else "encoder-bradley-terry"
    settings = config(recipe, save_backbone(tmp_path, family), *filter(None, [setting]))
    model, _ = starting_model(settings)
    assert without_padding(settings, model, device, bf16=bf16) is free


def test_a_trained_model_in_a_pickle_is_not_taken_for_a_backbone(tmp_path):
    checkpoint = openrlhf(tmp_path)
    torch.save(load_file(checkpoint.folder / checkpoint.file), checkpoint.folder / "pytorch_model.bin")
    (checkpoint.folder / checkpoint.file).unlink()
    with pytest.raises(CheckpointError, match="--allow-pickle"):
        starting_model(config("decoder-bradley-terry", checkpoint.folder))


def test_what_does_not_fit_is_named(tmp_path):
    folder, _ = trained(tmp_path, "bert")
    with pytest.raises(ConfigError, match="pooling 'first_token', but model.pooling is 'mean'"):
        starting_model(config("encoder-bradley-terry", folder, "model.pooling=mean"))
    model, _ = starting_model(config("encoder-bradley-terry", folder, "model.backbone_dropout=0.3"))
    assert model.base_model.encoder.layer[0].output.dropout.p == 0.3
    with pytest.raises(ConfigError, match="output 'scalar', but training.loss and model.aspects give 'accept_reject'"):
        starting_model(config("encoder-classify", folder))
    with pytest.raises(ConfigError, match="adapters start from a backbone and a new head"):
        starting_model(config("encoder-bradley-terry", folder, "lora.r=2"))
