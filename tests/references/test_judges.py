"""Language models that judge a pair, as RLHFlow's preference models: ids and logits of the published code."""

from itertools import permutations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

import ranker
from ranker.errors import CheckpointError, ConfigError
from ranker.records import Group, Message
from tests.references.producers import LLAMA3, SPREAD, base, decoder
from tests.references.rerankers import DOCUMENTS, QUERIES, _with_words
from tests.references.tokenizers import tokenizer_for

pytestmark = pytest.mark.filterwarnings("ignore")

FORMAT = {"format": "rlhflow-pair"}
PLAIN = (
    "\n{% for message in messages %}{% if loop.index0 % 2 == 0 %}\n\n<turn> user\n {{ message['content'] }}{% else %}"
    "\n\n<turn> assistant\n {{ message['content'] }}{% endif %}{% endfor %}\n\n\n"
)
QUESTION = "[CONTEXT] {context} [RESPONSE A] {response_A} [RESPONSE B] {response_B} \n"
CONVERSATION = (Message("user", "Hi\n"), Message("assistant", "\nHello"), Message("user", "And?"))
ANSWERS = [d for d in DOCUMENTS if d] + [""]
GROUPS = [Group(query, tuple(ANSWERS[:3])) for query in QUERIES] + [Group(CONVERSATION, tuple(ANSWERS[2:]))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return judge(tmp_path_factory.mktemp("judge"))


def judge(folder):
    """A tiny language model."""
    tokenizer = _with_words(tokenizer_for("llama3", LLAMA3, bos=True), "A", "B")
    torch.manual_seed(0)
    config = decoder(len(tokenizer) + 8, LlamaConfig, tie_word_embeddings=False)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Published:
    """``pair-pm/README.md`` of RLHFlow/RLHF-Reward-Modeling."""

    def __init__(self, folder):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer, self.plain = (AutoTokenizer.from_pretrained(folder) for _ in range(2))
        self.plain.chat_template = PLAIN
        self.words = [self.tokenizer.encode(word, add_special_tokens=False)[0] for word in "AB"]

    def ids(self, instruction, first, second):
        context = self.plain.apply_chat_template(instruction, tokenize=False)
        prompt = QUESTION.format(context=context, response_A=first, response_B=second)
        text = self.tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False)
        return self.tokenizer.encode(text.replace(self.tokenizer.bos_token, ""), add_special_tokens=False)

    def logit(self, instruction, first, second):
        with torch.no_grad():
            logits = self.model(torch.tensor([self.ids(instruction, first, second)])).logits[0, -1, self.words]
        return float(logits[0] - logits[1])


def messages(prompt):
    turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def decisions(model, published):
    """(ours, theirs) of all comparisons, each in both orders."""
    ours, theirs = [], []
    for group in GROUPS:
        for first, second in permutations(group.candidates[:2], 2):
            turns = messages(group.prompt)
            theirs.append((published.logit(turns, first, second) - published.logit(turns, second, first)) / 2)
            ours.append(float(model.scorer.compare([Group(group.prompt, (first, second))])[0]))
    return np.array(ours), np.array(theirs)


def test_ids_and_decisions_are_those_of_the_published_code(folder, tmp_path):
    published = Published(folder)
    model = ranker.load(folder, text=FORMAT)
    pipeline = model.scorer.pipeline
    for group, tokens in zip(GROUPS, pipeline.tokenize(GROUPS), strict=True):
        for row in pipeline.pack(tokens).rows:
            first, second = (group.candidates[i] for i in row.candidates)
            ids = published.ids(messages(group.prompt), first, second)
            assert row.ids.tolist() == ids, pipeline.tokenizer.decode(row.ids)
    ours, theirs = decisions(model, published)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=SPREAD * np.ptp(theirs))
    ranker.convert(folder, tmp_path / "native", text=FORMAT)
    again = ranker.load(tmp_path / "native")
    assert again.compare("q", "a b", "c d") == pytest.approx(model.compare("q", "a b", "c d"), abs=1e-5)


@pytest.mark.full
def test_the_exported_file_decides_alike(folder, tmp_path):
    ranker.export_onnx(folder, tmp_path / "m.onnx", text=FORMAT)
    exported, model = ranker.load(tmp_path / "m.onnx"), ranker.load(folder, text=FORMAT)
    for a, b in zip(exported.scorer.score(GROUPS), model.scorer.score(GROUPS), strict=True):
        np.testing.assert_allclose(a.scores, b.scores, rtol=0, atol=1e-4)


def test_a_language_model_says_which_texts_make_it_a_judge(folder):
    with pytest.raises(CheckpointError, match=r"text=\{'format': 'qwen3-reranker'\}.*rlhflow-pair"):
        ranker.load(folder)
    assert "rlhflow-pair" in str(ranker.inspect_checkpoint(folder).problems)


def test_another_tokenizer_is_refused_by_the_word(tmp_path):
    tokenizer = tokenizer_for("qwen", LLAMA3)
    LlamaForCausalLM(decoder(len(tokenizer) + 8, LlamaConfig)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="answers 'yes', which is [23] tokens of this tokenizer"):
        ranker.load(tmp_path, text={"format": "qwen3-reranker"})


def test_a_reward_model_is_no_judge(tmp_path):
    base(tmp_path, LLAMA3)
    with pytest.raises(ConfigError, match="'rlhflow-pair' is for language models that answer A or B"):
        ranker.load(tmp_path, text=FORMAT)
