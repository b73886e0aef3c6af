"""Folders exactly as each trainer writes them are named, and every way in which they break is found with its repair."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from ranker.checkpoints.inspection import inspect
from ranker.cli.main import app
from ranker.errors import CheckpointError
from tests.conftest import tiny, tokenizer_json

H = 8
BACKBONE = {
    "model.embed_tokens.weight": (600, H),
    "model.layers.0.self_attn.q_proj.weight": (H, H),
    "model.norm.weight": (H,),
}
BERT = {"bert.embeddings.word_embeddings.weight": (600, H), "bert.pooler.dense.weight": (H, H)}
ONE = {"id2label": {"0": "reward"}}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]} | ONE


def write(folder, config, shapes, *, file="model.safetensors", tokenizer=None):
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, folder / file)
    (folder / "tokenizer.json").write_text(tokenizer_json())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer or {"pad_token": "[PAD]", "eos_token": "[SEP]"}))
    return folder


FORMATS = {
    "HF sequence classification": (LLAMA, BACKBONE | {"score.weight": (1, H)}, "score", "last_nonpad"),
    "OpenRLHF": (
        {"model_type": "llama", "architectures": ["RewardModel"], "value_head_prefix": "value_head", "mean": 0.1, "std": 2.0} | ONE,
        BACKBONE | {"value_head.weight": (1, H)}, "value_head", "last_token",
    ),
    "HF token classification": (
        LLAMA | {"architectures": ["LlamaForTokenClassification"]},
        BACKBONE | {"score.weight": (1, H), "score.bias": (1,)}, "score", "last_token",
    ),
    "trlx": ({"model_type": "gptj"}, {"transformer.wte.weight": (600, H), "v_head.weight": (1, H)}, "v_head", "last_nonpad"),
    "LLM-Blender PairRM": (
        {"model_type": "deberta-v2", "architectures": ["DebertaV2PairRM"]},
        {"pretrained_model.embeddings.word_embeddings.weight": (600, H), "head_layer.1.weight": (H, 2 * H),
         "head_layer.4.weight": (7, H)}, "head_layer.4", "markers",
    ),
    "ArmoRM": (
        {"model_type": "llama", "architectures": ["LlamaForRewardModelWithGating"]},
        BACKBONE | {"regression_layer.weight": (19, H), "reward_transform_matrix": (19, 19), "gating.layers.0.weight": (4, H)},
        "regression_layer", "last_nonpad",
    ),
    "sentence-transformers CrossEncoder": (
        {"model_type": "bert", "architectures": ["BertForSequenceClassification"],
         "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}} | ONE,
        BERT | {"classifier.weight": (1, H), "classifier.bias": (1,)}, "classifier", "first_token",
    ),
    "T5 (SteamSHP)": (
        {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, {"shared.weight": (600, H)}, None, "answer_token",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_named_and_is_whole(name, tmp_path):
    config, shapes, head, scored = FORMATS[name]
    facts = inspect(write(tmp_path / "m", config, shapes))
    assert facts["format"] == name
    assert (facts["head"] or {}).get("name") == head
    assert facts["scored"] == scored
    assert facts["parameters"] == sum(int(np.prod(shape)) for shape in shapes.values())
    assert facts["dtypes"] == {"F32": len(shapes)}
    if name == "OpenRLHF":
        assert facts["normalisation"] == {"mean": 0.1, "std": 2.0}
        assert "newly initialise in silence" in facts["problems"].pop()["what"]
    if name == "trlx":
        assert "newly initialise in silence" in facts["problems"].pop()["what"]
    assert facts["problems"] == []


def test_llama_factory_keeps_its_head_in_a_file_of_its_own(tmp_path):
    folder = write(tmp_path / "m", LLAMA | {"architectures": ["LlamaForCausalLM"]}, BACKBONE)
    save_file({"v_head.summary.weight": np.ones((1, H), np.float32)}, folder / "value_head.safetensors")
    facts = inspect(folder)
    assert facts["format"] == "LLaMA-Factory value head"
    assert facts["head"] == {"name": "v_head.summary", "shape": [1, H]}


def test_our_own_folder_is_native(tmp_path):
    from ranker.checkpoints import native

    native.save(*tiny("shared_prompt"), tmp_path)
    facts = inspect(tmp_path)
    assert (facts["format"], facts["native"], facts["backbone"]) == ("ranker pairwise", True, "bert")
    assert [p for p in facts["problems"] if "tokenizer" not in p["what"]] == []


def broken(tmp_path, **changes):
    options = {"config": LLAMA, "shapes": BACKBONE | {"score.weight": (1, H)}} | changes
    return write(tmp_path / "m", options.pop("config"), options.pop("shapes"), **options)


@pytest.mark.parametrize(
    ("changes", "what", "repair"),
    [
        ({"config": {k: v for k, v in LLAMA.items() if k != "id2label"}},
         r"says 2 outputs \(its default\), the head 'score' has 1", '"id2label": {"0": "reward"}'),
        ({"config": LLAMA | {"id2label": {"0": "A", "1": "B"}}}, "says 2 outputs, the head", "id2label"),
        ({"shapes": BACKBONE}, "no head was found", "take the checkpoint that still holds it"),
        ({"shapes": BACKBONE | {"my_score_layer.weight": (1, H)}}, "no head was found", "candidates: my_score_layer.weight"),
        ({"shapes": BACKBONE | {"score.weight": (1, 0)}}, r"'score.weight' is empty \(shape \[1, 0\]\)", "gathered"),
        ({"shapes": BACKBONE | {"model.embed_tokens.weight": (50, H), "score.weight": (1, H)}},
         "the tokenizer has 600 ids, the embeddings 50 rows", "saved with these weights"),
        ({"tokenizer": {"pad_token": "[SEP]", "eos_token": "[SEP]"}}, "padding is the end-of-text token", "pad_token_id"),
    ],
)  # fmt: skip
def test_what_is_broken_is_named_with_its_repair(changes, what, repair, tmp_path):
    import re

    problems = inspect(broken(tmp_path, **changes))["problems"]
    found = [p for p in problems if re.search(what, p["what"])]
    assert found, problems
    assert repair in found[0]["repair"]


def test_an_adapter_without_its_head_is_named(tmp_path):
    shapes = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": (2, H)}
    folder = write(tmp_path / "m", None, shapes, file="adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"}))
    facts = inspect(folder)
    assert facts["format"] == "PEFT adapter"
    assert "the adapter holds no head" in facts["problems"][0]["what"]
    head = shapes | {"base_model.model.score.weight": (1, H)}
    save_file({name: np.ones(shape, np.float32) for name, shape in head.items()}, folder / "adapter_model.safetensors")
    assert inspect(folder)["problems"] == []


def test_truncated_and_missing_shards_are_named(tmp_path):
    folder = write(tmp_path / "m", LLAMA, BACKBONE, file="model-00001-of-00002.safetensors")
    save_file({"score.weight": np.ones((1, H), np.float32)}, folder / "model-00002-of-00002.safetensors")
    index = dict.fromkeys(BACKBONE, "model-00001-of-00002.safetensors") | {
        "score.weight": "model-00002-of-00002.safetensors"
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    facts = inspect(folder)
    assert facts["problems"] == []
    assert facts["shards"] == 2
    second = folder / "model-00002-of-00002.safetensors"
    second.write_bytes(second.read_bytes()[:-8])
    assert "model-00002-of-00002.safetensors is damaged or truncated" in inspect(folder)["problems"][0]["what"]
    second.unlink()
    what = inspect(folder)["problems"][0]["what"]
    assert what == "shard model-00002-of-00002.safetensors is missing, and 1 tensors with it, first 'score.weight'"


def test_a_gigabyte_is_inspected_by_its_headers(tmp_path):
    """Two sparse shards of half a gigabyte each, whose content is never read."""
    folder = broken(tmp_path)
    (folder / "model.safetensors").unlink()
    index = {}
    for number in (1, 2):
        name, size = f"model-0000{number}-of-00002.safetensors", 1 << 29
        tensor = "score.weight" if number == 2 else "model.embed_tokens.weight"
        shape = [1, size // 4] if number == 2 else [600, size // 4 // 600]
        stored = int(np.prod(shape)) * 4
        header = json.dumps({tensor: {"dtype": "F32", "shape": shape, "data_offsets": [0, stored]}}).encode()
        with (folder / name).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + stored)
        index[tensor] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    facts = inspect(folder)
    assert facts["parameters"] * 4 > 1_000_000_000
    assert facts["head"]["name"] == "score"


def test_pickles_and_empty_folders(tmp_path):
    with pytest.raises(CheckpointError, match="expected a folder with a checkpoint"):
        inspect(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"expected config\.json and safetensors"):
        inspect(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert "which can run code" in inspect(tmp_path)["problems"][0]["what"]


def test_the_command_prints_a_table_or_json(tmp_path):
    from typer.testing import CliRunner

    folder = broken(tmp_path, shapes=BACKBONE)
    shown = CliRunner().invoke(app, ["inspect", str(folder)])
    assert shown.exit_code == 0
    assert "no head was found" in shown.stdout
    facts = json.loads(CliRunner().invoke(app, ["inspect", str(folder), "--json"]).stdout)
    assert facts["format"] == "HF sequence classification"
