"""The rows of a run."""

import json

import pytest

import ranker
from ranker.config import load_config
from ranker.training.rows import load

SPANS = [{"prompt": f"q{i}", "chosen": "in 1931", "rejected": "in 1913", "chosen_spans": [[3, 7]]} for i in range(3)]


@pytest.mark.parametrize(("recipe", "read"), [("decoder-token-pairwise", True), ("decoder-bradley-terry", False)])
def test_token_spans_are_read_by_the_token_loss_and_said_to_be_unread_elsewhere(recipe, read, tmp_path, caplog):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, SPANS)))
    files = [f"data.{part}=['{path}']" for part in ("train", "validation", "test")]
    training, _, _ = load(load_config(recipe, [*files, "data.train_eval_overlap=ignore"]))
    assert [bool(row.spans) for row in training] == [read] * 3
    assert ("3 of 3 training rows have token spans, which training.loss 'bradley_terry'" in caplog.text) is not read


def test_texts_with_scores_are_regressed_and_judged_by_their_labels(tiny_backbone, tmp_path):
    rows = "".join(f"word {'good ' * (i % 4)}{i},{i % 4}\n" for i in range(60))
    (tmp_path / "rows.csv").write_text(f"text,score\n{rows}")
    result = ranker.train(
        "encoder-regress",
        **{"model.name_or_path": str(tiny_backbone), "model.max_length": 128},
        data=tmp_path / "rows.csv",
        output_dir=tmp_path / "run",
        training={"report_to": [], "precision": "fp32", "num_train_epochs": 2},
        export={"precisions": []},
    )
    (report,) = [result.evaluation[name] for name in result.evaluation]
    assert report.comparisons == 0
    assert report.regression.n == 12
    assert -1 <= report.regression.spearman.value <= 1
    assert report.regression.mean_rmse > 0
    assert any("eval_spearman" in entry for entry in result.history)
    assert "Spearman" in repr(result)
    card = (result.checkpoint / "README.md").read_text()
    assert "Spearman of score and label" in card
    again = ranker.evaluate(result.checkpoint, tmp_path / "rows.csv")
    assert next(iter(again.evaluations.values())).report.regression.n == 60


def test_the_licence_of_the_training_rows_is_in_the_model_card(tiny_backbone, tmp_path):
    row = {"prompt": "p", "response_0": "a", "response_1": "b b", "better_response_id": 1}
    path = tmp_path / "safe.jsonl"
    path.write_text("".join(json.dumps(row | {"prompt": f"p{i}"}) + "\n" for i in range(12)))
    result = ranker.train(
        "encoder-bradley-terry",
        **{"model.name_or_path": str(tiny_backbone), "model.max_length": 128},
        data=f"pku-saferlhf={path}",
        output_dir=tmp_path / "run",
        training={"report_to": [], "precision": "fp32"},
        export={"precisions": []},
    )
    card = (result.checkpoint / "README.md").read_text()
    assert "CC-BY-NC-4.0, as its card says" in card
