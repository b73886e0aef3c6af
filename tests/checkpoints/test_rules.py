"""Which token each trainer scores, under which labels and names: the rules that a reader must not guess."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import ranker
from ranker.checkpoints import native
from ranker.checkpoints.convert import convert
from ranker.checkpoints.inspection import inspect
from ranker.checkpoints.verify import verify
from ranker.errors import CheckpointError
from ranker.models import steamshp
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from tests.checkpoints.layouts import (
    adapter,
    configured,
    decoder,
    foreign,
    openrlhf,
    pairrm,
    read_tensors,
    rows_of,
    write_tensors,
)
from tests.models.test_reward import ANSWERS, PROMPT, save_backbone, trained
from tests.models.test_seq2seq import plain_logits
from tests.support.scorers import input_ids_of

SCORED = list(ANSWERS)
CHAT = "{% for m in messages %}[CLS] {{ m['content'] }} [SEP]{{ '\\n' }}{% endfor %}"
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("after", ["", "Z"])
def test_openrlhf_ends_a_text_at_its_end_token_whatever_the_template_writes_after_it(after, tmp_path):
    """``rstrip``, then a space and the end of text if it is not there, which is the token that is scored."""
    checkpoint = openrlhf(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    tokenizer.chat_template = CHAT.replace("[SEP]", f"[SEP]{after}")
    tokenizer.save_pretrained(checkpoint.folder)
    loaded = ranker.load(checkpoint.folder)
    (ids,) = input_ids_of(loaded.scorer, Group("hi", ("yes",)))
    assert ids[-1] == 3
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}], tokenize=False
    ).rstrip("\n")
    text += "" if text.endswith("[SEP]") else " [SEP]"
    assert ids == tokenizer.encode(text, add_special_tokens=False)


def test_openrlhf_is_not_written_for_a_model_that_never_reads_the_end(tmp_path):
    folder, _ = foreign(tmp_path, "llama", pad="[SEP]")
    with pytest.raises(CheckpointError, match="does not read the end-of-text token, and OpenRLHF scores that token"):
        convert(folder, tmp_path / "out", "openrlhf")


def test_a_named_head_changes_nothing_else(tmp_path):
    folder, _ = foreign(tmp_path, "llama", pad="[SEP]")
    plain = ranker.load(folder).score(PROMPT, SCORED)
    np.testing.assert_array_equal(ranker.load(folder, head_prefix="score").score(PROMPT, SCORED), plain)


def test_an_adapter_on_a_classifier_is_read_as_the_library_reads_it(tmp_path):
    """Padding is the end of text: transformers scores the token before it."""
    from peft import PeftModel

    checkpoint = adapter(tmp_path)
    base = tmp_path / "base"
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": "[SEP]"}))
    configured(base, pad_token_id=3, eos_token_id=3)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    adapted = PeftModel.from_pretrained(model, checkpoint.folder).eval()
    with torch.no_grad():
        expected = torch.cat([adapted(ids).logits[:, 0] for ids in rows_of(base)])
    with pytest.warns(UserWarning, match="transformers scores the token before it"):
        scores = ranker.load(checkpoint.folder).score(PROMPT, SCORED)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)


def test_adapters_in_bf16_with_whole_modules_and_added_words(tmp_path):
    checkpoint = adapter(tmp_path)
    tensors = read_tensors(checkpoint.folder / checkpoint.file)
    words = load_file(tmp_path / "base" / "model.safetensors")["embed_tokens.weight"]
    more = torch.cat([words, torch.randn(8, words.shape[1])])
    name = "base_model.model.model.embed_tokens.weight"
    write_tensors(checkpoint.folder / checkpoint.file, {k: v.bfloat16() for k, v in (tensors | {name: more}).items()})
    model, _ = native.load(checkpoint.folder)
    assert model.get_input_embeddings().weight.shape[0] == 608
    np.testing.assert_allclose(
        ranker.load(checkpoint.folder).score(PROMPT, SCORED), checkpoint.scores, rtol=0.1, atol=1.0
    )  # of bf16


def test_adapters_as_pickles_and_without_their_base(tmp_path):
    checkpoint = adapter(tmp_path)
    torch.save(read_tensors(checkpoint.folder / checkpoint.file), checkpoint.folder / "adapter_model.bin")
    (checkpoint.folder / checkpoint.file).unlink()
    with pytest.raises(CheckpointError, match=r"the adapter is a pickle.*--allow-pickle"):
        ranker.load(checkpoint.folder)
    scores = ranker.load(checkpoint.folder, allow_pickle=True).score(PROMPT, SCORED)
    np.testing.assert_allclose(scores, checkpoint.scores, rtol=1e-4, atol=1e-3)
    settings = json.loads((checkpoint.folder / "adapter_config.json").read_text())
    (checkpoint.folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": None}))
    with pytest.raises(CheckpointError, match="does not name its base model"):
        ranker.load(checkpoint.folder, allow_pickle=True)
    (checkpoint.folder / "adapter_config.json").write_text(json.dumps(settings))
    configured(tmp_path / "base", quantization_config={"load_in_4bit": True})
    with pytest.raises(CheckpointError, match="stored quantised"):
        ranker.load(checkpoint.folder, allow_pickle=True)


def test_a_value_head_beside_an_adapter_is_a_pickle_too(tmp_path):
    checkpoint = adapter(tmp_path, head=False)
    torch.save({"v_head.summary.weight": torch.randn(1, 32)}, checkpoint.folder / "value_head.bin")
    with pytest.raises(CheckpointError, match=r"the head is a pickle.*--allow-pickle"):
        ranker.load(checkpoint.folder)
    assert ranker.load(checkpoint.folder, allow_pickle=True).score(PROMPT, SCORED).shape == (len(SCORED),)


def test_pairrm_without_its_markers_is_refused(tmp_path):
    checkpoint = pairrm(tmp_path, original=True)
    bare = save_backbone(tmp_path / "bare", "deberta-v2")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (checkpoint.folder / name).write_text((bare / name).read_text())
    with pytest.raises(CheckpointError, match=r"its tokenizer does not have <\|source\|>"):
        ranker.load(checkpoint.folder)


def test_two_labels_are_read_by_their_names(tmp_path):
    folder, _ = foreign(tmp_path, "bert", labels=2)
    odds = ranker.load(folder).score(PROMPT, SCORED)
    configured(folder, id2label={"0": "rejected", "1": "chosen"})
    np.testing.assert_array_equal(ranker.load(folder).score(PROMPT, SCORED), odds)
    configured(folder, id2label={"0": "chosen", "1": "rejected"})
    with pytest.raises(CheckpointError, match="which is the worse one here"):
        ranker.load(folder)
    configured(folder, id2label={"0": "helpfulness", "1": "verbosity"})
    model, _ = native.load(folder)
    assert (model.layout.output, list(model.config.id2label.values())) == ("aspects", ["helpfulness", "verbosity"])


def test_a_decoder_crossencoder_encodes_pairs_as_its_tokenizer_does(tmp_path):
    from sentence_transformers import CrossEncoder

    checkpoint = decoder(tmp_path)
    (checkpoint.folder / "chat_template.jinja").unlink()
    identity = "torch.nn.modules.linear.Identity"
    configured(checkpoint.folder, sentence_transformers={"activation_fn": identity})
    expected = CrossEncoder(str(checkpoint.folder)).predict([(PROMPT, answer) for answer in ANSWERS], batch_size=1)
    np.testing.assert_allclose(ranker.load(checkpoint.folder).score(PROMPT, SCORED), expected, rtol=1e-4, atol=1e-4)


def test_t5_with_words_of_its_own_as_flan_has_them(tmp_path):
    """FLAN-T5 and SteamSHP are not tied; older files hold the tied tables two or three times."""
    folder = save_backbone(tmp_path / "flan", "t5")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    torch.manual_seed(8)
    copies = {f"{part}.embed_tokens.weight": tensors["shared.weight"].clone() for part in ("encoder", "decoder")}
    save_file(tensors | copies | {"lm_head.weight": torch.randn(600, 32)}, file, {"format": "pt"})
    configured(folder, tie_word_embeddings=False)
    (za, zb), (ya, yb) = (plain_logits(folder, PROMPT, *pair)[0] for pair in (SCORED[:2], SCORED[1::-1]))
    expected = float(((za - zb) - (ya - yb)) / 2)
    assert abs(expected) > 1e-3
    np.testing.assert_allclose(ranker.load(folder).compare(PROMPT, *SCORED[:2]), expected, rtol=1e-3, atol=1e-4)
    model, tokenizer = steamshp.from_backbone(str(folder))
    native.save(model.eval(), tokenizer, tmp_path / "saved")
    scorer = TorchScorer(model, tokenizer)
    assert native.check_reload(scorer, tmp_path / "saved", [Group(PROMPT, ANSWERS)]) <= 1e-5
    convert(folder, tmp_path / "converted", "hf")
    again = ranker.load(tmp_path / "converted").compare(PROMPT, *SCORED[:2])
    np.testing.assert_allclose(again, expected, rtol=1e-3, atol=1e-4)


def test_lengths_are_the_checkpoint_s_own(tmp_path):
    checkpoint = decoder(tmp_path)
    configured(checkpoint.folder, max_position_embeddings=8192)
    settings = checkpoint.folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_max_length": 4096}))
    assert native.load(checkpoint.folder)[0].layout.max_length == 4096


def test_mean_pooled_bert_has_no_class_elsewhere(tmp_path):
    folder, _ = trained(tmp_path, "bert", pooling="mean")
    with pytest.raises(CheckpointError, match="cannot be written as 'hf'"):
        convert(folder, tmp_path / "out", "hf")


def test_large_rewards_pass_verify(tmp_path):
    checkpoint = decoder(tmp_path)
    tensors = load_file(checkpoint.folder / checkpoint.file)
    save_file(
        tensors | {"score.weight": tensors["score.weight"] * 30}, checkpoint.folder / checkpoint.file, {"format": "pt"}
    )
    assert [check.seen for check in verify(checkpoint.folder) if not check.passed] == []


def test_num_labels_without_names_is_believed(tmp_path):
    checkpoint = decoder(tmp_path)
    configured(checkpoint.folder, id2label=..., label2id=..., num_labels=1)
    assert inspect(checkpoint.folder).problems == ()


def test_a_plain_deberta_is_no_reward_model(tmp_path):
    folder = save_backbone(tmp_path / "deberta", "deberta-v2")
    tensors = load_file(folder / "model.safetensors")
    extra = {
        "mask_predictions.classifier.weight": torch.zeros(1, 32),
        "mask_predictions.classifier.bias": torch.zeros(1),
    }
    save_file(tensors | extra, folder / "model.safetensors", {"format": "pt"})
    assert inspect(folder).head is None
