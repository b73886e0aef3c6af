"""LoRA: the head is always in the adapter, the merged checkpoint scores the same, a lost head is refused."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from ranker.checkpoints import adapters as folders
from ranker.checkpoints import native
from ranker.checkpoints.adapters import AdapterSettings
from ranker.config import load_config
from ranker.config.models import PointwiseConfig
from ranker.errors import CheckpointError, ConfigError
from ranker.models import pointwise
from ranker.models.torch_scorer import TorchScorer
from ranker.training import lora
from ranker.training.train import train
from tests.conftest import FAMILIES, ROOT, tiny
from tests.models.test_reward import save_backbone
from tests.support.selection import cases


def run(recipe, family, tmp_path, *overrides, resume=False):
    backbone = tmp_path / "backbone"
    if not backbone.exists():
        save_backbone(backbone, family)
    config = load_config(
        recipe,
        [
            f"output_dir={tmp_path / 'run'}",
            f"model.name_or_path={backbone}",
            "model.max_length=128",
            f"data.train=[{ROOT / 'data' / 'train.jsonl'}]",
            f"data.validation=[{ROOT / 'data' / 'validation.jsonl'}]",
            "data.max_train_samples=16",
            "data.max_eval_samples=6",
            "training.report_to=[]",
            "training.precision=fp32",
            "training.max_tokens_per_forward=1024",
            "training.tokens_per_step=1024",
            "training.eval_steps=0.5",
            "training.learning_rate=1e-2",
            "lora.r=4",
            *overrides,
        ],
    )
    return train(config, resume=resume)


@pytest.mark.parametrize(
    ("recipe", "family"),
    cases(
        [
            ("decoder-bradley-terry", "llama"),
            ("decoder-bradley-terry", "gpt2"),
            ("encoder-bradley-terry", "bert"),
            ("encoder-bradley-terry", "deberta-v2"),
            ("encoder-bradley-terry", "modernbert"),
            ("pairrm", "bert"),
            ("pairrm-original", "bert"),
            ("steamshp", "t5"),
        ],
        lambda case: case[1] in ("llama", "t5") or case[0] == "pairrm",
    ),
)
def test_adapter_and_merged_checkpoint_score_like_the_live_model(recipe, family, tmp_path):
    trained = run(recipe, family, tmp_path)
    groups = [p.group for p in trained.validation]
    live = trained.scorer.score(groups)
    merged = TorchScorer(*native.load(trained.folder)).score(groups)
    adapter = TorchScorer(*native.load(tmp_path / "run" / "adapter")).score(groups)
    for a, b, c in zip(live, merged, adapter, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(a.scores, c.scores, atol=1e-4)
    updates = load_file(tmp_path / "run" / "adapter" / folders.WEIGHTS)
    idle = ("decoder.block.0.layer.0.SelfAttention.q", "decoder.block.0.layer.0.SelfAttention.k")
    for name, tensor in updates.items():  # one token in the decoder: which key it looks at has no gradient
        if "lora_B" in name and not any(part in name for part in idle):
            assert tensor.abs().max() > 0, f"{name} was not trained"
    saved = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    if recipe != "steamshp":  # its words come with the backbone
        assert saved["modules_to_save"]
        assert not set(saved["modules_to_save"]) & set(saved["target_modules"])


def test_only_the_head_and_the_updates_are_trained(tmp_path):
    folder = save_backbone(tmp_path / "backbone", "llama")
    model, _ = pointwise.from_backbone(str(folder), output="scalar", max_length=128, prompt_reserve=16)
    from ranker.config import LoraConfig

    adapted = lora.attach(
        model, LoraConfig(r=2), AdapterSettings(model=PointwiseConfig(name_or_path=str(folder)), output="scalar")
    )
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert all("lora_" in name or ".score." in name for name in trained)
    assert any(".score." in name for name in trained)
    model, _ = pointwise.from_backbone(str(folder), output="scalar", max_length=128, prompt_reserve=16)
    with pytest.raises(ConfigError, match=r"lora\.target_modules nothing: expected some of .*q_proj"):
        lora.attach(
            model,
            LoraConfig(r=2, target_modules=("nothing",)),
            AdapterSettings(model=PointwiseConfig(name_or_path=str(folder)), output="scalar"),
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pooler_of_every_encoder_is_part_of_the_head(family, tmp_path):
    folder = save_backbone(tmp_path / "backbone", family)
    model, _ = pointwise.from_backbone(str(folder), output="scalar", max_length=128, prompt_reserve=16)
    expected = {
        "bert": ["bert.pooler", "classifier"],
        "deberta-v2": ["pooler", "classifier"],
        "modernbert": ["head", "classifier"],
        "distilbert": ["pre_classifier", "classifier"],
    }.get(family, ["classifier"])
    assert lora.heads(model) == expected
    assert lora.heads(tiny("set_encoder", family=family)[0]) == ["head"]


def test_an_adapter_without_its_head_is_refused_by_name(tmp_path):
    run("decoder-bradley-terry", "llama", tmp_path)
    folder = tmp_path / "run" / "adapter"
    file = folder / folders.WEIGHTS
    tensors = load_file(file)
    kept = {name: tensor for name, tensor in tensors.items() if ".score." not in name}
    assert len(kept) < len(tensors)
    save_file(kept, file)
    with pytest.raises(CheckpointError, match="the head 'score' is missing"):
        native.load(folder)
    save_file({**tensors, next(iter(tensors)): next(iter(tensors.values()))[:0]}, file)
    with pytest.raises(CheckpointError, match="is empty or holds NaN"):
        native.load(folder)


@pytest.mark.usefixtures("unended")
def test_an_interrupted_adapter_run_resumes_to_the_same_weights(tmp_path):
    import shutil

    run("encoder-bradley-terry", "bert", tmp_path)
    whole = load_file(tmp_path / "run" / "adapter" / folders.WEIGHTS)
    steps = sorted((tmp_path / "run" / "steps").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    assert len(steps) == 2
    shutil.rmtree(steps[1])
    shutil.rmtree(tmp_path / "run" / "adapter")
    run("encoder-bradley-terry", "bert", tmp_path, resume=True)
    again = load_file(tmp_path / "run" / "adapter" / folders.WEIGHTS)
    for name, tensor in whole.items():
        np.testing.assert_array_equal(tensor, again[name], err_msg=name)


def test_an_adapter_of_another_model_is_not_continued(tmp_path):
    run("encoder-bradley-terry", "bert", tmp_path)
    (tmp_path / "run").rename(tmp_path / "earlier")
    (tmp_path / "earlier" / "adapter").rename(tmp_path / "first")
    onward = f"lora.continue_from={tmp_path / 'first'}"
    with pytest.raises(ConfigError, match=r"model\.pooling was first_token; lora\.r was 4"):
        run("encoder-bradley-terry", "bert", tmp_path, onward, "model.pooling=mean", "lora.r=8")
    with pytest.raises(CheckpointError, match=r"expected ranker_adapter\.json"):
        run("encoder-bradley-terry", "bert", tmp_path, f"lora.continue_from={tmp_path / 'nowhere'}")


def test_training_goes_on_from_an_adapter(tmp_path):
    first = run("encoder-bradley-terry", "bert", tmp_path)
    before = first.scorer.score([p.group for p in first.validation])
    (tmp_path / "run").rename(tmp_path / "earlier")
    (tmp_path / "earlier" / "adapter").rename(tmp_path / "first")
    again = run(
        "encoder-bradley-terry",
        "bert",
        tmp_path,
        f"lora.continue_from={tmp_path / 'first'}",
        "training.learning_rate=1e-9",
    )
    after = again.scorer.score([p.group for p in again.validation])
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-3)


def test_what_cannot_work_is_refused_before_training(tmp_path):
    assert load_config("decoder-bradley-terry", ["lora.quantization=4bit"]).lora.r == 16
    with pytest.raises(ConfigError, match=r"'armorm' freezes its backbone"):
        load_config("armorm", ["lora.r=4"])
    with pytest.raises(ConfigError, match="is for model.type pointwise or steamshp, got 'set_encoder'"):
        run("pairrm", "bert", tmp_path, "lora.quantization=4bit")


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_quantized_backbones_train_and_the_head_is_never_quantized(kind, tmp_path):
    pytest.importorskip("bitsandbytes")
    import torch

    from ranker.config.models import PointwiseConfig
    from ranker.models.backbones import quantization
    from ranker.models.build import new_model

    trained = run("decoder-bradley-terry", "llama", tmp_path, f"lora.quantization={kind}")
    saved = load_file(trained.folder / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    settings = PointwiseConfig(name_or_path=str(tmp_path / "backbone"), max_length=128)
    model, _ = new_model(settings, "scalar", options=quantization(kind))
    assert type(model.score) is torch.nn.Linear
    assert type(model.model.layers[0].self_attn.q_proj) is not torch.nn.Linear
    assert (tmp_path / "run" / "adapter").is_dir()
