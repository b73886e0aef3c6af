"""Rerankers of sentence-transformers and language models that answer yes or no: ids and scores of their own code."""

import json
import shutil

import numpy as np
import pytest

import ranker
from ranker.checkpoints.verify import verify
from ranker.errors import CheckpointError
from ranker.records import Group, Message
from tests.references.producers import SPREAD
from tests.references.rerankers import (
    LONG,
    PAIRS,
    RERANKERS,
    classifier_with_roles,
    ettin,
    logit_score,
    qwen3_reranker,
)
from tests.support.selection import cases

pytestmark = pytest.mark.filterwarnings("ignore")


def pair_scores(model, pairs):
    return np.concatenate(model.score_batch([query for query, _ in pairs], [[document] for _, document in pairs]))


def ids_of(pipeline, pair):
    return pipeline.pack(pipeline.tokenize([Group(pair[0], (pair[1],))])[0]).rows[0].ids.tolist()


@pytest.mark.parametrize("name", RERANKERS)
def test_ids_and_scores_are_those_of_its_own_code(name, tmp_path):
    reranker = RERANKERS[name](tmp_path)
    model = ranker.load(reranker.folder, **reranker.options)
    pipeline = model.scorer.pipeline
    assert [pair for pair in PAIRS if ids_of(pipeline, pair) != reranker.ids(pair)] == []
    theirs = np.array(reranker.scores(PAIRS))
    assert np.ptp(theirs) > 0.05
    np.testing.assert_allclose(pair_scores(model, PAIRS), theirs, rtol=0, atol=SPREAD * np.ptp(theirs))


@pytest.mark.full
@pytest.mark.parametrize("name", RERANKERS)
def test_the_exported_file_scores_as_its_own_code(name, tmp_path):
    reranker = RERANKERS[name](tmp_path)
    text = reranker.options.get("text")
    ranker.export_onnx(reranker.folder, tmp_path / "m.onnx", text=text)
    theirs = np.array(reranker.scores(PAIRS))
    np.testing.assert_allclose(
        pair_scores(ranker.load(tmp_path / "m.onnx"), PAIRS), theirs, rtol=0, atol=SPREAD * np.ptp(theirs)
    )


@pytest.mark.parametrize(
    "name",
    cases(
        [name for name in RERANKERS if name.startswith("sentence-transformers")],
        lambda name: "LogitScore, Qwen3" in name,
    ),
)
def test_verify_and_convert_keep_it(name, tmp_path):
    reranker = RERANKERS[name](tmp_path)
    checks = verify(reranker.folder)
    assert [check for check in checks if not check.passed] == []
    if "modules" not in name:
        assert any("scores differ from those of transformers by at most" in check.seen for check in checks)
    ranker.convert(reranker.folder, tmp_path / "native")
    again = ranker.load(tmp_path / "native")
    np.testing.assert_allclose(pair_scores(again, PAIRS), reranker.scores(PAIRS), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in RERANKERS if "chat template" in name or "roles" in name])
def test_a_long_document_is_cut_and_the_end_of_the_template_stays(name, tmp_path):
    reranker = RERANKERS[name](tmp_path)
    settings = reranker.folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_max_length": 64}))
    from tests.references.rerankers import crossencoder

    reranker = crossencoder(reranker.folder)
    model = ranker.load(reranker.folder)
    assert [ids_of(model.scorer.pipeline, pair) for pair in LONG] == [reranker.ids(pair) for pair in LONG]
    results = model.scorer.score([Group(query, (document,)) for query, document in LONG])
    assert [bool(result.truncated[0]) for result in results] == [True, True]
    assert [result.prompt_truncated for result in results] == [False, False]
    np.testing.assert_allclose(pair_scores(model, LONG), reranker.scores(LONG), rtol=0, atol=1e-5)


def test_a_conversation_is_no_query(tmp_path):
    model = ranker.load(logit_score(tmp_path).folder)
    conversation = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "And?"))
    (result,) = model.scorer.score([Group(conversation, ("x",))])
    assert "reads a query and a document, and the prompt has 3 messages" in result.error


REFUSALS = {
    "an embedding model": (
        lambda folder: change(folder / "config_sentence_transformers.json", model_type="SentenceTransformer"),
        "is that of an embedding model",
    ),
    "another module": (
        lambda folder: replace_text(folder / "modules.json", "modules.layer_norm.LayerNorm", "modules.cnn.CNN"),
        "module 'CNN' is not read",
    ),
    "code of its own": (
        lambda folder: replace_text(folder / "modules.json", "sentence_transformers.base.modules.dense", "mine"),
        "module 'mine.Dense' is code of the checkpoint",
    ),
    "an activation of its own": (
        lambda folder: change(folder / "2_Dense" / "config.json", activation_function="mine.Wave"),
        "activation 'mine.Wave' does not belong to torch",
    ),
    "a missing head": (lambda folder: (folder / "4_Dense" / "model.safetensors").unlink(), "4_Dense|model.safetensors"),
    "a head of another size": (
        lambda folder: change(folder / "4_Dense" / "config.json", out_features=2),
        r"4_Dense/linear\.(weight|bias)' has shape",
    ),
    "processing of its own": (
        lambda folder: change(folder / "sentence_bert_config.json", processing_kwargs={"text": {"max_length": 3}}),
        r"processing_kwargs text\.max_length change how texts are tokenized",
    ),
}


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def replace_text(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def modular(tmp_path_factory):
    return ettin(tmp_path_factory.mktemp("modular")).folder


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_read_is_refused_by_name_in_the_same_words(name, modular, tmp_path):
    spoil, words = REFUSALS[name]
    folder = shutil.copytree(modular, tmp_path / "copy")
    spoil(folder)
    with pytest.raises(CheckpointError, match=words) as refusal:
        ranker.load(folder)
    reported = " ".join(map(str, ranker.inspect_checkpoint(folder).problems))
    assert str(refusal.value).removeprefix(f"{folder}: ").partition(". See")[0] in reported


def test_a_classifier_whose_card_says_that_it_ranks_names_no_text_and_is_refused(tmp_path):
    named = qwen3_reranker(tmp_path)
    classifier = tmp_path / "classifier"
    ranker.convert(named.folder, classifier, to="hf", **named.options)
    (classifier / "chat_template.jinja").write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    config = json.loads((classifier / "config.json").read_text())
    config.pop("ranker")
    (classifier / "config.json").write_text(json.dumps(config))
    (classifier / "README.md").write_text("---\nlicense: mit\npipeline_tag: text-ranking\n---\n# A reranker\n")
    with pytest.raises(CheckpointError, match="its card says 'pipeline_tag: text-ranking'.*'format': 'qwen3-reranker'"):
        ranker.load(classifier)
    model = ranker.load(classifier, **named.options)
    theirs = named.scores(PAIRS)
    np.testing.assert_allclose(pair_scores(model, PAIRS), theirs, rtol=0, atol=SPREAD * np.ptp(theirs))
    assert ranker.load(classifier, text={"format": "chat"}).info.layout == "conversation"


def test_a_classifier_whose_template_names_query_and_document_reads_them(tmp_path):
    reranker = classifier_with_roles(tmp_path)
    model = ranker.load(tmp_path / "backbone")  # as transformers wrote it
    theirs = reranker.scores(PAIRS)
    np.testing.assert_allclose(pair_scores(model, PAIRS), theirs, rtol=0, atol=SPREAD * np.ptp(theirs))
