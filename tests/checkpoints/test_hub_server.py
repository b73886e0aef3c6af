"""Push and load through the hub's own client, against a hub on the loopback that speaks its HTTP API."""

import json
import os
import subprocess
import sys

import pytest

from ranker.checkpoints import native
from tests.conftest import ROOT, tiny
from tests.support import hub_server

pytestmark = pytest.mark.full
CARD = "---\nmodel-index:\n- name: mine\n  results: []\n---\n# mine\n"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "checkpoint"
    native.save(*tiny(), folder)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def hub():
    with hub_server.serving("hf_secret") as hub:
        yield hub


def run(hub, home, code, token="hf_secret"):
    """Run Python with this hub as the only one; gives standard output, and standard error where it failed."""
    env = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_TOKEN": token,
    }
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() or done.stderr


def push(hub, home, checkpoint, model):
    return run(
        hub,
        home,
        f"from pathlib import Path\nfrom ranker.checkpoints import hub\n"
        f"hub.push('org/mine', Path({str(checkpoint)!r}), [Path({str(model)!r})])\nprint('pushed')",
    )


SCORE = "import json, ranker; print(json.dumps(ranker.load({}).score('Say hi', ['Hi!', 'No.']).tolist()))"


def test_what_was_pushed_scores_the_same_when_it_is_loaded(hub, checkpoint, model, tmp_path):
    assert push(hub, tmp_path / "one", checkpoint, model) == "pushed"
    repository = hub.repositories["org/mine"]
    assert repository.private
    commit, files = repository.commits[-1]
    assert set(files) == {*(path.name for path in checkpoint.iterdir()), "model.onnx"}
    assert all(files[path.name] == path.read_bytes() for path in checkpoint.iterdir())
    expected = json.loads(run(hub, tmp_path / "one", SCORE.format(repr(str(checkpoint)))))
    loaded = run(hub, tmp_path / "two", SCORE.format(f"'org/mine', revision={commit!r}"))
    assert json.loads(loaded) == pytest.approx(expected, abs=1e-6)
    stderr = run(hub, tmp_path / "three", SCORE.format("'org/mine', revision='v9'"))
    assert "the hub does not give a model of that name" in stderr.splitlines()[-1]


def test_a_private_repository_asks_for_its_token(hub, checkpoint, model, tmp_path):
    push(hub, tmp_path / "one", checkpoint, model)
    stderr = run(hub, tmp_path / "two", SCORE.format("'org/mine'"), token="hf_other")
    assert "CheckpointError: org/mine: no such folder, and the hub does not give a model of that name" in stderr
    loaded = run(hub, tmp_path / "two", SCORE.format("'org/mine', token='hf_secret'"), token="hf_other")
    assert len(json.loads(loaded)) == 2


def test_a_second_push_replaces_files_and_keeps_the_first_commit(hub, checkpoint, model, tmp_path):
    push(hub, tmp_path / "one", checkpoint, model)
    first = hub.repositories["org/mine"].commits[-1]
    (checkpoint / "README.md").write_text(CARD + "again\n")
    assert push(hub, tmp_path / "one", checkpoint, model) == "pushed"
    assert hub.repositories["org/mine"].commits[-1][1]["README.md"].endswith(b"again\n")
    assert hub.repositories["org/mine"].at(first[0])[1]["README.md"] == CARD.encode()


def test_headers_are_enough_to_inspect(hub, checkpoint, model, tmp_path):
    push(hub, tmp_path / "one", checkpoint, model)
    hub.requests.clear()
    code = "import ranker; r = ranker.inspect_checkpoint('org/mine'); print(r.format, r.problems)"
    assert run(hub, tmp_path / "two", code).startswith("ranker")
    weights = [line for line in hub.requests if line.endswith("model.safetensors")]
    assert len(weights) <= 3, "a look at the header, in parts"


def test_a_push_without_rights_says_how_to_do_it_by_hand(hub, checkpoint, tmp_path):
    code = (
        "from pathlib import Path\nfrom ranker.checkpoints import hub\n"
        f"hub.push('org/mine', Path({str(checkpoint)!r}), [])"
    )
    last = run(hub, tmp_path / "one", code, token="hf_other").splitlines()[-1]
    assert "org/mine: not uploaded (" in last
    assert f"run: hf upload org/mine {checkpoint}" in last
