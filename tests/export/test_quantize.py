"""int8: the formula by hand, scores whose batch matters by rounding alone, and the gate."""

import logging
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ranker.checkpoints import native
from ranker.errors import ParityError
from ranker.export import parity, quantize
from ranker.export.command import OnLoss, export
from ranker.records import Group
from ranker.runtime.scorer import OnnxScorer
from tests.conftest import tiny
from tests.export.test_export import ROWS


def two_products(folder):
    """x -> MatMul + bias and MatMul without; a head that must be there to be left alone."""
    rng = np.random.default_rng(0)
    w, v, b = rng.normal(size=(6, 4)), rng.normal(size=(6, 3)), rng.normal(size=4)
    head = rng.normal(size=(4, 1))
    constants = {"w": w, "v": v, "b": b, "model.head.weight": head}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"], name="first"),
        helper.make_node("Add", ["xw", "b"], ["y"], name="bias"),
        helper.make_node("MatMul", ["x", "v"], ["z"], name="second"),
        helper.make_node("MatMul", ["y", "model.head.weight"], ["scores"], name="model.head/MatMul"),
    ]
    shape = ["batch", "sequence", 6]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "z", "scores")],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "g.onnx")
    return folder / "g.onnx", w.astype(np.float32), v.astype(np.float32), b.astype(np.float32)


def by_hand(x, w, b, seen, heaviest, share):
    smooth = seen**share / heaviest ** (1 - share)
    smooth = smooth / smooth.mean()
    x, w = x / smooth, w * smooth[:, None]
    unit = np.abs(w).max(axis=0) / 127
    whole = np.round(w / unit)
    high, low = x.max(-1, keepdims=True).clip(min=0), x.min(-1, keepdims=True).clip(max=0)
    scale = (high - low) / 255
    start = np.round(-low / scale)
    q = np.clip(np.round(x / scale) + start, 0, 255)
    return ((q - start) * scale) @ (whole * unit) + b


def test_every_token_has_its_scale_and_zero_point(tmp_path):
    graph, w, v, b = two_products(tmp_path)
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(2, 5, 6)) * np.array([1, 1, 30, 1, 1, 0.1]) + 0.5).astype(np.float32)
    x[0, 1] *= 100
    seen = np.abs(x).max(axis=(0, 1))
    quantize.Quantizer(graph, quantize.Calibration(graph).products, {"x": seen}).write(tmp_path / "q.onnx", 0.5)
    y, z, _ = onnxruntime.InferenceSession(tmp_path / "q.onnx").run(None, {"x": x})
    heaviest = np.maximum(np.abs(w).max(axis=1), np.abs(v).max(axis=1))
    np.testing.assert_allclose(y, by_hand(x, w, b, seen, heaviest, 0.5), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(z, by_hand(x, v, 0, seen, heaviest, 0.5), rtol=1e-3, atol=1e-2)
    size = np.abs(x @ w).max(axis=-1, keepdims=True)
    assert (np.abs(y - (x @ w + b)) / size).max() < 0.05
    assert np.abs(y - (x @ w + b)).max() > 1e-4


def test_what_is_left_stays_fp32_and_the_head_always(tmp_path):
    graph, *_ = two_products(tmp_path)
    products = quantize.Calibration(graph).products
    assert list(products) == ["x"]
    assert [product.bias is not None for product in products["x"]] == [True, False]
    quantizer = quantize.Quantizer(graph, products, {"x": np.ones(6, np.float32)})
    quantizer.write(tmp_path / "q.onnx", 0.5)
    kinds = [node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node]
    assert (kinds.count("MatMulIntegerToFloat"), kinds.count("QuantizeLinear")) == (2, 1)
    assert "model.head/MatMul" in [node.name for node in onnx.load(tmp_path / "q.onnx").graph.node]
    quantizer.write(tmp_path / "left.onnx", 0.5, left=["x"])
    assert [node.name for node in onnx.load(tmp_path / "left.onnx").graph.node] == [
        "first", "bias", "second", "model.head/MatMul",
    ]  # fmt: skip


def test_calibration_sees_the_largest_value_of_every_channel(tmp_path):
    graph, *_ = two_products(tmp_path)
    calibration = quantize.Calibration(graph)
    calibration({"x": np.full((1, 2, 6), -3, np.float32)})
    x = np.zeros((2, 1, 6), np.float32)
    x[1, 0, 4] = 7
    calibration({"x": x})
    np.testing.assert_array_equal(calibration.ranges["x"], [3, 3, 3, 3, 7, 3])


def test_int8_scores_share_no_scale_with_their_batch(tmp_path):
    native.save(*tiny("set", exchange=False), tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", {"int8": tmp_path / "m.onnx"}, rows=ROWS, on_loss="allow")
    scorer = OnnxScorer(tmp_path / "m.onnx")
    groups = [row.group for row in ROWS]
    loud = Group("x " * 60, ("9 " * 80, "[" * 40))
    together = scorer.score([*groups, loud])
    for group, result in zip(groups, together, strict=False):
        np.testing.assert_allclose(scorer.score([group])[0].scores, result.scores, atol=5e-3)


def losing(**changes):
    passing = {
        "max_difference": 0.1, "tau_b": 0.99, "flips": 0.01, "accuracy_source": 0.8, "accuracy_exported": 0.798, "n": 1000,
    }  # fmt: skip
    return passing | changes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tau_b": 0.97}, r"Kendall tau-b 0\.970 \(at least 0\.98\)"),
        ({"flips": 0.02}, r"2\.0% of decisions flipped \(less than 2%\)"),
        ({"accuracy_exported": 0.79}, r"1\.0% of accuracy lost \(at most 0\.5%\)"),
        ({"max_difference": float("nan")}, "NaN or infinity"),
    ],
)
def test_the_gate_names_what_is_lost_and_the_way_out(changes, said):
    parity.check_int8(losing())
    with pytest.raises(ParityError, match=f"{said}.*Take fp32, or accept it with --allow-loss"):
        parity.check_int8(losing(**changes))


def test_what_loses_too_much_is_refused_skipped_or_allowed(tmp_path, monkeypatch, caplog):
    native.save(*tiny("set"), tmp_path / "checkpoint")
    monkeypatch.setattr(parity, "TAU", 1.1)
    with pytest.raises(ParityError, match="int8 loses too much"):
        export(tmp_path / "checkpoint", {"int8": tmp_path / "m.onnx"}, rows=ROWS)
    with caplog.at_level(logging.WARNING):
        assert export(tmp_path / "checkpoint", {"int8": tmp_path / "m.onnx"}, rows=ROWS, on_loss="skip") == {}
    assert "m.onnx: int8 loses too much" in caplog.text
    assert not (tmp_path / "m.onnx").exists()
    table = export(tmp_path / "checkpoint", {"int8": tmp_path / "m.onnx"}, rows=ROWS, on_loss="allow")["int8"]
    assert table["quantization"]["activations"] == "per token"
    assert (tmp_path / "m.onnx").exists()
    assert get_args(OnLoss) == ("refuse", "skip", "allow")
