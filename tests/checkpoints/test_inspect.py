"""Folders exactly as each trainer writes them are named, and every way in which they break is found with its repair."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from ranker.checkpoints.inspection import inspect
from ranker.checkpoints.report import HeadReport
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
        {
            "model_type": "llama",
            "architectures": ["RewardModel"],
            "value_head_prefix": "value_head",
            "mean": 0.1,
            "std": 2.0,
        }
        | ONE,
        BACKBONE | {"value_head.weight": (1, H)},
        "value_head",
        "last_token",
    ),
    "HF token classification": (
        LLAMA | {"architectures": ["LlamaForTokenClassification"]},
        BACKBONE | {"score.weight": (1, H), "score.bias": (1,)},
        "score",
        "last_token",
    ),
    "trlx": (
        {"model_type": "gptj"},
        {"transformer.wte.weight": (600, H), "v_head.weight": (1, H)},
        "v_head",
        "last_nonpad",
    ),
    "LLM-Blender PairRM": (
        {"model_type": "deberta-v2", "architectures": ["DebertaV2PairRM"]},
        {
            "pretrained_model.embeddings.word_embeddings.weight": (600, H),
            "head_layer.1.weight": (H, 2 * H),
            "head_layer.4.weight": (7, H),
        },
        "head_layer.4",
        "markers",
    ),
    "ArmoRM": (
        {"model_type": "llama", "architectures": ["LlamaForRewardModelWithGating"]},
        BACKBONE
        | {"regression_layer.weight": (19, H), "reward_transform_matrix": (19, 19), "gating.layers.0.weight": (4, H)},
        "regression_layer",
        "last_nonpad",
    ),
    "sentence-transformers CrossEncoder": (
        {
            "model_type": "bert",
            "architectures": ["BertForSequenceClassification"],
            "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
        }
        | ONE,
        BERT | {"classifier.weight": (1, H), "classifier.bias": (1,)},
        "classifier",
        "first_token",
    ),
    "T5 (SteamSHP)": (
        {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]},
        {"shared.weight": (600, H)},
        None,
        "answer_token",
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_named_and_is_whole(name, tmp_path):
    config, shapes, head, scored = FORMATS[name]
    report = inspect(write(tmp_path / "m", config, shapes))
    assert report.format == name
    assert (None if report.head is None else report.head.name) == head
    assert report.scored == scored
    assert report.parameters == sum(int(np.prod(shape)) for shape in shapes.values())
    assert report.dtypes == {"F32": len(shapes)}
    if name == "OpenRLHF":
        assert report.normalisation == {"mean": 0.1, "std": 2.0}
    renamed = [problem.what for problem in report.problems]
    assert len(renamed) == (1 if name in ("OpenRLHF", "trlx") else 0)
    assert all("newly initialise in silence" in what for what in renamed)


def test_llama_factory_keeps_its_head_in_a_file_of_its_own(tmp_path):
    folder = write(tmp_path / "m", LLAMA | {"architectures": ["LlamaForCausalLM"]}, BACKBONE)
    save_file({"v_head.summary.weight": np.ones((1, H), np.float32)}, folder / "value_head.safetensors")
    report = inspect(folder)
    assert report.format == "LLaMA-Factory value head"
    assert report.head == HeadReport("v_head.summary", (1, H))


def test_our_own_folder_is_native(tmp_path):
    from ranker.checkpoints import native

    native.save(*tiny("shared_prompt"), tmp_path)
    report = inspect(tmp_path)
    assert (report.format, report.native, report.backbone) == ("ranker pairwise", True, "bert")
    assert [p for p in report.problems if "tokenizer" not in p.what] == []


def broken(tmp_path, **changes):
    options = {"config": LLAMA, "shapes": BACKBONE | {"score.weight": (1, H)}} | changes
    return write(tmp_path / "m", options.pop("config"), options.pop("shapes"), **options)


@pytest.mark.parametrize(
    ("changes", "what", "repair"),
    [
        (
            {"config": {k: v for k, v in LLAMA.items() if k != "id2label"}},
            r"says 2 outputs \(its default\), the head 'score' has 1",
            '"id2label": {"0": "reward"}',
        ),
        ({"config": LLAMA | {"id2label": {"0": "A", "1": "B"}}}, "says 2 outputs, the head", "id2label"),
        ({"shapes": BACKBONE}, "no head was found", "use an earlier checkpoint that still has the head"),
        (
            {"shapes": BACKBONE | {"my_score_layer.weight": (1, H)}},
            "no head was found",
            "candidates: my_score_layer.weight",
        ),
        ({"shapes": BACKBONE | {"score.weight": (1, 0)}}, r"'score.weight' is empty \(shape \[1, 0\]\)", "gathered"),
        (
            {"shapes": BACKBONE | {"model.embed_tokens.weight": (50, H), "score.weight": (1, H)}},
            "the tokenizer has 600 ids, the embeddings 50 rows",
            "saved with these weights",
        ),
        (
            {"tokenizer": {"pad_token": "[SEP]", "eos_token": "[SEP]"}},
            "padding is the end-of-text token",
            "pad_token_id",
        ),
    ],
)
def test_what_is_broken_is_named_with_its_repair(changes, what, repair, tmp_path):
    import re

    problems = inspect(broken(tmp_path, **changes)).problems
    matching = [p for p in problems if re.search(what, p.what)]
    assert matching, problems
    assert repair in matching[0].repair


def test_an_adapter_without_its_head_is_named(tmp_path):
    shapes = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": (2, H)}
    folder = write(tmp_path / "m", None, shapes, file="adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"}))
    report = inspect(folder)
    assert report.format == "PEFT adapter"
    assert "the adapter holds no head" in report.problems[0].what
    head = shapes | {"base_model.model.score.weight": (1, H)}
    save_file({name: np.ones(shape, np.float32) for name, shape in head.items()}, folder / "adapter_model.safetensors")
    assert inspect(folder).problems == ()


def test_truncated_and_missing_shards_are_named(tmp_path):
    folder = write(tmp_path / "m", LLAMA, BACKBONE, file="model-00001-of-00002.safetensors")
    save_file({"score.weight": np.ones((1, H), np.float32)}, folder / "model-00002-of-00002.safetensors")
    index = dict.fromkeys(BACKBONE, "model-00001-of-00002.safetensors") | {
        "score.weight": "model-00002-of-00002.safetensors"
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    report = inspect(folder)
    assert report.problems == ()
    assert report.shards == 2
    second = folder / "model-00002-of-00002.safetensors"
    second.write_bytes(second.read_bytes()[:-8])
    assert "model-00002-of-00002.safetensors is damaged or truncated" in inspect(folder).problems[0].what
    second.unlink()
    what = inspect(folder).problems[0].what
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
    report = inspect(folder)
    assert report.parameters * 4 > 1_000_000_000
    assert report.head.name == "score"


def test_pickles_and_empty_folders(tmp_path):
    with pytest.raises(CheckpointError, match="expected a folder with a checkpoint"):
        inspect(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"expected config\.json and safetensors"):
        inspect(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert "which can run code" in inspect(tmp_path).problems[0].what


def test_a_report_as_json_and_as_a_table(tmp_path):
    folder = broken(tmp_path, shapes=BACKBONE | {"score.weight": (2, H)})
    report = inspect(folder)
    values = json.loads(json.dumps(report.to_dict()))
    assert values.pop("tensors") == {name: list(shape) for name, shape in report.tensors.items()}
    assert values == {
        "path": str(folder),
        "format": "HF sequence classification",
        "native": False,
        "readable": True,
        "backbone": "llama",
        "head": {"name": "score", "shape": [2, H]},
        "other_head": None,
        "outputs": 2,
        "labels": ["reward"],
        "scored": "last_nonpad",
        "dtypes": {"F32": 4},
        "parameters": sum(int(np.prod(shape)) for shape in report.tensors.values()),
        "shards": 1,
        "normalisation": None,
        "tokenizer": {"pad": "[PAD]", "eos": "[SEP]", "pad_is_eos": False, "ids": 600, "embeddings": 600},
        "problems": [
            {
                "what": "config.json says 1 outputs, the head 'score' has 2: loaded without num_labels=2 it would be newly initialised",
                "repair": "write 2 labels to id2label in config.json",
                "fatal": False,
                "serious": True,
            }
        ],
        "example": None,
        "date": None,
    }
    lines = str(report).splitlines()
    assert lines[0] == str(folder)
    assert lines[1].split(maxsplit=1) == ["format", "HF sequence classification (read by ranker.load)"]
    assert "Repair: write 2 labels to id2label" in lines[-1]


def test_inspection_imports_neither_torch_nor_transformers(tmp_path):
    folder = write(tmp_path / "m", LLAMA, BACKBONE | {"score.weight": (1, H)})
    program = (
        "import sys; from ranker.checkpoints.hub import inspect_checkpoint; inspect_checkpoint(sys.argv[1]); "
        "sys.exit(str({'torch', 'transformers', 'peft'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_the_command_prints_a_table_or_json(tmp_path):
    from typer.testing import CliRunner

    folder = broken(tmp_path, shapes=BACKBONE)
    shown = CliRunner().invoke(app, ["inspect", str(folder)])
    assert shown.exit_code == 0
    assert "no head was found" in shown.stdout
    values = json.loads(CliRunner().invoke(app, ["inspect", str(folder), "--json"]).stdout)
    assert values["format"] == "HF sequence classification"
