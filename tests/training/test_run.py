import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ranker.checkpoints import native
from ranker.config import dump_config, load_config, recipes
from ranker.errors import CheckpointError, ConfigError, DataError
from ranker.training import losses
from ranker.training.train import train
from tests.conftest import LAYOUTS, ROOT

DATA = ROOT / "data"


def tiny_config(tiny_backbone, output, *overrides):
    return load_config(
        "pairrm",
        [
            f"output_dir={output}",
            f"model.name_or_path={tiny_backbone}",
            f"data.train=[{DATA / 'train.jsonl'}]",
            f"data.validation=[{DATA / 'validation.jsonl'}]",
            "data.test=[]",
            "data.max_train_samples=24",
            "data.max_eval_samples=8",
            "training.report_to=[]",
            "training.precision=fp32",
            "training.max_tokens_per_forward=1024",
            "training.eval_steps=0.5",
            "model.max_length=128",
            *overrides,
        ],
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_train_save_reload_same_scores(layout, tiny_backbone, tmp_path):
    trained = train(tiny_config(tiny_backbone, tmp_path, f"model.type={layout}"))
    groups = [p.group for p in trained.validation]
    reloaded = type(trained.scorer)(*native.load(trained.folder))
    for a, b in zip(trained.scorer.score(groups), reloaded.score(groups), strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)
    assert any("eval_accuracy" in entry for entry in trained.history)
    assert any("margin" in entry for entry in trained.history) or trained.steps < 20


@pytest.mark.usefixtures("unended")
def test_resume_equals_an_uninterrupted_run(tiny_backbone, tmp_path):
    config = tiny_config(tiny_backbone, tmp_path, "training.num_train_epochs=2")
    train(config)
    whole = load_file(tmp_path / "checkpoint" / "model.safetensors")
    steps = sorted(int(p.name.split("-")[1]) for p in (tmp_path / "steps").glob("checkpoint-*"))
    assert len(steps) == 2
    shutil.rmtree(tmp_path / "steps" / f"checkpoint-{steps[1]}")  # as if interrupted after the first
    shutil.rmtree(tmp_path / "checkpoint")
    train(config, resume=True)
    resumed = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.usefixtures("unended")
def test_answers_that_several_rows_name_are_read_once_and_a_resumed_run_goes_on(tiny_backbone, tmp_path):
    """Eight answers to each of three prompts, all compared: more than fits a pass, so that blocks are cut anew."""
    answers = [f"answer number {number} " + "word " * number for number in range(8)]
    rows = [
        {"prompt": f"prompt {prompt}", "chosen": answers[i], "rejected": answers[j]}
        for prompt in range(3)
        for i in range(8)
        for j in range(i)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = tiny_config(
        tiny_backbone,
        tmp_path / "run",
        "model.type=pointwise",
        f"data.train=[{file}]",
        "data.max_train_samples=null",
        "training.max_tokens_per_forward=128",
        "training.tokens_per_step=128",
        "training.num_train_epochs=2",
    )
    lines = []
    trained = train(config, log=lines.append)
    line = (
        "84 comparisons of 24 answers to 3 prompts: each answer read once per pass (7.0 times less than pair by pair)"
    )
    assert line in lines
    (plan,) = [line for line in lines if "cut into blocks" in line]
    assert plan.startswith(f"{trained.steps} steps")
    whole = load_file(tmp_path / "run" / "checkpoint" / "model.safetensors")
    last = max((tmp_path / "run" / "steps").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    shutil.rmtree(last)
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    train(config, resume=True)
    resumed = load_file(tmp_path / "run" / "checkpoint" / "model.safetensors")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_loss_object_is_refused_where_its_settings_do_not_fit(tiny_backbone, tmp_path):
    config = tiny_config(tiny_backbone, tmp_path, "model.type=pointwise", "training.weight_by=prompt")
    with pytest.raises(ConfigError, match="weight_by 'prompt' is for losses of comparisons and lists, not for 'MSE'"):
        train(config, loss=losses.pointwise.MSE())


@pytest.mark.usefixtures("unended")
def test_only_the_same_run_is_resumed(tiny_backbone, tmp_path):
    with pytest.raises(ConfigError, match="expected checkpoints to resume from"):
        train(tiny_config(tiny_backbone, tmp_path), resume=True)
    train(tiny_config(tiny_backbone, tmp_path))
    with pytest.raises(ConfigError, match="other settings: training.seed was 0, is 5"):
        train(tiny_config(tiny_backbone, tmp_path, "training.seed=5"), resume=True)
    (tmp_path / "steps" / "plan.sha256").write_text("of other data")
    with pytest.raises(ConfigError, match="or the number of processes changed"):
        train(tiny_config(tiny_backbone, tmp_path), resume=True)
    before = {p.name for p in (tmp_path / "steps").glob("checkpoint-*")}
    trained = train(tiny_config(tiny_backbone, tmp_path, "training.num_train_epochs=0.5"), overwrite=True)
    after = {p.name for p in (tmp_path / "steps").glob("checkpoint-*")}
    assert f"checkpoint-{trained.steps}" in after
    assert max(int(n.split("-")[1]) for n in after) < max(int(n.split("-")[1]) for n in before)


def test_a_run_resumes_under_other_settings_of_export_and_reports(tiny_backbone, tmp_path):
    train(tiny_config(tiny_backbone, tmp_path, "export.precisions=[fp32]"))
    changes = ["export.precisions=[fp32,int8]", "training.logging_steps=3"]
    train(tiny_config(tiny_backbone, tmp_path, *changes), resume=True)
    assert "int8" in (tmp_path / "config.yaml").read_text()
    with pytest.raises(ConfigError, match=r"other settings: training\.learning_rate was 0\.0002, is 0\.1"):
        train(tiny_config(tiny_backbone, tmp_path, *changes, "training.learning_rate=0.1"), resume=True)


def test_rows_of_one_prompt_are_trained_with_a_warning(tiny_backbone, tmp_path, caplog):
    rows = [{"prompt": "Write a joke.", "chosen": f"good {i} {i}", "rejected": f"bad {i}"} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    held_out = [f"data.train={tmp_path / 'rows.jsonl'}", f"data.validation={tmp_path / 'rows.jsonl'}"]
    trained = train(tiny_config(tiny_backbone, tmp_path / "run", *held_out))
    assert len(trained.train) == 12
    assert "12 of 12 training rows have a prompt that is also in the validation" in caplog.text
    dropped = tiny_config(tiny_backbone, tmp_path / "other", *held_out, "data.train_eval_overlap=drop")
    with pytest.raises(DataError, match="no row would be left, set data.train_eval_overlap=warn or ignore"):
        train(dropped)


def test_labels_that_are_not_one_per_output_are_refused(tiny_backbone, tmp_path):
    with pytest.raises(ConfigError, match="has 1 labels per answer, the model 2 outputs"):
        train(tiny_config(tiny_backbone, tmp_path, "model.num_labels=2"))


def test_an_unknown_backbone_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"model\.name_or_path 'no/where': expected a folder or a name on the model hub"
    ):
        train(tiny_config("no/where", tmp_path))


@pytest.mark.full
def test_a_run_leaves_a_model_a_report_and_a_card(tiny_backbone, tmp_path, monkeypatch, capsys):
    from huggingface_hub import ModelCard

    from ranker.cli import train as cli
    from ranker.evaluation.report import writer

    config = tiny_config(tiny_backbone, tmp_path / "run")
    cli.run(config, "")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"checkpoint", "model.onnx", "report.html", "report.md", "metrics.json", "examples.parquet"}
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    (report,) = metrics["models"].values()
    assert metrics["training"]["rows"] == 24
    assert "model.onnx" in metrics["exports"]
    assert [*metrics["models"]] == [str(tmp_path / "run" / "checkpoint")]
    assert (tmp_path / "run" / writer.EXAMPLES).stat().st_size > 0
    card = ModelCard.load(tmp_path / "run" / "checkpoint" / "README.md")
    assert card.data.pipeline_tag == "text-ranking"
    assert card.data.base_model is None, "a folder is no name on the hub"
    assert card.data.eval_results[0].metric_value == pytest.approx(report["accuracy"]["value"], abs=1e-4)
    assert f"(n={report['accuracy']['n']})" in card.text
    assert "report.html" in capsys.readouterr().out.replace("\n", "")


def test_a_checkpoint_that_scores_differently_fails_the_run(tiny_backbone, tmp_path, monkeypatch):
    from transformers import PreTrainedModel

    honest = PreTrainedModel.save_pretrained

    def broken(self, folder, *args, **kwargs):
        honest(self, folder, *args, **kwargs)
        file = Path(folder, "model.safetensors")
        tensors = load_file(file)
        tensors["head.out.weight"] += 1.0
        save_file(tensors, file, metadata={"format": "pt"})

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", broken)
    with pytest.raises(CheckpointError, match="scores differently from the live one"):
        train(tiny_config(tiny_backbone, tmp_path))


def test_config_round_trips_and_overrides_win():
    config = load_config("pairrm", ["training.learning_rate=3e-6", "model.type=shared_prompt"])
    assert config.training.learning_rate == 3e-6
    assert config.model.type == "shared_prompt"
    assert "pairrm" in recipes()


def test_config_dump_loads_back(tmp_path):
    config = load_config("pairrm")
    (tmp_path / "c.yaml").write_text(dump_config(config))
    assert load_config(str(tmp_path / "c.yaml")) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.learning_rat=1", r"unknown key 'training\.learning_rat'; did you mean 'learning_rate'"),
        ("modle.type=hub", r"unknown key 'modle'; did you mean 'model'"),
        ("model.type=star", r"'model\.type': unknown value 'star'; .*pointwise"),
        ("model.aspects=[a]", r"model\.type 'set_encoder' has no such setting; it belongs to pointwise, armorm"),
        ("training.loss=mesh", r"'training\.loss\.type': unknown value 'mesh'; .*mse"),
        ("training.loss.delta=2", r"unknown key 'training\.loss\.delta'"),
        ("training.num_train_epochs=-1", r"'training\.num_train_epochs'.*got -1"),
        ("model.name_or_path=no", r"'model\.name_or_path'"),
        ("training", "expected key=value"),
        ("training.max_tokens_per_forward.x=1", "is a value, not a section"),
        ("training.candidates_per_prompt=[5,3]", "fewest <= most"),
        ("data.train=[a", "expected a YAML value"),
    ],
)
def test_bad_config_is_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config("pairrm", [override])


