"""Every way in which a checkpoint of every format breaks is one line that names the tensor and the repair."""

import importlib.util
import re
import warnings

import numpy as np
import pytest

import ranker
from ranker.checkpoints.inspection import inspect
from ranker.errors import CheckpointError
from tests.checkpoints.layouts import BREAKAGES, MADE, adapter, outcome
from tests.conftest import ROOT
from tests.models.test_reward import ANSWERS, PROMPT

spec = importlib.util.spec_from_file_location("checkpoints", ROOT / "docs" / "checkpoints.py")
checkpoints = importlib.util.module_from_spec(spec)
spec.loader.exec_module(checkpoints)
DOCUMENT = (ROOT / "docs" / "checkpoints.md").read_text()

READ_ON = {"two labels", "padding is the end"}
"""Read all the same, as the file says, and named by inspect."""

EXPECTED = {
    "head missing": r"no head|missing|holds no head",
    "head under another name": r"my_head\.weight|missing|no head",
    "truncated file": r"damaged or truncated.*copy it again|damaged or truncated.*copy the checkpoint again",
    "empty tensor": r"is empty|has shape \[0\]",
    "NaN": r"NaN.*earlier checkpoint",
    "other vocabulary": r"embeddings 50 rows|has shape \[50, \d+\]",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("breakage", BREAKAGES)
@pytest.mark.parametrize("name", MADE)
def test_one_line_names_the_tensor_and_the_repair(name, breakage, tmp_path):
    made = MADE[name](tmp_path)
    text = outcome(name, breakage, made)
    assert text is not None
    assert "\n" not in text
    if text != "does not apply":
        assert checkpoints.row(name, checkpoints.relative(text, tmp_path)) in DOCUMENT, "run: make docs"
    if text.startswith("read the same"):
        scores = ranker.load(made.folder, **made.options).score(PROMPT, list(ANSWERS))
        np.testing.assert_allclose(scores, made.scores, rtol=1e-5, atol=1e-5)
    if breakage in READ_ON or text == "does not apply":
        return
    assert re.search(EXPECTED[breakage], text), text
    if breakage != "other vocabulary" and not (name == "trlx" and "head" in breakage):  # then it is a language model
        assert made.head.split(".")[-2] in text or made.file in text, text
    with pytest.raises(CheckpointError):
        ranker.load(made.folder, **made.options)


def test_two_labels_are_read_as_the_head_has_them_and_the_repair_is_named(tmp_path):
    made = MADE["OpenRLHF"](tmp_path)
    problems = inspect(made.folder)["problems"]
    assert "says 2 outputs (its default), the head 'value_head' has 1" in problems[0]["what"]
    assert ranker.load(made.folder).score(PROMPT, list(ANSWERS)).shape == (len(ANSWERS),)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_without_its_head_says_where_it_may_be(tmp_path):
    made = adapter(tmp_path, head=False)
    with pytest.raises(CheckpointError, match=r"holds no head.*neither does its base.*global_step\*.*modules_to_save"):
        ranker.load(made.folder)


def test_an_adapter_on_a_reward_model_takes_its_base_s_head(tmp_path):
    """A frozen head: it is in the base model, which was a reward model already."""
    from tests.checkpoints.layouts import read_tensors, write_tensors

    made = adapter(tmp_path)
    tensors = read_tensors(made.folder / made.file)
    base = tmp_path / "base" / "model.safetensors"
    stored = {f"model.{name}": tensor for name, tensor in read_tensors(base).items()}
    write_tensors(base, stored | {"score.weight": tensors.pop(made.head)})
    write_tensors(made.folder / made.file, tensors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = ranker.load(made.folder).score(PROMPT, list(ANSWERS))
    np.testing.assert_allclose(scores, made.scores, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_another_model_is_refused(tmp_path):
    from tests.checkpoints.layouts import read_tensors, write_tensors

    made = adapter(tmp_path)
    tensors = read_tensors(made.folder / made.file)
    write_tensors(made.folder / made.file, {k.replace("layers.1", "layers.9"): v for k, v in tensors.items()})
    with pytest.raises(CheckpointError, match=r"layers\.9.*updates a layer that .* does not have; wrong base model"):
        ranker.load(made.folder)


def test_the_table_of_formats_is_the_code_s():
    assert checkpoints.formats() in DOCUMENT, "run: make docs"
