"""Names on the hub, against a hub that is a folder: nothing here reaches a network."""

import importlib.util
import shutil
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from safetensors import safe_open

import ranker
from ranker.checkpoints import hub
from ranker.errors import CheckpointError, ModelFileError
from tests.checkpoints.layouts import decoder
from tests.models.test_reward import ANSWERS, PROMPT


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub that has org/reward, and records which files, revisions and tokens were asked for."""
    checkpoint = decoder(tmp_path)
    asked, access = [], []

    def snapshot_download(name, *, allow_patterns, revision=None, token=None):
        if name != "org/reward":
            raise huggingface_hub.errors.LocalEntryNotFoundError(f"no {name} here")
        asked.append(list(allow_patterns))
        access.append((revision, token))
        return str(checkpoint.folder)

    def get_safetensors_metadata(name, *, revision=None, token=None):
        access.append((revision, token))
        with safe_open(checkpoint.folder / checkpoint.file, framework="numpy") as file:
            parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        tensors = {k: SimpleNamespace(shape=p.get_shape(), dtype=p.get_dtype()) for k, p in parts.items()}
        return SimpleNamespace(files_metadata={checkpoint.file: SimpleNamespace(tensors=tensors)})

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "get_safetensors_metadata", get_safetensors_metadata)
    return checkpoint, asked, access


def test_a_name_is_loaded_without_its_pickles_and_code(served):
    checkpoint, asked, _ = served
    np.testing.assert_allclose(
        ranker.load("org/reward").score(PROMPT, list(ANSWERS)), checkpoint.scores, rtol=1e-5, atol=1e-5
    )
    assert asked == [[*hub.TEXTS, "*.safetensors"]]
    assert not any(pattern.endswith((".bin", ".py")) for pattern in asked[0])


def test_inspect_fetches_headers_and_no_weights(served):
    _, asked, _ = served
    report = hub.inspect_checkpoint("org/reward")
    assert (report.path, report.format, report.head.name) == ("org/reward", "HF sequence classification", "score")
    assert report.problems == ()
    assert asked == [[*hub.TEXTS]]


def test_revision_and_token_reach_every_call_of_the_hub(served):
    _, _, access = served
    hub.inspect_checkpoint("org/reward", revision="v2", token="hf_secret")
    hub.local("org/reward", revision="v2", token="hf_secret")
    assert access == [("v2", "hf_secret")] * 3


def test_what_is_neither_a_folder_nor_a_name_says_so(served):
    with pytest.raises(CheckpointError, match="no such folder, and the hub does not give a model of that name"):
        ranker.load("org/other")
    with pytest.raises(CheckpointError, match="found no file or folder; check the path"):
        ranker.load("runs/pairrm/checkpoint/that is not there")


@pytest.mark.full
def test_a_checkpoint_and_its_exports_are_uploaded_to_a_private_repository(tmp_path, monkeypatch, model):
    asked = []

    class Api:
        def create_repo(self, name, *, private, exist_ok):
            if name == "org/down":
                raise ConnectionError("no route to host")
            asked.append((name, private, exist_ok))

        def upload_folder(self, *, repo_id, folder_path):
            asked.append((repo_id, folder_path))

        def upload_file(self, *, repo_id, path_or_fileobj, path_in_repo):
            asked.append((repo_id, path_or_fileobj, path_in_repo))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    hub.push("org/mine", tmp_path / "checkpoint", [model])
    assert asked == [
        ("org/mine", True, True),
        ("org/mine", tmp_path / "checkpoint"),
        ("org/mine", model, "model.onnx"),
    ]
    with pytest.raises(CheckpointError, match=r"org/down: not uploaded \(no route to host\); run: hf upload org/down"):
        hub.push("org/down", tmp_path / "checkpoint", [])


@pytest.fixture
def exported_only(tmp_path, monkeypatch, model):
    """A hub whose org/exported holds a model.onnx and no checkpoint; the calls that were made."""
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "README.md").write_text("only a file")
    calls = []

    def hf_hub_download(name, file, **options):
        calls.append((name, file, options))
        if name != "org/exported":
            raise huggingface_hub.errors.EntryNotFoundError(f"no {file} in {name}")
        return str(model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path / "snapshot"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return calls


def test_a_repository_with_only_an_exported_file_is_loaded(exported_only):
    loaded = ranker.load("org/exported", revision="v2", token="hf_secret")
    assert loaded.info.providers
    assert exported_only == [("org/exported", "model.onnx", {"revision": "v2", "token": "hf_secret"})]


def test_a_repository_without_torch_is_its_exported_file(exported_only, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    assert ranker.load("org/exported").info.providers
    with pytest.raises(ModelFileError, match=r"the hub gives no model\.onnx of that name .* 'ranker-toolkit\[train\]'"):
        ranker.load("org/other")


def test_a_folder_with_only_an_exported_file_is_loaded(model, tmp_path):
    shutil.copy(model, tmp_path / "model.onnx")
    assert ranker.load(tmp_path).info.providers
