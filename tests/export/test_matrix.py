"""Every scheme over every backbone exports, and says in ONNX what it says in torch."""

import numpy as np
import onnx
import pytest

from ranker.checkpoints import native
from ranker.config import GateConfig
from ranker.export.write import export
from ranker.models import armorm, pointwise
from ranker.models import steamshp as seq2seq
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.runtime.onnx_scorer import OnnxScorer
from tests.conftest import FAMILIES
from tests.export.test_export import ROWS
from tests.models.test_reward import ANSWERS, DECODERS, PROMPT, TEMPLATE, save_backbone

SIZES = {"max_length": 128, "prompt_reserve": 16}
ENCODERS = (*FAMILIES, "xlm-roberta")


def scalar(folder):
    return pointwise.from_backbone(folder, output="scalar", **SIZES)


def pooled_classes(folder):
    return pointwise.from_backbone(folder, output="accept_reject", pooling="mean", **SIZES)


def classes(folder):
    return pointwise.from_backbone(folder, output="accept_reject", **SIZES)


def aspects(folder):
    return pointwise.from_backbone(folder, output="aspects", aspects=("a", "b", "c"), **SIZES)


def gate(folder):
    return armorm.from_backbone(
        folder, aspects=("a", "b", "c"), gate=GateConfig(hidden=16), pooling="first_token", **SIZES
    )


def steamshp(folder):
    return seq2seq.from_backbone(folder, **SIZES)


POINTWISE = (scalar, classes, aspects, gate)
CASES = [
    *((scheme, family) for scheme in (*POINTWISE, pooled_classes) for family in ENCODERS),
    *((scheme, family) for scheme in POINTWISE for family in DECODERS),
    *((steamshp, family) for family in sorted(seq2seq.FAMILIES)),
]


@pytest.mark.full
@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS])
def test_int8_is_made_of_every_backbone(family, tmp_path):
    folder = save_backbone(tmp_path / "backbone", family)
    native.save(*scalar(str(folder)), tmp_path / "checkpoint")
    report = export(tmp_path / "checkpoint", {"int8": tmp_path / "m.onnx"}, rows=ROWS, on_loss="allow")["int8"]
    kinds = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    in_8_bits = kinds.count("MatMulIntegerToFloat") + kinds.count("MatMulNBits")
    assert in_8_bits + len(report.quantization["keep_fp32"]) >= 2 * 4, (
        "every product is in 8 bits or said to be in fp32"
    )
    assert in_8_bits >= 4


@pytest.mark.full
@pytest.mark.parametrize(
    ("scheme", "family"),
    CASES,
    ids=[f"{scheme.__name__}-{family}" for scheme, family in CASES],
)
def test_the_graph_says_what_the_model_says(scheme, family, tmp_path):
    template = TEMPLATE if family in DECODERS else None
    folder = save_backbone(tmp_path / "backbone", family, **({"template": template} if template else {}))
    model, tokenizer = scheme(str(folder))
    native.save(model.eval(), tokenizer, tmp_path / "checkpoint")
    report = export(tmp_path / "checkpoint", {"fp32": tmp_path / "model.onnx"}, rows=ROWS)["fp32"]
    assert len(report.shapes) >= 8
    assert report.max_difference <= 1e-4
    group = Group(PROMPT, ANSWERS)
    (expected,), (got,) = (
        s.score([group]) for s in (TorchScorer(model, tokenizer), OnnxScorer(tmp_path / "model.onnx"))
    )
    assert np.ptp(expected.scores) > 1e-4, "scores that are all the same would prove nothing"
    np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-4, atol=1e-4)