def test_list_losses_want_scores():
    with pytest.raises(ConfigError, match="'ordered_pair' trains with bradley_terry, log_exp, custom; got 'list_mle'"):
        load_config("pairrm-original", ["training.loss=list_mle"])


@pytest.mark.parametrize("recipe", sorted(recipes()))
def test_every_recipe_loads_and_says_how_to_launch_it(recipe):
    config = load_config(recipe)
    assert config.output_dir == f"runs/{recipe}"
    header = recipes()[recipe].read_text().split("output_dir")[0]
    assert "Reproduces:" in header
    assert "Data:" in header
    assert f"ranker train {recipe}" in header


def test_a_list_recipe_trains(tiny_backbone, tmp_path):
    trained = train(tiny_config(tiny_backbone, tmp_path, "training.loss=list_mle", "model.type=pointwise"))
    assert trained.steps > 1


def test_all_config_errors_come_at_once():
    with pytest.raises(ConfigError) as caught:
        load_config("pairrm", ["training.a=1", "model.b=2"])
    assert str(caught.value).count("unknown key") == 2


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'pairrm'"):
        load_config("pairm")


def test_metrics_are_json(tmp_path):
    from ranker.evaluation.report.writer import write_report

    write_report({"a": float("nan"), "b": [1.0]}, tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text()) == {"a": None, "b": [1.0]}


