"""Every way in which a checkpoint of every format breaks is one line that names the tensor and the repair."""

import re
import warnings

import numpy as np
import pytest

import ranker
from ranker.checkpoints.inspection import inspect
from ranker.errors import CheckpointError
from tests.checkpoints import messages
from tests.checkpoints.layouts import BREAKAGES, CHECKPOINTS, adapter, outcome
from tests.models.test_reward import ANSWERS, PROMPT
from tests.support.selection import cases

MESSAGES = messages.read()

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


QUICK = ("HF sequence classification (decoder)", "OpenRLHF", "LLM-Blender PairRM", "PEFT adapter")
"""Formats that run in ``make test``; the others run in ``make test-all``."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("breakage", BREAKAGES)
@pytest.mark.parametrize("name", cases(CHECKPOINTS, QUICK.__contains__))
def test_one_line_names_the_tensor_and_the_repair(name, breakage, tmp_path):
    checkpoint = CHECKPOINTS[name](tmp_path)
    text = outcome(name, breakage, checkpoint)
    assert text is not None
    assert "\n" not in text
    if text != "does not apply":
        assert messages.message(text, tmp_path) == MESSAGES[name, breakage], "run: python -m tests.checkpoints.messages"
    if text.startswith("read the same"):
        scores = ranker.load(checkpoint.folder, **checkpoint.options).score(PROMPT, list(ANSWERS))
        np.testing.assert_allclose(scores, checkpoint.scores, rtol=1e-5, atol=1e-5)
    if breakage in READ_ON or text == "does not apply":
        return
    assert re.search(EXPECTED[breakage], text), text
    if breakage != "other vocabulary" and not (name == "trlx" and "head" in breakage):  # then it is a language model
        assert checkpoint.head.split(".")[-2] in text or checkpoint.file in text, text
    with pytest.raises(CheckpointError):
        ranker.load(checkpoint.folder, **checkpoint.options)


def test_two_labels_are_read_as_the_head_has_them_and_the_repair_is_named(tmp_path):
    checkpoint = CHECKPOINTS["OpenRLHF"](tmp_path)
    problems = inspect(checkpoint.folder).problems
    assert "says 2 outputs (its default), the head 'value_head' has 1" in problems[0].what
    assert ranker.load(checkpoint.folder).score(PROMPT, list(ANSWERS)).shape == (len(ANSWERS),)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_without_its_head_says_where_it_may_be(tmp_path):
    checkpoint = adapter(tmp_path, head=False)
    with pytest.raises(CheckpointError, match=r"holds no head.*neither does its base.*global_step\*.*modules_to_save"):
        ranker.load(checkpoint.folder)


def test_an_adapter_on_a_reward_model_takes_its_base_s_head(tmp_path):
    """A frozen head: it is in the base model, which was a reward model already."""
    from tests.checkpoints.layouts import read_tensors, write_tensors

    checkpoint = adapter(tmp_path)
    tensors = read_tensors(checkpoint.folder / checkpoint.file)
    base = tmp_path / "base" / "model.safetensors"
    stored = {f"model.{name}": tensor for name, tensor in read_tensors(base).items()}
    write_tensors(base, stored | {"score.weight": tensors.pop(checkpoint.head)})
    write_tensors(checkpoint.folder / checkpoint.file, tensors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = ranker.load(checkpoint.folder).score(PROMPT, list(ANSWERS))
    np.testing.assert_allclose(scores, checkpoint.scores, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_another_model_is_refused(tmp_path):
    from tests.checkpoints.layouts import read_tensors, write_tensors

    checkpoint = adapter(tmp_path)
    tensors = read_tensors(checkpoint.folder / checkpoint.file)
    write_tensors(
        checkpoint.folder / checkpoint.file, {k.replace("layers.1", "layers.9"): v for k, v in tensors.items()}
    )
    with pytest.raises(CheckpointError, match=r"layers\.9.*updates a layer that .* has not; wrong base model"):
        ranker.load(checkpoint.folder)
