"""Weights that do not fit in one file: here from the first byte, so that a tiny model has them too."""

import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import ranker
from ranker.checkpoints import native
from ranker.cli.main import app
from ranker.errors import ExportError, ModelFileError
from ranker.export import half, storage
from ranker.runtime import manifest
from ranker.scoring.protocol import Calibration
from tests.export.test_matrix import scalar
from tests.models.test_reward import TEMPLATE, save_backbone

PROMPT, ANSWERS = "Name a fruit", ["an apple", "a saw", "The answer is 42."]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    backbone = save_backbone(folder / "backbone", "llama", template=TEMPLATE)
    native.save(*scalar(str(backbone)), folder / "checkpoint")
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def small_limit():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "LIMIT", 10_000)
        patch.setattr(half, "MATRIX", 2048)
        yield


@pytest.fixture(scope="module")
def both_files(checkpoint, tmp_path_factory, small_limit):
    folder = tmp_path_factory.mktemp("exported")
    ranker.export_onnx(checkpoint, folder / "m.onnx")
    return folder


@pytest.fixture
def exported(both_files, tmp_path):
    shutil.copytree(both_files, tmp_path, dirs_exist_ok=True)
    return tmp_path / "m.onnx"


@pytest.mark.full
def test_weights_beside_the_file_score_as_those_in_it(checkpoint, exported, tmp_path):
    weights = manifest.weights_of(exported)
    assert weights.name == "m.onnx.data"
    assert weights.size == (tmp_path / "m.onnx.data").stat().st_size > 10_000
    expected = ranker.load(checkpoint).score(PROMPT, ANSWERS)
    np.testing.assert_allclose(ranker.load(exported).score(PROMPT, ANSWERS), expected, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert ("weights", f"m.onnx.data ({weights.size / 1e9:.2f} GB)") in manifest.described(exported)
    (check,) = ranker.verify_checkpoint(exported)
    assert check.passed
    assert "m.onnx.data" in check.seen


@pytest.mark.full
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_precisions_of_large_graphs(precision, checkpoint, tmp_path, small_limit):
    report = ranker.export_onnx(checkpoint, tmp_path / "m.onnx", precision=precision, allow_loss=True)
    assert (tmp_path / "m.onnx.data").is_file()
    expected = np.array(ranker.load(checkpoint).score(PROMPT, ANSWERS))
    np.testing.assert_allclose(ranker.load(tmp_path / "m.onnx").score(PROMPT, ANSWERS), expected, atol=0.1)
    assert report.max_difference < 0.1
    if precision == "int8":
        assert report.quantization["weights_only"] is True


@pytest.mark.full
def test_static_scales_of_a_large_graph_are_refused(checkpoint, tmp_path, small_limit):
    with pytest.raises(ExportError, match="int8-static: a model beyond 2 GB is exported in int8"):
        ranker.export_onnx(checkpoint, tmp_path / "m.onnx", precision="int8-static")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory, small_limit):
    """Weights of the same size, of another model."""
    folder = tmp_path_factory.mktemp("other")
    model, tokenizer = scalar(str(save_backbone(folder / "backbone", "llama", template=TEMPLATE)))
    model.model.layers[0].mlp.up_proj.weight.data += 0.01
    native.save(model, tokenizer, folder / "checkpoint")
    ranker.export_onnx(folder / "checkpoint", folder / "m.onnx")
    return folder / "m.onnx.data"


def missing(data, other):
    data.unlink()


def cut(data, other):
    data.write_bytes(data.read_bytes()[:-1])


def swapped(data, other):
    shutil.copy(other, data)


def changed(data, other):
    values = bytearray(data.read_bytes())
    values[-1] ^= 1
    data.write_bytes(values)


@pytest.mark.full
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (missing, r"m\.onnx: its weights are in m\.onnx\.data, which is not beside it; copy both files"),
        (cut, r"m\.onnx\.data: has [\d,]+ bytes, the weights of m\.onnx have [\d,]+; copy it again from its source"),
        (swapped, r"m\.onnx\.data: holds the weights of another model than m\.onnx; copy both files"),
    ],
)
def test_another_file_of_weights_is_refused_in_one_line(damage, words, other_weights, exported, tmp_path):
    damage(tmp_path / "m.onnx.data", other_weights)
    with pytest.raises(ModelFileError, match=words) as refusal:
        ranker.load(exported)
    assert "\n" not in str(refusal.value)
    result = CliRunner().invoke(app, ["score", "--model", str(exported), "--input", "data/validation.jsonl"])
    assert result.exit_code != 0


@pytest.mark.full
def test_changed_weights_are_found_by_verify(exported, tmp_path):
    changed(tmp_path / "m.onnx.data", None)
    with pytest.raises(ModelFileError, match=r"m\.onnx\.data: the weights differ from their recorded SHA-256"):
        ranker.verify_checkpoint(exported)


@pytest.mark.full
def test_both_files_go_where_a_model_goes(exported, tmp_path):
    ranker.convert(exported, tmp_path / "repository", to="triton")
    copied = tmp_path / "repository" / "ranker" / "1" / "model.onnx"
    assert list(ranker.load(copied).score(PROMPT, ANSWERS)) == list(ranker.load(exported).score(PROMPT, ANSWERS))
    manifest.calibrate(exported, Calibration(temperature=2.0))
    assert ranker.load(exported).info.calibration.temperature == 2.0
