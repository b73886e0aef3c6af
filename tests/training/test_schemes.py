"""Every recipe trains, saves, reloads with the same scores, evaluates, exports and scores, on tiny models."""

import numpy as np
import onnx
import pytest

from ranker.checkpoints import native
from ranker.config import load_config, recipes
from ranker.evaluation.evaluate import evaluate
from ranker.export.graph import of_head
from ranker.export.write import export
from ranker.runtime.onnx_scorer import OnnxScorer
from ranker.training.train import train
from tests.conftest import ROOT
from tests.models.test_reward import save_backbone


def backbone_of(recipe):
    if recipe == "steamshp":
        return "t5"
    return "llama" if recipe.startswith("decoder") or recipe == "armorm" else "bert"


@pytest.mark.full
@pytest.mark.parametrize("recipe", sorted(recipes()))
def test_train_save_reload_evaluate_export_score(recipe, tmp_path):
    backbone = save_backbone(tmp_path / "backbone", backbone_of(recipe))
    config = load_config(
        recipe,
        [
            f"output_dir={tmp_path / 'run'}",
            f"model.name_or_path={backbone}",
            "model.max_length=128",
            f"data.train=[{ROOT / 'data' / 'train.jsonl'}]",
            f"data.validation=[{ROOT / 'data' / 'validation.jsonl'}]",
            "data.max_train_samples=16",
            "data.max_eval_samples=8",
            "training.report_to=[]",
            "training.precision=fp32",
            "training.max_tokens_per_forward=1024",
            "training.tokens_per_step=2048",
            "training.eval_steps=100000",
            *([f"data.aspects=[{ROOT / 'data' / 'train.jsonl'}]", "model.gate.steps=20"] if recipe == "armorm" else []),
        ],
    )
    trained = train(config)
    groups = [p.group for p in trained.validation]
    live = trained.scorer.score(groups)
    reloaded = type(trained.scorer)(*native.load(trained.folder))
    for a, b in zip(live, reloaded.score(groups), strict=True):
        np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5, atol=1e-5)
    report = evaluate(trained.scorer, trained.validation, train=trained.train).report
    assert report.accuracy.n > 50
    targets = {"fp32": tmp_path / "model.onnx", "int8": tmp_path / "model.int8.onnx"}
    parities = export(trained.folder, targets, rows=trained.validation, on_loss="allow")
    assert parities["fp32"].max_difference <= 1e-4
    graph = onnx.load(targets["int8"]).graph
    quantized = {i.name: i.data_type for i in graph.initializer}
    assert {node.op_type for node in graph.node} & {"MatMulIntegerToFloat", "MatMulNBits"}
    heads = {name: kind for name, kind in quantized.items() if of_head(name)}
    assert heads
    assert not {onnx.TensorProto.INT8, onnx.TensorProto.UINT8} & set(heads.values()), "a head is never quantised"
    for a, b in zip(live, OnnxScorer(tmp_path / "model.onnx").score(groups), strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)


def test_single_answers_with_labels_are_enough_for_pointwise_losses(tmp_path):
    import json

    rows = [{"prompt": f"p {i}", "response": "good" if i % 2 else "bad", "accept": bool(i % 2)} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    backbone = save_backbone(tmp_path / "backbone", "bert")
    config = load_config(
        "encoder-classify",
        [
            f"output_dir={tmp_path / 'run'}",
            f"model.name_or_path={backbone}",
            f"data.train=[{tmp_path / 'rows.jsonl'}]",
            f"data.validation=[{ROOT / 'data' / 'validation.jsonl'}]",
            "data.max_eval_samples=4",
            "model.max_length=128",
            "training.report_to=[]",
            "training.eval_steps=100000",
        ],
    )
    assert len(train(config).train) == 12
