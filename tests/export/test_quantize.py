"""int8: the formula by hand, scores whose batch matters by rounding alone, and the gate."""

import logging
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import ranker
from ranker.checkpoints import native
from ranker.errors import ParityError
from ranker.export import ladder, parity, quantize, rounding, search
from ranker.export.nodes import Product
from ranker.export.write import OnLoss, export
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.runtime import session
from ranker.runtime.onnx_scorer import OnnxScorer
from tests.conftest import tiny
from tests.export.test_export import ROWS
from tests.support.selection import cases

dot_products = pytest.mark.skipif(
    session.int8_warning() is not None, reason="8-bit products saturate on a processor without dot products"
)


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
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "z", "scores")],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "g.onnx")
    return folder / "g.onnx", w.astype(np.float32), v.astype(np.float32), b.astype(np.float32)


def activations():
    """(3, 40, 6), with an outlier channel, an outlier token and a mean that is not zero."""
    x = np.random.default_rng(1).normal(size=(3, 40, 6)) * np.array([1, 1, 30, 1, 1, 0.1]) + 0.5
    x[0, 1] *= 20
    return x.astype(np.float32)


def watched(graph, x):
    calibration = quantize.Calibration(graph)
    calibration({"x": x})
    return quantize.Quantizer(graph, calibration)


def by_hand(x, numbers, which, bias):
    """The formula of ``Rounded``, written out."""
    beside = x[..., numbers.outliers] @ numbers.outlier_weights[which]
    states = x.reshape(-1, x.shape[-1]) / numbers.smoothing
    scale = numbers.scale
    if scale is None:
        above, below = 255 - numbers.zero_point, numbers.zero_point
        scale = np.array([[max(row.max() / above, -row.min() / below)] for row in states], np.float32)
    q = np.clip(np.round(states / scale) + numbers.zero_point, 0, 255)
    product = (
        scale * ((q - numbers.zero_point) @ numbers.weights[which].astype(np.float32)) * numbers.weight_scale[which]
    )
    return product.reshape(*x.shape[:-1], -1) + beside + bias


def test_what_rounding_takes_on_average_goes_into_the_bias():
    x = activations().reshape(-1, 6)
    w = np.random.default_rng(2).normal(size=(6, 4)).astype(np.float32)
    numbers = rounding.Rounder(rounding.ActivationStats(x.min(axis=0), x.max(axis=0), x), [w]).rounded("fixed")
    alike = np.square(rounding._weight(x @ w)[:, 0])  # as errors are weighted
    before, after = (
        np.abs(np.average(by_hand(x, numbers, 0, shift) - x @ w, axis=0, weights=alike)).max()
        for shift in (0, numbers.shift[0])
    )
    assert after < 1e-3 < before


