"""Torch, a model.onnx and the server give the reference score under every template that TRL carries."""

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from tokenizers import AddedToken, Tokenizer
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

import ranker
from ranker.serving.app import application
from ranker.serving.limits import Keys, Limits
from ranker.serving.server import Server
from tests.references.conversations import CONVERSATIONS
from tests.references.producers import SPREAD, decoder, logits
from tests.references.test_chat_templates import TEMPLATES, conversation_group, reference
from tests.references.tokenizers import KINDS, MARKERS, PLAIN_ADDED, base

ROWS = tuple(c for c in CONVERSATIONS if "<|" not in repr(c))[::2]


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory):
    """A tiny decoder whose tokenizer has the special tokens of all templates, as a folder and as a model.onnx."""
    folder = tmp_path_factory.mktemp("scores")
    tokenizer = Tokenizer.from_str(base(request.param))
    texts = [template.read_text(encoding="utf-8") for template in TEMPLATES]
    specials = sorted({token for text in texts for token in MARKERS.findall(text)} | {"<|bos|>", "<|eos|>", "<|pad|>"})
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in PLAIN_ADDED])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        chat_template=texts[0],
    )
    torch.manual_seed(0)
    config = decoder(len(wrapped), LlamaConfig, pad_token_id=wrapped.pad_token_id, max_position_embeddings=4096)
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(folder / "model")
    wrapped.save_pretrained(folder / "model")
    ranker.export_onnx(folder / "model", folder / "model.onnx", text={"max_length": 4096})
    return folder, wrapped, model


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.stem)
def test_scores_are_those_of_the_library(exported, template):
    folder, tokenizer, model = exported
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    rows = [(row, reference(tokenizer, row, sanitize_control_tokens=False)) for row in ROWS]
    specials = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    rows = [(row, ids) for row, ids in rows if ids and len(ids) <= 4096 and not any(s in repr(row) for s in specials)]
    if not rows:
        pytest.skip("the template renders content as parts alone")
    expected = np.array([logits(model, ids) for _, ids in rows])
    settings = {"chat_template": tokenizer.chat_template, "max_length": 4096}
    groups = [conversation_group(row) for row, _ in rows]
    for source in (folder / "model", folder / "model.onnx"):
        loaded = ranker.load(source, text=settings)
        results = loaded.scorer.score(groups)
        assert [result.error for result in results] == [None] * len(results)
        scores = np.array([result.scores[0] for result in results])
        np.testing.assert_allclose(scores, expected, rtol=0, atol=SPREAD * np.ptp(expected))
    server = Server(loaded.scorer, "m", Limits())
    with TestClient(application(server, Keys([]))) as client:
        served = [client.post("/pooling", json={"messages": list(row)}).json() for row, _ in rows]
    values = np.array([answer["data"][0]["data"][0] for answer in served])
    np.testing.assert_allclose(values, expected, rtol=0, atol=SPREAD * np.ptp(expected))
