"""A model.onnx and the server score as the producer's own code does."""

import numpy as np
import pytest

import ranker
from tests.references.producers import PRODUCERS, ROWS, SPREAD
from tests.references.test_producers import compared

EXPORTED = (
    "TRL, conversations, ChatML",
    "TRL, plain text",
    "TRL, BERT",
    "OpenRLHF",
    "peft on OpenRLHF",
    "sentence-transformers CrossEncoder",
)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EXPORTED)
def test_a_model_file_scores_as_the_producer_does(name, tmp_path):
    produced = PRODUCERS[name](tmp_path)
    ranker.export_onnx(produced.folder, tmp_path / "model.onnx")
    loaded = ranker.load(tmp_path / "model.onnx")
    ours, theirs = compared(loaded.scorer, produced, ROWS)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=SPREAD * np.ptp(theirs))
