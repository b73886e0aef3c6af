"""The model card says what a reader of the hub asks for, and nothing of the machine."""

from huggingface_hub import ModelCard

from ranker.config import load_config
from ranker.evaluation.evaluate import evaluate
from ranker.evaluation.report import card
from tests.evaluation.report.test_report import rows
from tests.evaluation.test_run import Fixed

FACTS = {"rows": 40, "steps": 12, "seconds": 100.0, "tokens_per_second": 1234, "learning_rate": 2e-4, "seed": 7}


def written(folder, *overrides):
    config = load_config("pairrm", [f"output_dir={folder / 'mine'}", "training.seed=7", *overrides])
    report = evaluate(Fixed(lambda _, c: len(c)), rows(4)).report
    card.write(folder, config, report, FACTS)
    return ModelCard.load(folder / "README.md")


def test_the_card_names_base_licence_language_and_data(tmp_path):
    loaded = written(
        tmp_path, "card.license=apache-2.0", "card.language=[en,de]", "data.train=[hh-rlhf:test, my/rows.jsonl]"
    )
    assert loaded.data.base_model == "microsoft/deberta-v3-base"
    assert loaded.data.license == "apache-2.0"
    assert loaded.data.language == ["en", "de"]
    assert loaded.data.datasets == ["Anthropic/hh-rlhf"]
    assert loaded.data.pipeline_tag == "text-ranking"


def test_what_nobody_said_is_not_in_the_card(tmp_path):
    loaded = written(tmp_path, "model.name_or_path=offline", "data.train=[sample]")
    assert loaded.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    text = (tmp_path / "README.md").read_text()
    for name in ("license", "language", "datasets"):
        assert f"\n{name}:" not in text
    assert "offline" not in text


def test_no_path_of_the_machine_is_in_the_card(tmp_path):
    (tmp_path / "backbone").mkdir()
    data = [f"data.train=[{tmp_path}/a/train.jsonl, {tmp_path}/b/*.jsonl]", f"data.validation=[{tmp_path}/val.jsonl]"]
    loaded = written(tmp_path, f"model.name_or_path={tmp_path / 'backbone'}", *data)
    text = (tmp_path / "README.md").read_text()
    assert str(tmp_path) not in text
    assert "40 of train.jsonl, *.jsonl" in text
    assert "| backbone | backbone |" in text
    assert loaded.data.base_model is None


def test_settings_are_there_once(tmp_path):
    written(tmp_path)
    text = (tmp_path / "README.md").read_text()
    for line in (
        "| seed | 7 |",
        "| learning rate | 0.0002 |",
        "| schedule | linear, warm-up 0.1 |",
        "| time | 2 min, 1,234 padded tokens per second |",
    ):
        assert text.count(line) == 1, line
