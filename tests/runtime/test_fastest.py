"""``precision="auto"``: which file is taken on which machine, and that its scores are those of the file."""

import logging
import shutil

import pytest
import torch

from ranker import BatchScorer, load
from ranker.checkpoints import native
from ranker.errors import ConfigError, ModelFileError
from ranker.export.write import export
from ranker.records import Preference
from ranker.runtime import fastest, session
from ranker.runtime.fastest import resolved
from ranker.runtime.manifest import Manifest
from tests.conftest import tiny

AUTO = {"precision": "auto"}
ROWS = [Preference(f"What is {i}?", ("It is so.", "No."), ((1.0,), (0.0,))) for i in range(8)]


def run_of(folder, patch):
    """The folder of a run with fp32 and int8."""
    native.save(*tiny("pointwise"), folder / "checkpoint")
    processor(patch, folder, "avx2 avx_vnni")
    files = {"fp32": folder / "model.onnx", "int8": folder / "model.int8.onnx"}
    export(folder / "checkpoint", files, rows=ROWS, on_loss="allow")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield run_of(tmp_path_factory.mktemp("run"), patch)


@pytest.fixture
def copied(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture
def weights_are_products(monkeypatch):
    """Files of this test are not such as only have their weights in 8 bits, whatever this processor exports."""
    monkeypatch.setattr(Manifest, "weights_only", False)


def processor(patch, folder, flags):
    """Let the processor have these instruction sets."""
    patch.setattr(session, "PROCESSOR", folder / "cpuinfo")
    session.PROCESSOR.write_text(f"flags : fpu {flags}\n")


@pytest.fixture
def gpu(monkeypatch):
    """Let there be a GPU for onnxruntime and for torch, with bf16."""
    monkeypatch.setattr(fastest, "graphics", lambda: "a GPU")
    monkeypatch.setattr(fastest, "on_graphics", lambda device: True)
    monkeypatch.setattr(fastest, "_bf16_on_gpu", lambda: True)


@pytest.mark.parametrize(
    ("flags", "file"),
    [("avx2 avx512_vnni", "model.int8.onnx"), ("asimddp", "model.int8.onnx"), ("avx512f", "model.onnx")],
)
@pytest.mark.usefixtures("weights_are_products")
def test_int8_is_taken_where_the_processor_has_its_products(flags, file, run, tmp_path, monkeypatch, caplog):
    processor(monkeypatch, tmp_path, flags)
    caplog.set_level(logging.INFO)
    loaded = load(run, device="cpu", **AUTO)
    assert f"precision auto: {run / file} in fp32" in caplog.text
    assert loaded.score("q", ["a", "b"]).tolist() == load(run / file, device="cpu").score("q", ["a", "b"]).tolist()


@pytest.mark.usefixtures("weights_are_products")
def test_a_model_that_compares_answers_is_taken_in_bf16_on_amx(run, tmp_path, monkeypatch):
    comparing = tmp_path / "run"
    native.save(*tiny("set_encoder"), comparing / "checkpoint")
    processor(monkeypatch, tmp_path, "avx512_vnni amx_bf16 amx_int8")
    files = {"fp32": comparing / "model.onnx", "int8": comparing / "model.int8.onnx"}
    export(comparing / "checkpoint", files, rows=ROWS, on_loss="allow")
    on_cpu = {**AUTO, "device": "cpu"}
    assert resolved(comparing, on_cpu) == (comparing / "checkpoint", {"device": "cpu", "precision": "bf16"})
    assert load(comparing, **on_cpu).info.precision == "bf16"
    assert resolved(run, on_cpu)[0] == run / "model.int8.onnx", "a pointwise model"
    processor(monkeypatch, tmp_path, "avx512_vnni avx512_bf16")
    assert resolved(comparing, on_cpu)[0] == comparing / "model.int8.onnx"
    processor(monkeypatch, tmp_path, "avx512_vnni amx_bf16")
    monkeypatch.setattr(fastest.importlib.util, "find_spec", lambda name: None)
    assert resolved(comparing, on_cpu)[0] == comparing / "model.int8.onnx", "torch is not installed"


@pytest.mark.usefixtures("weights_are_products")
def test_fp32_is_taken_on_a_processor_that_says_nothing_of_itself(run, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "PROCESSOR", tmp_path / "absent")
    assert resolved(run, AUTO)[0] == run / "model.onnx"


def test_weights_in_8_bits_that_are_multiplied_in_fp32_are_not_taken(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Manifest, "weights_only", True)
    processor(monkeypatch, tmp_path, "avx_vnni")
    assert resolved(run, AUTO)[0] == run / "model.onnx"


def test_the_only_file_of_a_folder_is_taken(copied, tmp_path, monkeypatch, caplog):
    (copied / "model.onnx").unlink()
    processor(monkeypatch, tmp_path, "avx2")
    assert load(copied, device="cpu", **AUTO).info.precision == "int8"
    assert "no 8-bit dot products" in caplog.text


def test_files_of_different_checkpoints_are_not_chosen_from(copied, tmp_path, monkeypatch):
    model, tokenizer = tiny("pointwise")
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    native.save(model, tokenizer, tmp_path / "other")
    export(tmp_path / "other", {"fp32": copied / "model.onnx"}, rows=ROWS)
    processor(monkeypatch, tmp_path, "avx_vnni")
    with pytest.raises(ModelFileError, match=r"model\.int8\.onnx: exported from another checkpoint than model\.onnx"):
        load(copied, device="cpu", **AUTO)


@pytest.mark.usefixtures("gpu")
def test_fp16_is_taken_on_a_gpu(copied):
    (copied / "model.fp16.onnx").write_bytes(b"x")
    assert resolved(copied, AUTO) == (copied / "model.fp16.onnx", {"precision": "fp32"})
    assert resolved(copied, {**AUTO, "device": "cuda:1"})[0] == copied / "model.fp16.onnx"


@pytest.mark.usefixtures("gpu")
def test_without_fp16_the_checkpoint_is_taken_in_bf16_on_a_gpu(run, monkeypatch):
    assert resolved(run, AUTO) == (run / "checkpoint", {"precision": "bf16"})
    assert resolved(run, {**AUTO, "device": "tensorrt"})[0] == run / "model.onnx"
    monkeypatch.setattr(fastest, "_bf16_on_gpu", lambda: False)  # before Ampere
    assert resolved(run, AUTO) == (run / "checkpoint", {"precision": "fp32"})
    monkeypatch.setattr(fastest, "_bf16_on_gpu", lambda: None)  # torch has no GPU
    assert resolved(run, AUTO) == (run / "model.onnx", {"precision": "fp32"})


@pytest.mark.parametrize("option", [{"padding_free": True}, {"quantization": "8bit"}, {"head_prefix": "score"}])
def test_options_of_checkpoints_take_the_checkpoint(option, run):
    assert resolved(run, {**AUTO, "device": "cpu", **option})[0] == run / "checkpoint"


def test_a_file_a_checkpoint_and_a_name_on_the_hub_are_taken_as_they_are(run):
    for path in (run / "model.int8.onnx", run / "checkpoint", "owner/name"):
        assert resolved(path, {**AUTO, "device": "cpu"}) == (path, {"precision": "fp32", "device": "cpu"})


def test_devices_of_several_kinds_are_refused(run):
    with pytest.raises(ConfigError, match="precision auto would take different files on cuda:0, cpu; load one file"):
        load(run, device="cuda:0,cpu", **AUTO)


@pytest.mark.usefixtures("weights_are_products")
def test_a_scorer_of_batches_carries_the_file_that_was_chosen(run, tmp_path, monkeypatch):
    processor(monkeypatch, tmp_path, "avx_vnni")
    scorer = BatchScorer(run, **AUTO)
    processor(monkeypatch, tmp_path, "avx2")  # of another machine
    assert scorer.model == str(run / "model.int8.onnx")
    assert scorer.scorer.precision == "int8"
