import json

import numpy as np
import onnx
import pytest
import torch

from ranker.checkpoints import native
from ranker.data.formats import parse_preference
from ranker.data.sample import build
from ranker.errors import ModelFileError, ParityError
from ranker.export import parity
from ranker.export.graph import AXES, to_onnx
from ranker.export.write import export
from ranker.models import backbones
from ranker.models.pairwise import PairwiseModel
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.runtime import manifest, modelfile
from ranker.runtime.onnx_scorer import OnnxScorer
from tests.conftest import FAMILIES, LAYOUTS, tiny
from tests.support.selection import cases

ROWS = [parse_preference(row, row["id"]) for _, row in zip(range(12), build.rows("validation"), strict=False)]


def exported(tmp_path, layout="set_encoder", *, family="bert", precisions=("fp32",), num_labels=1):
    model, tokenizer = tiny(layout, family=family, num_labels=num_labels)
    native.save(model, tokenizer, tmp_path / "checkpoint")
    targets = {p: tmp_path / f"model.{p}.onnx" for p in precisions}
    reports = export(tmp_path / "checkpoint", targets, rows=ROWS, on_loss="allow")
    return targets, reports, TorchScorer(model, tokenizer)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Exports of one model in fp32 and int8, and their reports."""
    return exported(tmp_path_factory.mktemp("both"), precisions=("fp32", "int8"))


CASES = [(f, c) for f in (*FAMILIES, "xlm-roberta") for c in LAYOUTS]
QUICK = (("bert", "shared_prompt"),)


@pytest.mark.parametrize(("family", "layout"), cases(CASES, QUICK.__contains__))
def test_every_layout_and_backbone_says_what_torch_says(family, layout, tmp_path):
    targets, reports, source = exported(tmp_path, layout, family=family)
    assert reports["fp32"].max_difference <= 1e-4
    assert len(reports["fp32"].shapes) >= 5
    scorer = OnnxScorer(targets["fp32"])
    answers = tuple(f"{w} {i}" for i, w in enumerate(["apple", "saw", "The answer is 42.", "[x]"] * 4))
    for count in (2, 5, 16):
        group = Group("Sort these: apple, saw.", answers[:count])
        (expected,), (got,) = (s.score([group], preserve_order=True) for s in (source, scorer))
        np.testing.assert_allclose(got.scores, expected.scores, atol=1e-4)
        order = np.random.default_rng(count).permutation(count)
        (shuffled,) = scorer.score([Group(group.prompt, tuple(answers[i] for i in order))], preserve_order=True)
        if layout != "ordered_pair":
            np.testing.assert_allclose(shuffled.scores, got.scores[order], atol=1e-5)


@pytest.mark.full
def test_a_broken_graph_is_refused_and_not_written(tmp_path, monkeypatch):
    def broken(model, path):
        to_onnx(model, path)
        proto = onnx.load(path)
        name = next(i.name for i in proto.graph.initializer if list(i.dims) == [64, 32])
        (tensor,) = [i for i in proto.graph.initializer if i.name == name]
        values = onnx.numpy_helper.to_array(tensor).copy()
        values[0, 0] += 50.0
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
        onnx.save(proto, path)

    monkeypatch.setattr("ranker.export.graph.to_onnx", broken)
    with pytest.raises(ParityError, match=r"shape '.*': ONNX and torch logits differ by .*limit 1e-04"):
        exported(tmp_path)
    assert not list(tmp_path.glob("*.onnx"))


def test_int8_keeps_the_head_in_fp32_and_reports_its_loss(both):
    targets, reports, _ = both
    proto = onnx.load(targets["int8"])
    kinds = {node.op_type for node in proto.graph.node}
    assert kinds & {"MatMulIntegerToFloat", "MatMulNBits"}, "the processor decides which step of the search is first"
    head = [node.op_type for node in proto.graph.node if ".head/" in node.name]
    assert set(head) & {"Gemm", "MatMul"}
    assert not set(head) & {"MatMulIntegerToFloat", "QuantizeLinear"}
    assert reports["int8"].tau_b is not None
    assert reports["int8"].n > 50
    assert 0 <= reports["int8"].flips < 1


def test_the_manifest_holds_the_parity_report_as_json(both):
    targets, reports, _ = both
    decisions = ["tau_b", "failed", "flips", "largest_flipped_margin", "small_margin", "accuracy_source"]
    of_order = ["largest_swapped_margin", "resolution"]
    keys = ["data", "shapes", "max_difference", "spread", *decisions, "accuracy_exported", "n", *of_order]
    assert [*reports["fp32"].to_dict()] == keys
    assert [*reports["int8"].to_dict()] == [*keys, "quantization"]
    for precision, report in reports.items():
        assert manifest.read(targets[precision])[0].parity == json.loads(json.dumps(report.to_dict()))


def test_the_file_carries_everything_and_no_local_paths(model):
    proto = onnx.load(model)
    onnx.checker.check_model(proto)
    for value in proto.graph.input:
        assert tuple(d.dim_param for d in value.type.tensor_type.shape.dim) == AXES[value.name]
    assert {p.key for p in proto.metadata_props} == {
        manifest.MANIFEST_KEY,
        manifest.DIGEST_KEY,
        manifest.TOKENIZER_KEY,
    }
    assert str(model.parent).encode() not in model.read_bytes()
    assert b"site-packages" not in model.read_bytes()


@pytest.mark.full
def test_scores_of_several_tasks_are_their_mean(tmp_path):
    targets, _, source = exported(tmp_path, "shared_prompt", num_labels=3)
    group = ROWS[0].group
    (expected,), (got,) = source.score([group]), OnnxScorer(targets["fp32"]).score([group])
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-5)


@pytest.mark.parametrize("part", ["graph", "tokenizer", "manifest"])
def test_a_flipped_byte_is_found_before_the_first_score(part, model, tmp_path):
    data = bytearray(model.read_bytes())
    entries, _ = modelfile.read(model)
    where = {
        "graph": len(data) // 3,
        "tokenizer": data.index(entries[manifest.TOKENIZER_KEY][1000:1040].encode()) + 5,
        "manifest": data.index(b'"format_version"') + 3,
    }[part]
    data[where] ^= 1
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(ModelFileError, match=r"differs from its recorded SHA-256|truncated or not an ONNX"):
        OnnxScorer(tmp_path / "model.onnx")


def test_truncated_foreign_and_future_files_say_so(model, tmp_path):
    path = tmp_path / "model.onnx"
    whole = model.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFileError, match="truncated"):
        OnnxScorer(path)
    path.write_bytes(b"not a model at all, but long enough to be read")
    with pytest.raises(ModelFileError, match="not an ONNX"):
        OnnxScorer(path)
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="empty"):
        OnnxScorer(path)
    path.write_bytes(whole)
    entries, _ = modelfile.read(path)
    modelfile.write(path, path, {})
    with pytest.raises(ModelFileError, match="without a ranker manifest"):
        OnnxScorer(path)
    future = entries[manifest.MANIFEST_KEY].replace(
        f'"format_version":{manifest.FORMAT_VERSION}', '"format_version":99'
    )
    modelfile.write(path, path, entries | {manifest.MANIFEST_KEY: future, manifest.DIGEST_KEY: manifest.sha256(future)})
    with pytest.raises(ModelFileError, match=r"manifest format 99, this version reads \d; upgrade ranker-toolkit"):
        OnnxScorer(path)
    with pytest.raises(ModelFileError, match="found no file"):
        OnnxScorer(tmp_path / "none.onnx")


def test_readout_positions_are_inputs_not_searched():
    """A marker id inside a text position must not move the readout: the model is told where to read."""
    model, _ = tiny("shared_prompt")
    ids = torch.tensor([[2, 690, 10, 3, 2, 691, 11, 3]])
    blocks = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])
    readout = torch.tensor([[1, 5]])
    forged = ids.clone()
    forged[0, 2] = 691
    assert isinstance(model, PairwiseModel)
    with torch.no_grad():
        hidden = backbones.encode(
            model.backbone, forged, blocks, positions, (blocks >= 0)[:, None, None].expand(1, 1, 8, 8), None
        )
        from ranker.models.attention.blocks import star_mask

        hidden = backbones.encode(model.backbone, forged, blocks, positions, star_mask(blocks), None)
        expected = model.head(torch.cat([hidden[0, 1], hidden[0, 5]]))
        got = model(forged, blocks, positions, readout=readout)[0, 0]
    torch.testing.assert_close(got, expected)


def test_a_shape_that_one_side_cannot_score_passes_no_limit_wherever_it_stands(monkeypatch):
    differences = iter([0.0, float("nan"), *[0.0] * 8])
    monkeypatch.setattr(parity, "_difference", lambda before, after: next(differences))
    scorer = TorchScorer(*tiny("set_encoder"))
    report = parity.compare(parity.Reference(scorer, ROWS[:4], max_length=64), scorer)
    with pytest.raises(ParityError, match="NaN or infinity"):
        parity.check(report, "fp32")


def test_a_model_that_costs_much_is_measured_on_less():
    scorer = TorchScorer(*tiny("pointwise"))
    rows = [ROWS[i % len(ROWS)] for i in range(40)]
    small, large = (parity.Reference(scorer, rows, max_length=128, weights=count) for count in (1, int(1e12)))
    assert len(large.rows) == parity.LEAST_ROWS < len(small.rows) == 40
    assert len(large.shapes["ragged"]) == parity.LEAST_ROWS < len(small.shapes["ragged"])
