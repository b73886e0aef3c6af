"""A damaged or hostile adapter is refused in a line, before anything large is built, or scores as before."""

import resource
import shutil
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

import ranker
from tests.conftest import save_tiny_backbone
from tests.hostile.adapters import CHANGES, SETTINGS
from tests.hostile.refusals import check_lines, refusals
from tests.support.selection import cases

MEANINGLESS = {
    "setting unknown setting",
    "setting targets that are not there",
    "setting task of nothing",
    "setting runtime as list",
    "setting whole modules that are not there",
    "setting bias of nothing",
}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """An adapter with a head that peft wrote."""
    root = tmp_path_factory.mktemp("hostile")
    tokenizer = AutoTokenizer.from_pretrained(save_tiny_backbone(root / "backbone"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertForSequenceClassification(
        BertConfig(vocab_size=len(tokenizer), num_labels=1, max_position_embeddings=160, **sizes)
    )
    model.save_pretrained(root / "base")
    tokenizer.save_pretrained(root / "base")
    loaded = BertForSequenceClassification.from_pretrained(root / "base", num_labels=1)
    lora = LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"], init_lora_weights=False)
    get_peft_model(loaded, lora).save_pretrained(root / "adapter")
    tokenizer.save_pretrained(root / "adapter")
    return root / "adapter", ranker.load(root / "adapter").score("What?", ["That."])


QUICK = {f"setting {name}" for name in list(SETTINGS)[::3]}


@pytest.mark.parametrize("name", cases(CHANGES, lambda name: name in QUICK or name.startswith(("tensor", "head"))))
def test_a_changed_adapter_is_refused_in_a_line(name, adapter, tmp_path):
    source, expected = adapter
    folder = tmp_path / "adapter"
    shutil.copytree(source, folder)
    CHANGES[name](folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused, seconds = refusals(lambda: ranker.load(folder) and [])
    assert seconds < 5, "a second, on a machine that does nothing else"
    check_lines(refused)
    if not refused:
        assert ranker.load(folder).score("What?", ["That."]) == pytest.approx(expected, abs=1e-6)
    assert "antigravity" not in sys.modules
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