@dot_products
@pytest.mark.parametrize("use_qdq", [False, True])
@pytest.mark.parametrize("scheme", get_args(rounding.Scheme))
def test_the_graph_computes_the_formula(scheme, use_qdq, tmp_path):
    if use_qdq and scheme == "token":
        pytest.skip("ONNX's own nodes have fixed scales only")
    graph, w, v, b = two_products(tmp_path)
    x = activations()
    quantizer = watched(graph, x)
    quantizer.write(tmp_path / "q.onnx", {"x": scheme}, use_qdq=use_qdq)
    assert ({node.domain for node in onnx.load(tmp_path / "q.onnx").graph.node} == {""}) == use_qdq
    y, z, _ = onnxruntime.InferenceSession(tmp_path / "q.onnx").run(None, {"x": x})
    numbers = quantizer.rounded("x", scheme)
    assert (numbers.scale is None) == (scheme == "token")
    assert numbers.outliers.tolist() == ([2] if scheme == "outliers" else [])
    np.testing.assert_allclose(y, by_hand(x, numbers, 0, b + numbers.shift[0]), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(z, by_hand(x, numbers, 1, 0), rtol=1e-4, atol=1e-3)
    size = np.abs(x @ w).max(axis=-1, keepdims=True)
    error = np.abs(y - (x @ w + b)) / size
    assert 1e-6 < np.median(error) < 0.02


def test_weights_that_mend_each_other_lose_less_than_the_nearest(monkeypatch):
    rng = np.random.default_rng(0)
    common = rng.normal(size=(500, 4))
    states = (common @ rng.normal(size=(4, 80)) + 0.1 * rng.normal(size=(500, 80))).astype(np.float32)
    weights = rng.normal(size=(80, 8)).astype(np.float32)
    plain, weight_scale = rounding._nearest(weights)
    mended, same = rounding.gptq_round(weights, states)
    np.testing.assert_array_equal(weight_scale, same)
    lost = [np.mean((states @ (whole * weight_scale - weights)) ** 2) for whole in (plain, mended)]
    assert lost[1] < 0.5 * lost[0]
    monkeypatch.setattr(rounding, "BLOCK", 80)
    np.testing.assert_array_equal(rounding.gptq_round(weights, states)[0], mended)
    assert np.abs(mended - plain).max() < 20


def test_a_scale_per_token_serves_outlier_tokens_better_and_smoothing_outlier_channels():
    x = activations().reshape(-1, 6)
    seen = rounding.ActivationStats(x.min(axis=0), x.max(axis=0), x)
    weights = [np.random.default_rng(2).normal(size=(6, 5)).astype(np.float32)]
    rounder = rounding.Rounder(seen, weights)
    fixed, beside, varying = map(rounder.rounded, ("fixed", "outliers", "token"))
    assert varying.error < 0.5 * fixed.error
    assert beside.error < fixed.error
    assert not beside.weights[0][2].any(), "what is multiplied in fp32 has no part in the 8-bit product"
    for scheme, numbers in (("fixed", fixed), ("outliers", beside), ("token", varying)):
        assert 0.2 * numbers.error < rounder.estimate(scheme) < 5 * numbers.error
    assert fixed.smoothing[2] == max(fixed.smoothing)
    scales = rounding.token_scales(x / varying.smoothing, varying.zero_point)
    steps = np.round(x / varying.smoothing / scales) + varying.zero_point
    assert steps.min() >= 0
    assert steps.max() <= 255


def test_a_channel_that_was_silent_may_speak_later():
    x = np.random.default_rng(1).normal(size=(200, 6)).astype(np.float32)
    x[:, 3] = 0
    seen = rounding.ActivationStats(x.min(axis=0), x.max(axis=0), x)
    numbers = rounding.Rounder(seen, [np.ones((6, 2), np.float32)]).rounded("token")
    assert numbers.smoothing.max() / numbers.smoothing.min() < 200
    nothing = rounding.ActivationStats(0 * x[0], 0 * x[0], 0 * x)
    silent = rounding.Rounder(nothing, [np.ones((6, 2), np.float32)]).rounded("fixed")
    assert np.isfinite(silent.smoothing).all()
    assert np.isfinite(silent.error)


def test_failed_rows_fail_the_gate_and_not_the_search(tmp_path):
    from ranker.scoring.protocol import failed

    class Failing:
        def __init__(self, scorer):
            self.scorer = scorer

        def score(self, groups, **options):
            return [failed(groups[0], "broken"), *self.scorer.score(groups[1:], **options)]

    scorer = TorchScorer(*tiny("set_encoder"))
    reference = parity.Reference(scorer, ROWS, max_length=128)
    decisions = parity.decision_agreement(reference, Failing(scorer))
    assert decisions.failed == 1
    for precision in ("int8", "fp16"):
        assert parity.losses(decisions, precision) == ["1 groups could not be scored"]


@pytest.mark.full
def test_int8_is_said_to_be_slow_by_export_and_by_load_where_the_processor_is(tmp_path, monkeypatch, caplog):
    native.save(*tiny("pointwise"), tmp_path / "checkpoint")
    monkeypatch.setattr(session, "PROCESSOR", tmp_path / "cpuinfo")
    session.PROCESSOR.write_text("flags : fpu avx2\n")
    export(tmp_path / "checkpoint", {"int8": tmp_path / "m.onnx"}, rows=ROWS, on_loss="allow")
    assert caplog.text.count("this processor has no 8-bit dot products") == 1
    caplog.clear()
    ranker.load(tmp_path / "m.onnx", device="cpu")  # score, serve and filter load so too
    assert caplog.text.count("int8 runs at 0.6 to 0.9 of fp32's speed") == 1
    session.PROCESSOR.write_text("flags : fpu avx2 avx_vnni\n")
    caplog.clear()
    ranker.load(tmp_path / "m.onnx", device="cpu")
    assert not caplog.text


@pytest.mark.parametrize("flags", ["avx2 avx_vnni", "avx2"])
def test_the_search_tries_what_can_pass_on_this_processor(flags, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "PROCESSOR", tmp_path / "cpuinfo")
    session.PROCESSOR.write_text(f"flags : {flags}\n")
    x = activations().reshape(-1, 6)
    seen = rounding.ActivationStats(x.min(axis=0), x.max(axis=0), x)
    product = Product(None, np.random.default_rng(2).normal(size=(6, 5)).astype(np.float32), None, None)
    rounder = rounding.Rounder(seen, [product.weights])
    names = [f"activation {number}" for number in range(8)]
    quantizer = SimpleNamespace(
        products={name: [product] for name in names},
        rounder=lambda name: rounder,
        rounded=lambda name, scheme, rounder: rounder.rounded(scheme),
    )
    harm = {name: 10.0**-number for number, name in enumerate(names)}
    rungs = search._rungs(quantizer, False, lambda: harm)
    plans = list(search._Plans(rungs, False))
    assert plans[-1] == search.WEIGHTS_ONLY
    if flags == "avx2":
        assert len(plans) == 1
        return
    assert plans[0].schemes == dict.fromkeys(names, "fixed"), "the fastest"
    assert plans[1].schemes.get(names[0]) != "fixed", "what harms most comes first"
    assert all(len(plan.schemes) >= 4 for plan in plans[:-1]), "half of the multiplications stay 8 bits"
    static = list(search._Plans(search._rungs(quantizer, True, lambda: harm), True))
    assert static
    assert all(plan.use_qdq and "token" not in plan.schemes.values() for plan in static)


def test_the_ladder_buys_what_takes_most_error_away_for_its_time():
    def choice(name, **options):
        return ladder.Choice(name, 100, {(None if s == "fp32" else s): ladder.Option(*o) for s, o in options.items()})

    choices = [
        choice("early", fixed=(8.0, 1.0), outliers=(2.0, 2.0), token=(3.0, 2.0), fp32=(0.0, 20.0)),
        choice("late", fixed=(1.0, 1.0), outliers=(0.9, 0.5), token=(0.5, 2.0), fp32=(0.0, 20.0)),
    ]
    rungs = list(ladder.ladder(choices))
    assert [(rung.schemes, rung.error) for rung in rungs[:3]] == [
        ({"early": "fixed", "late": "outliers"}, 8.9),
        ({"early": "outliers", "late": "outliers"}, 2.9),
        ({"early": "outliers", "late": "token"}, 2.5),
    ]


@pytest.mark.parametrize(
    ("tau", "following"),
    [(0.90, 7), (0.97, 4), (0.972, 2), (0.99, 1), (None, 1)],
)
def test_the_next_plan_to_try_is_the_one_whose_ranks_should_pass(tau, following):
    rungs = [ladder.Rung({}, 0.9**number) for number in range(8)]
    assert ladder.wanted(rungs, 0, 1.0 if tau is None else tau, 0.98) == following
    assert ladder.wanted(rungs, 7, 0.9, 0.98) is None


def test_the_harm_of_a_product_is_what_its_rounding_does_to_the_scores(tmp_path):
    checkpoint = tmp_path / "checkpoint"
    native.save(*tiny("set_encoder"), checkpoint)
    export(checkpoint, {"fp32": tmp_path / "m.onnx"}, rows=ROWS)
    scorer = OnnxScorer(tmp_path / "m.onnx", device="cpu")
    graph = tmp_path / "graph.onnx"
    graph.write_bytes((tmp_path / "m.onnx").read_bytes())
    quantizer = search._calibrated(graph, scorer.pipeline, ROWS)
    harm = search._harm(graph, scorer.pipeline, quantizer, ROWS)
    assert list(harm) == list(quantizer.products)
    assert not (tmp_path / "graph.one.onnx").exists()
    name = list(quantizer.products)[1]
    quantizer.write(tmp_path / "one.onnx", {name: "fixed"})
    groups = [row.group for row in ROWS[: search.SCORED]]
    before, after = (
        search._on_cpu(tmp_path / f"{file}.onnx", scorer.pipeline).score(groups) for file in ("graph", "one")
    )
    changes = [new.scores - old.scores for old, new in zip(before, after, strict=True)]
    centred = np.concatenate([change - change.mean() for change in changes])
    assert 0 < harm[name] == pytest.approx(np.abs(centred).mean() ** 2, rel=1e-3)


def test_answers_without_a_score_do_not_hide_the_harm_of_others():
    one = np.array([1.0, 2.0, np.nan, 4.0], np.float32)
    change = np.array([0.1, -0.1, 0, 0.3], np.float32)
    assert search._change([one], [one + change]) == pytest.approx(np.abs(change[[0, 1, 3]] - 0.1).mean() ** 2, rel=1e-4)
    assert search._change([one], [one + change + 5]) == pytest.approx(search._change([one], [one + change]), rel=1e-3)
    assert search._change([one], [one * np.nan]) == float("inf")
    assert search._change([one * np.nan], [one]) == 0


def test_the_ladder_goes_on_where_no_more_may_stay_fp32():
    options = {"fixed": ladder.Option(1.0, 1.0), "token": ladder.Option(0.5, 9.0), None: ladder.Option(0.0, 1.1)}
    plans = [rung.schemes for rung in ladder.ladder([ladder.Choice(name, 100, options) for name in "abcd"])]
    assert list(plans[-1].values()) == ["token", "token"]
    assert min(map(len, plans)) == 2


@pytest.mark.parametrize("inputs", [6, 32, 50])
def test_blocks_of_inputs_have_scales_of_their_own(inputs):
    weights = np.random.default_rng(0).normal(size=(inputs, 5)).astype(np.float32)
    weights[:32] *= 100
    whole, scales = rounding.blocks(weights)
    assert whole.shape == (5, -(-inputs // 32), 32)
    back = ((whole.astype(np.float32) - 128) * scales[:, :, None]).reshape(5, -1)[:, :inputs].T
    assert (np.abs(back - weights) <= scales.repeat(32, axis=1)[:, :inputs].T / 2 * 1.001).all()


def test_weights_only_lose_less_than_fixed_scales(tmp_path):
    graph, w, v, b = two_products(tmp_path)
    x = activations()
    quantizer = watched(graph, x)
    lost = []
    for weights_only in (False, True):
        quantizer.write(tmp_path / "q.onnx", {"x": "fixed"}, weights_only=weights_only)
        y, z, _ = onnxruntime.InferenceSession(tmp_path / "q.onnx").run(None, {"x": x})
        lost.append(np.median(np.abs(y - (x @ w + b))) + np.median(np.abs(z - x @ v)))
    kinds = [node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node]
    assert (kinds.count("MatMulNBits"), kinds.count("MatMulIntegerToFloat")) == (2, 0)
    assert 0 < lost[1] < 0.5 * lost[0]


def test_numbers_far_beyond_the_rest_are_clipped_where_that_loses_less():
    x = np.random.default_rng(1).normal(size=(2048, 6)).astype(np.float32)
    x[7, :] = 3000
    seen = rounding.ActivationStats(x.min(axis=0), x.max(axis=0), x)
    weights = np.random.default_rng(2).normal(size=(6, 5)).astype(np.float32)
    fixed = rounding.Rounder(seen, [weights]).rounded("fixed")
    assert fixed.scale * 255 < 1500
    assert fixed.error < 0.01


@pytest.mark.full
@pytest.mark.parametrize("precision", ["fp16", "int8-static"])
def test_other_precisions_pass_their_gates_and_say_what_they_are(precision, tmp_path):
    native.save(*tiny("set_encoder"), tmp_path / "checkpoint")
    report = export(tmp_path / "checkpoint", {precision: tmp_path / "m.onnx"}, rows=ROWS, on_loss="allow")[precision]
    scorer = OnnxScorer(tmp_path / "m.onnx", device="cpu")
    assert scorer.manifest.precision == precision
    assert 0 < report.max_difference < 0.5
    graph = onnx.load(tmp_path / "m.onnx").graph
    kinds = [node.op_type for node in graph.node]
    halves = [tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16]
    if precision == "fp16":
        assert report.tau_b >= parity.FP16_TAU
        assert len(halves) > 10
        assert not any(".head." in name for name in halves)
        return
    assert kinds.count("DequantizeLinear") >= 2 * 4
    assert not {"MatMulIntegerToFloat", "MatMulNBits"} & set(kinds)


def test_scores_that_became_the_same_count_as_no_agreement():
    scorer = TorchScorer(*tiny("set_encoder"))
    reference = parity.Reference(scorer, ROWS, max_length=128)

    class Level:
        def score(self, groups, **options):
            return [replace(result, scores=0 * result.scores) for result in scorer.score(groups, **options)]

    assert parity.decision_agreement(reference, Level()).tau_b == 0


def test_fp16_and_fp32_have_limits_of_their_own():
    parity.check(losing(tau_b=0.9991), "fp16")
    with pytest.raises(ParityError, match=r"fp16 loses too much .*tau-b 0\.9980 \(at least 0\.999\)"):
        parity.check(losing(tau_b=0.998), "fp16")


def test_what_is_left_stays_fp32_and_the_head_always(tmp_path):
    graph, *_ = two_products(tmp_path)
    quantizer = watched(graph, activations())
    assert list(quantizer.products) == ["x"]
    assert [product.bias is not None for product in quantizer.products["x"]] == [True, False]
    quantizer.write(tmp_path / "q.onnx", {"x": "fixed"})
    kinds = [node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node]
    assert (kinds.count("MatMulIntegerToFloat"), kinds.count("QuantizeLinear")) == (2, 1)
    assert "model.head/MatMul" in [node.name for node in onnx.load(tmp_path / "q.onnx").graph.node]
    quantizer.write(tmp_path / "left.onnx", {})
    assert [node.name for node in onnx.load(tmp_path / "left.onnx").graph.node] == [
        "first",
        "bias",
        "second",
        "model.head/MatMul",
    ]


def test_calibration_sees_the_ends_of_every_channel_and_keeps_the_ends_of_rows(tmp_path):
    graph, *_ = two_products(tmp_path)
    calibration = quantize.Calibration(graph)
    calibration({"x": np.full((1, 2, 6), -3, np.float32)})
    x = np.zeros((2, 300, 6), np.float32)
    x[1, 0, 4] = 7
    x[:, 200:] = 99  # padding
    present = np.where(np.arange(300) < 200, 0, -1)[None].repeat(2, axis=0)
    calibration({"x": x, "block_ids": present})
    seen = calibration.seen("x")
    np.testing.assert_array_equal(seen.low, np.full(6, -3))
    np.testing.assert_array_equal(seen.high, [0, 0, 0, 0, 7, 0])
    assert len(seen.states) < 2 + quantize.STATES_PER_BATCH + 5
    assert (seen.states[:, 4] == 7).sum() == 1


@pytest.mark.full
def test_int8_scores_share_no_scale_with_their_batch(tmp_path):
    native.save(*tiny("pointwise"), tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", {"int8": tmp_path / "m.onnx"}, rows=ROWS, on_loss="allow")
    scorer = OnnxScorer(tmp_path / "m.onnx")
    groups = [row.group for row in ROWS]
    loud = Group("x " * 60, ("9 " * 80, "[" * 40))
    together = scorer.score([*groups, loud])
    for group, result in zip(groups, together, strict=False):
        np.testing.assert_allclose(scorer.score([group])[0].scores, result.scores, atol=5e-3)


def losing(**changes):
    """A report that passes, with changes."""
    passing = parity.ParityReport(
        data="rows",
        shapes={"ragged": 0.1},
        max_difference=0.1,
        spread=1.0,
        tau_b=0.99,
        failed=0,
        flips=0.01,
        largest_flipped_margin=0.1,
        small_margin=0.2,
        accuracy_source=0.8,
        accuracy_exported=0.798,
        n=1000,
    )
    return replace(passing, **changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tau_b": 0.97}, r"Kendall tau-b 0\.970 \(at least 0\.98\)"),
        ({"flips": 0.02}, r"2\.0% of decisions flipped \(less than 2%\)"),
        ({"largest_flipped_margin": 0.7}, r"a decision with margin 0\.70 flipped \(margins up to 0\.20 may"),
        ({"accuracy_exported": 0.79}, r"1\.0% of accuracy lost \(at most 0\.5%\)"),
        ({"max_difference": float("nan")}, "NaN or infinity"),
    ],
)
def test_the_gate_names_what_is_lost_and_the_way_out(changes, sentence):
    parity.check(losing(), "int8")
    with pytest.raises(ParityError, match=f"{sentence}.*Take fp32, or accept it with --allow-loss"):
        parity.check(losing(**changes), "int8")


def test_a_parity_report_as_text_has_one_number_per_line():
    lines = str(losing(tau_b=None)).splitlines()
    assert lines == [
        "measured on                 rows",
        "max difference, ragged      1.0e-01",
        "Kendall tau-b               undefined",
        "decision flips              0.0100 (n=1000)",
        "largest flipped margin      0.100",
        "accuracy, torch / exported  0.8000 / 0.7980",
    ]
    assert "accuracy" not in str(losing(data=parity.SAMPLE)), "of the built-in sample it says nothing about the model"


@pytest.mark.full
@pytest.mark.parametrize("on_loss", cases(get_args(OnLoss), "refuse".__eq__))
def test_what_loses_too_much_is_refused_skipped_or_allowed(on_loss, tmp_path, monkeypatch, caplog):
    native.save(*tiny("set_encoder"), tmp_path / "checkpoint")
    monkeypatch.setattr(parity, "losses", lambda decisions, precision: ["Kendall tau-b 0.5 (at least 0.98)"])
    target = tmp_path / "m.onnx"
    refusal = pytest.raises(ParityError, match="int8 loses too much") if on_loss == "refuse" else nullcontext()
    reports = {}
    with refusal, caplog.at_level(logging.WARNING):
        reports = export(tmp_path / "checkpoint", {"int8": target}, rows=ROWS, on_loss=on_loss)
    assert ("m.onnx: int8 loses too much" in caplog.text) == (on_loss == "skip")
    assert target.exists() == bool(reports) == (on_loss == "allow")


@pytest.mark.parametrize(("margin", "passes"), [(0.01, True), (0.05, False)])
def test_an_order_that_fp16_cannot_tell_is_not_asked_of_it(margin, passes):
    report = losing(tau_b=0.98, largest_swapped_margin=margin, resolution=0.03)
    assert (parity.losses(report, "fp16") == []) == passes
