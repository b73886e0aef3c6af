"""OpenRLHF and LLaMA-Factory score as here; ``make test-all`` makes their environments (``make peers``)."""

import json

import numpy as np
import pytest
import torch
from transformers import Qwen2Model

import ranker
from ranker.checkpoints.verify import verify
from ranker.errors import CheckpointError
from tests.references.peers.produced import CROSS_ENCODERS, PEERS, python_of, rows_of, run
from tests.references.producers import CHATML, ROWS, SPREAD, decoder
from tests.references.rerankers import PAIRS
from tests.references.test_producers import compared
from tests.references.test_rerankers import ids_of, pair_scores
from tests.references.tokenizers import tokenizer_for

pytestmark = [
    pytest.mark.full,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        not all(python_of(peer).exists() for peer in ("openrlhf", "llama_factory", "sentence_transformers")),
        reason="needs make peers",
    ),
]


@pytest.mark.parametrize("name", PEERS)
def test_scores_are_those_of_its_own_code(name, tmp_path):
    produced = PEERS[name](tmp_path)
    loaded = ranker.load(produced.folder)
    ours, theirs = compared(loaded.scorer, produced, ROWS)
    assert len(theirs) >= 20
    assert np.ptp(theirs) > 0.5
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=SPREAD * np.ptp(theirs))
    lines = json.loads((produced.folder.parent / "scores.json").read_text(encoding="utf-8"))
    served = [line.get("served", line["score"]) for line in lines]
    rendered = loaded.score("", [line["text"] for line in lines], rendered=True)
    np.testing.assert_allclose(rendered, served, rtol=0, atol=SPREAD * np.ptp(theirs))


@pytest.mark.parametrize("name", [name for name in PEERS if "LoRA" not in name])
def test_verify_passes_it(name, tmp_path):
    assert [check for check in verify(PEERS[name](tmp_path).folder) if not check.passed] == []


@pytest.mark.parametrize("name", CROSS_ENCODERS)
def test_an_older_crossencoder_reads_pairs_as_it_did(name, tmp_path):
    reranker = CROSS_ENCODERS[name](tmp_path)
    model = ranker.load(reranker.folder)
    assert [pair for pair in PAIRS if ids_of(model.scorer.pipeline, pair) != reranker.ids(pair)] == []
    theirs = np.array(reranker.scores(PAIRS))
    np.testing.assert_allclose(pair_scores(model, PAIRS), theirs, rtol=0, atol=SPREAD * np.ptp(theirs))


def test_an_adapter_of_openrlhf_on_a_language_model_has_no_head_and_says_so(tmp_path):
    tokenizer = tokenizer_for("qwen", CHATML)
    tokenizer.eos_token = "<|im_end|>"
    torch.manual_seed(0)
    Qwen2Model(decoder(len(tokenizer) + 8)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    run("openrlhf", tmp_path, {"rows": rows_of(ROWS), "head": "score", "lora": True})
    with pytest.raises(CheckpointError, match="head"):
        ranker.load(tmp_path / "model")
