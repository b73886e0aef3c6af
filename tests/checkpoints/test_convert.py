"""There and back: every format that is written is read by its own loader with the same scores, to the bit."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

import ranker
from ranker.checkpoints import native
from ranker.checkpoints.convert import TARGETS, convert
from ranker.checkpoints.inspection import inspect
from ranker.errors import CheckpointError, ConfigError
from ranker.models import pairwise
from tests.checkpoints.layouts import (
    CHECKPOINTS,
    adapter,
    configured,
    last_states,
    llama_factory,
    openrlhf,
    read_tensors,
    rows_of,
    token_classifier,
)
from tests.conftest import tiny
from tests.models.test_reward import ANSWERS, PROMPT, save_backbone, trained

SCORED = list(ANSWERS)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_as_its_trainer_leaves_it(name, tmp_path):
    checkpoint = CHECKPOINTS[name](tmp_path)
    assert inspect(checkpoint.folder, **checkpoint.options).format == name.partition(" (")[0].replace(
        "T5", "T5 (SteamSHP)"
    )
    assert np.ptp(checkpoint.scores) > 1e-4
    scores = ranker.load(checkpoint.folder, **checkpoint.options).score(PROMPT, SCORED)
    np.testing.assert_allclose(scores, checkpoint.scores, rtol=1e-4, atol=1e-4)
    convert(checkpoint.folder, tmp_path / "ours", **checkpoint.options)
    np.testing.assert_allclose(
        ranker.load(tmp_path / "ours").score(PROMPT, SCORED), checkpoint.scores, rtol=1e-4, atol=1e-4
    )
    stored = {t.dtype for t in load_file(tmp_path / "ours" / "model.safetensors").values()}
    assert stored == ({torch.bfloat16} if name == "OpenRLHF" else {torch.float32})


BACK = {
    "OpenRLHF": "openrlhf",
    "LLaMA-Factory value head": "llama-factory",
    "sentence-transformers CrossEncoder": "crossencoder",
}


@pytest.mark.parametrize("name", BACK)
def test_there_and_back_is_equal_to_the_bit(name, tmp_path):
    checkpoint = CHECKPOINTS[name](tmp_path)
    folder, expected = checkpoint.folder, checkpoint.scores
    convert(folder, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back", BACK[name])
    assert inspect(tmp_path / "back").format == name
    for file in ("model.safetensors", *(["value_head.safetensors"] if "Factory" in name else [])):
        then, now = load_file(folder / file), load_file(tmp_path / "back" / file)
        then = {key.replace("value_head.", "score."): tensor for key, tensor in then.items()}  # its name of today
        assert set(then) - set(now) <= {"lm_head.weight"}, "only the language-model head may be dropped"
        for key, tensor in now.items():
            assert torch.equal(tensor, then[key]), key
            assert tensor.dtype == then[key].dtype
    np.testing.assert_allclose(ranker.load(tmp_path / "back").score(PROMPT, SCORED), expected, rtol=1e-5, atol=1e-5)
    if name == "OpenRLHF":
        config = json.loads((tmp_path / "back" / "config.json").read_text())
        assert (config["mean"], config["std"], config["value_head_prefix"]) == (0.5, 2.0, "score")
        assert "num_labels" not in config


@pytest.mark.parametrize(
    "name", ["HF sequence classification (decoder)", "HF sequence classification (encoder)", "T5 (SteamSHP)"]
)
def test_the_library_s_own_formats_there_and_back(name, tmp_path):
    checkpoint = CHECKPOINTS[name](tmp_path)
    file = checkpoint.folder / checkpoint.file
    save_file({k: v.bfloat16() for k, v in load_file(file).items()}, file, {"format": "pt"})
    convert(checkpoint.folder, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back", "hf")
    then, now = load_file(file), load_file(tmp_path / "back" / "model.safetensors")
    assert then.keys() == now.keys()
    assert all(torch.equal(then[key], now[key]) and then[key].dtype == now[key].dtype for key in then)


@pytest.mark.parametrize("name", ["HF token classification", "trlx", "ArmoRM"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_formats_without_a_writer_keep_every_bit_of_what_is_read(name, tmp_path):
    checkpoint = CHECKPOINTS[name](tmp_path)
    convert(checkpoint.folder, tmp_path / "ours", **checkpoint.options)
    then = {key.replace("v_head.", "score."): t for key, t in read_tensors(checkpoint.folder / checkpoint.file).items()}
    now = {
        key.replace("backbone.", "model."): t for key, t in load_file(tmp_path / "ours" / "model.safetensors").items()
    }
    assert set(then) - set(now) <= {"transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias"}, "buffers"
    assert set(now) <= set(then)
    assert all(torch.equal(then[key], now[key]) for key in now)


class RewardModel(nn.Module):
    """OpenRLHF's: the base model under its prefix, a bias-free head of the configured name, the mask's last token."""

    def __init__(self, folder):
        super().__init__()
        config = json.loads((folder / "config.json").read_text())
        self.model = AutoModel.from_pretrained(folder, dtype=torch.float32)
        self.head = load_file(folder / "model.safetensors")[f"{config['value_head_prefix']}.weight"].float()

    def forward(self, input_ids, attention_mask):
        states = self.model(input_ids, attention_mask=attention_mask).last_hidden_state
        last = attention_mask.shape[1] - 1 - attention_mask.fliplr().argmax(1)
        return states[torch.arange(len(states)), last] @ self.head.T


def test_openrlhf_reads_what_is_written_for_it(tmp_path):
    folder, scorer = trained(tmp_path, "llama")
    convert(folder, tmp_path / "out", "openrlhf")
    model = RewardModel(tmp_path / "out").eval()
    expected = ranker.load(folder).score(PROMPT, SCORED)
    for ids, score in zip(rows_of(folder), expected, strict=True):
        with torch.no_grad():
            np.testing.assert_allclose(model(ids, torch.ones_like(ids))[0, 0], score, rtol=1e-5, atol=1e-5)


def test_llama_factory_reads_what_is_written_for_it(tmp_path):
    folder, _ = trained(tmp_path, "llama")
    notes = convert(folder, tmp_path / "out", "llama-factory")
    assert "language-model head" in notes[0]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    head = load_file(tmp_path / "out" / "value_head.safetensors")
    states = last_states(model.model, folder)
    got = states @ head["v_head.summary.weight"].T + head["v_head.summary.bias"]
    np.testing.assert_allclose(got[:, 0], ranker.load(folder).score(PROMPT, SCORED), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_crossencoder_reads_what_is_written_for_it_as_raw_logits(family, tmp_path):
    from sentence_transformers import CrossEncoder

    folder, _ = trained(tmp_path, family)
    convert(folder, tmp_path / "out", "crossencoder")
    got = CrossEncoder(str(tmp_path / "out")).predict([(PROMPT, answer) for answer in ANSWERS])
    np.testing.assert_allclose(got, ranker.load(folder).score(PROMPT, SCORED), rtol=1e-5, atol=1e-5)


def test_transformers_reads_a_head_with_a_bias_but_for_the_bias_which_is_said(tmp_path):
    checkpoint = token_classifier(tmp_path)
    folder, expected = checkpoint.folder, checkpoint.scores
    notes = convert(folder, tmp_path / "out", "hf")
    assert any("bias [0.7]" in note for note in notes)
    assert any("bias [0.7]" in note for note in convert(folder, tmp_path / "open", "openrlhf"))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert model.score.out_features == 1
    with torch.no_grad():
        got = torch.cat([model(ids).logits[:, 0] for ids in rows_of(folder)])
    np.testing.assert_allclose(got + 0.7, expected, rtol=1e-5, atol=1e-5)


def test_pairrm_hf_there_and_back_with_its_markers(tmp_path):
    torch.manual_seed(7)
    backbone = save_backbone(tmp_path / "backbone", "deberta-v2")
    native.save(*pairwise.from_backbone(str(backbone), layout="ordered_pair", max_length=128), tmp_path / "ours")
    expected = ranker.load(tmp_path / "ours").compare(PROMPT, *ANSWERS[:2])
    convert(tmp_path / "ours", tmp_path / "out", "pairrm-hf")
    report = inspect(tmp_path / "out")
    assert (report.format, report.head.name) == ("LLM-Blender PairRM", "head_layer.4")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    tokens = AutoTokenizer.from_pretrained(tmp_path / "out")
    for name, token in {
        "source_prefix_id": "<|source|>",
        "cand1_prefix_id": "<|candidate1|>",
        "cand2_prefix_id": "<|candidate2|>",
    }.items():
        assert tokens.convert_tokens_to_ids(token) == config[name]
    np.testing.assert_allclose(
        ranker.load(tmp_path / "out").compare(PROMPT, *ANSWERS[:2]), expected, rtol=1e-5, atol=1e-5
    )
    convert(tmp_path / "out", tmp_path / "again")
    then, now = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "again"))
    assert all(torch.equal(then[key], now[key]) for key in then)


def test_what_a_format_cannot_hold_is_refused_and_leaves_nothing(tmp_path):
    native.save(*tiny(), tmp_path / "ours")
    for to in TARGETS[1:]:
        with pytest.raises(CheckpointError, match=f"cannot be written as '{to}'.*--to native"):
            convert(tmp_path / "ours", tmp_path / "out", to)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours"]
    with pytest.raises(ConfigError, match="expected --to native, .*got 'openrlfh'.*openrlhf"):
        convert(tmp_path / "ours", tmp_path / "out", "openrlfh")


def test_pickles_are_read_only_when_asked_for_and_become_safetensors(tmp_path):
    checkpoint = llama_factory(tmp_path, pickled=True)
    folder, expected = checkpoint.folder, checkpoint.scores
    with pytest.raises(CheckpointError, match=r"the head is a pickle.*--allow-pickle"):
        ranker.load(folder)
    convert(folder, tmp_path / "out", allow_pickle=True)
    np.testing.assert_allclose(ranker.load(tmp_path / "out").score(PROMPT, SCORED), expected, rtol=1e-5, atol=1e-5)

    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"v_head.summary.weight": Evil()}, folder / "value_head.bin")
    with pytest.raises(CheckpointError, match="damaged"):
        ranker.load(folder, allow_pickle=True)


def test_a_head_of_an_unusual_name_is_used_when_it_is_named(tmp_path):
    checkpoint = openrlhf(tmp_path, head="rm_head")
    folder, expected = checkpoint.folder, checkpoint.scores
    configured(folder, value_head_prefix=...)
    with pytest.raises(CheckpointError, match=r"no head was found.*--head-prefix.*candidates: rm_head\.weight"):
        ranker.load(folder)
    np.testing.assert_allclose(
        ranker.load(folder, head_prefix="rm_head").score(PROMPT, SCORED), expected, rtol=1e-5, atol=1e-5
    )
    with pytest.raises(
        CheckpointError, match=r"no tensor 'value_head\.weight'; candidates for the head: rm_head\.weight"
    ):
        ranker.load(folder, head_prefix="value_head")


@pytest.mark.filterwarnings("ignore")
def test_merge_is_for_adapters_and_keeps_the_head(tmp_path):
    from typer.testing import CliRunner

    from ranker.cli.main import app

    checkpoint = adapter(tmp_path)
    target = tmp_path / "merged"
    done = CliRunner().invoke(app, ["merge", str(checkpoint.folder), str(target), "--to", "hf"])
    assert done.exit_code == 0, done.exception
    model = AutoModelForSequenceClassification.from_pretrained(target).eval()
    assert model.score.out_features == 1
    with torch.no_grad():
        got = torch.cat([model(ids).logits[:, 0] for ids in rows_of(target)])
    np.testing.assert_allclose(got, checkpoint.scores, rtol=1e-4, atol=1e-3)
    refused = CliRunner().invoke(app, ["merge", str(target), str(tmp_path / "again")])
    assert isinstance(refused.exception, CheckpointError)
    assert "expected an adapter" in str(refused.exception)


@pytest.mark.filterwarnings("ignore")
def test_llama_factory_s_adapter_has_its_head_beside_it(tmp_path):
    checkpoint = adapter(tmp_path, head=False)
    bare = adapter(tmp_path / "same")
    weight = load_file(bare.folder / bare.file)[bare.head]
    save_file(
        {"v_head.summary.weight": weight, "v_head.summary.bias": torch.tensor([0.25])},
        checkpoint.folder / "value_head.safetensors",
    )
    scores = ranker.load(checkpoint.folder).score(PROMPT, SCORED)
    np.testing.assert_allclose(scores, bare.scores + 0.25, rtol=1e-4, atol=1e-3)