@pytest.mark.slow
def test_a_compiled_model_trains_and_is_saved_like_any_other(tiny_backbone, tmp_path):
    trained = train(tiny_config(tiny_backbone, tmp_path, "training.torch_compile=true"))
    groups = [p.group for p in trained.validation]
    assert native.check_reload(trained.scorer, trained.folder, groups) <= 1e-5


@pytest.mark.parametrize(
    ("target", "said_of_it"),
    [("wand", "unknown 'wand'; did you mean 'wandb'"), ("mlflow", "'mlflow' is not installed; pip install mlflow")],
)
def test_where_a_run_cannot_be_logged_is_said_before_it_starts(
    target, said_of_it, tiny_backbone, tmp_path, monkeypatch
):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlflow" else find(name))
    with pytest.raises(ConfigError, match=rf"training\.report_to: {said_of_it}"):
        train(tiny_config(tiny_backbone, tmp_path, f"training.report_to=[{target}]"))
    assert not (tmp_path / "steps").exists()


@pytest.mark.full
def test_curves_go_to_tensorboard(tiny_backbone, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tiny_config(tiny_backbone, tmp_path, "training.report_to=[tensorboard]"))
    (file,) = (tmp_path / "steps").rglob("events.out.*")
    events = EventAccumulator(str(file))
    events.Reload()
    names = set(events.Tags()["scalars"])
    assert {"train/loss", "eval/accuracy"} <= names
