"""A damaged or hostile checkpoint is refused in a line, by inspection and by loading, before anything large is built."""

import resource
import shutil

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

import ranker
from ranker.checkpoints.inspection import inspect
from tests.conftest import save_tiny_backbone
from tests.hostile.checkpoints import CHANGES, SETTINGS
from tests.hostile.refusals import check_lines, refusals
from tests.support.selection import cases

HARMLESS = {
    "config dropout",
    "config code",
    "config number type",
    "config unknown class",
    "config part with many layers",
}
"""Changes after which a checkpoint may still be read: the setting means nothing to its model."""


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A reward model that transformers wrote."""
    folder = tmp_path_factory.mktemp("hostile") / "classifier"
    tokenizer = AutoTokenizer.from_pretrained(save_tiny_backbone(folder.parent / "backbone"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), num_labels=1, max_position_embeddings=160, **sizes)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, ranker.load(folder).score("What?", ["That."])


QUICK = {f"config {name}" for name in list(SETTINGS)[::4]} | {
    name for name in CHANGES if "pipe" in name or "index" in name
}


@pytest.mark.parametrize("name", cases(CHANGES, lambda name: name in QUICK and "large" not in name))
def test_a_changed_checkpoint_is_refused_in_a_line(name, classifier, tmp_path):
    source, expected = classifier
    folder = tmp_path / "checkpoint"
    shutil.copytree(source, folder)
    CHANGES[name](folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    inspected, seconds = refusals(lambda: [str(problem) for problem in inspect(folder).problems if problem.fatal])
    loaded, more = refusals(lambda: ranker.load(folder) and [])
    assert max(seconds, more) < 5, "a second, on a machine that does nothing else"
    check_lines([*inspected, *loaded])
    if not loaded and name not in HARMLESS:
        assert ranker.load(folder).score("What?", ["That."]) == pytest.approx(expected, abs=1e-6)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
