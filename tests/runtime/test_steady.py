"""A score is the same alone and in any batch, with any number of threads, batch size and process."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from ranker.checkpoints import native
from ranker.export import search
from ranker.export.write import export
from ranker.layouts.set_encoder import SetEncoder
from ranker.models import steamshp as seq2seq
from ranker.models.pairwise import PairwiseConfig, PairwiseModel
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.runtime import onnx_scorer
from ranker.runtime.onnx_scorer import OnnxScorer
from ranker.runtime.session import int8_warning
from ranker.scoring.token_budget import fixed_tokens
from ranker.text.tokenizer import TextTokenizer
from tests.conftest import CLS, FAMILIES, LAYOUTS, PAD, ROOT, SEP, backbone_config, tiny, tokenizer_json
from tests.export.test_export import ROWS
from tests.export.test_matrix import gate, scalar, steamshp
from tests.models.test_reward import DECODERS, TEMPLATE, save_backbone
from tests.support.selection import cases

BOUNDS = {"fp32": 1e-5, "int8": 0.0}
"""Most that scores may differ; docs/reliability.md promises it."""

JUDGES = 1e-5
"""The same of SteamSHP in any precision: the last bits of an encoder-decoder depend on its batch."""

words = random.Random(3)
WORDS = ["the", "answer", "is", "four", "cats", "of", "2", "+", "why", "not", "reading", "zebra"]


def text(most):
    return " ".join(words.choice(WORDS) for _ in range(words.randint(1, most)))


def words_of(count, seed=0):
    return " ".join(random.Random(seed).choices(WORDS, k=count))


GROUPS = [Group(text(12), tuple(text(40) for _ in range(words.randint(2, 5)))) for _ in range(60)]


def scores(scorer, groups=GROUPS):
    return [result.scores for result in scorer.score(groups)]


def together(scorer, tokens):
    """Scores in batches of so many tokens, of groups in random order."""
    order = random.Random(tokens).sample(range(len(GROUPS)), len(GROUPS))
    with fixed_tokens(tokens):
        in_order = scores(scorer, [GROUPS[place] for place in order])
    back = dict(zip(order, in_order, strict=True))
    return [back[place] for place in range(len(GROUPS))]


def difference(expected, actual):
    """The largest difference of scores."""
    return max(float(np.abs(one - other).max()) for one, other in zip(expected, actual, strict=True))


ALL = [
    *((layout, "bert", precision) for layout in LAYOUTS for precision in BOUNDS),
    *(("pointwise", family, precision) for family in FAMILIES if family != "bert" for precision in BOUNDS),
]


@pytest.mark.parametrize(
    ("layout", "family", "precision"),
    cases(ALL, lambda case: case in (("set_encoder", "bert", "int8"), ("pointwise", "bert", "fp32"))),
)
def test_a_score_does_not_depend_on_its_batch(layout, family, precision, tmp_path):
    check_steady(tiny(layout, family=family), precision, BOUNDS[precision], tmp_path)


@pytest.mark.parametrize("option", ["weights only", "length buckets"])
def test_an_int8_score_does_not_depend_on_its_batch_either_way(option, tmp_path, monkeypatch):
    if option == "weights only":
        monkeypatch.setattr(search, "int8_warning", lambda: "no 8-bit dot products")
    elif int8_warning() is not None:
        pytest.skip("8-bit products saturate on a processor without dot products")
    native.save(*tiny("pointwise"), tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", {"int8": tmp_path / "m.onnx"}, rows=ROWS, on_loss="allow")
    scorer = OnnxScorer(tmp_path / "m.onnx", threads=2, length_buckets=option == "length buckets")
    assert scorer.weights_only == (option == "weights only")
    assert scorer._rounding.alike != scorer.weights_only
    alone = [scorer.score([group])[0].scores for group in GROUPS]
    for tokens in (64, 1024, 8192):
        assert difference(alone, together(scorer, tokens)) == 0


OTHERS = [
    *((scalar, family, precision) for family in DECODERS for precision in BOUNDS),
    *((gate, "llama", precision) for precision in BOUNDS),
    *((steamshp, family, precision) for family in sorted(seq2seq.FAMILIES) for precision in BOUNDS),
]


@pytest.mark.full
@pytest.mark.parametrize(("scheme", "family", "precision"), OTHERS, ids=[f"{s.__name__}-{f}-{p}" for s, f, p in OTHERS])
def test_a_score_of_a_decoder_or_a_judge_does_not_depend_on_its_batch(scheme, family, precision, tmp_path):
    template = {"template": TEMPLATE} if family in DECODERS else {}
    folder = save_backbone(tmp_path / "backbone", family, **template)
    bound = JUDGES if scheme is steamshp else BOUNDS[precision]
    check_steady(scheme(str(folder)), precision, bound, tmp_path)


def check_steady(model, precision, bound, tmp_path):
    """Score alone and together, in batches of many sizes, with several threads and in another process."""
    native.save(*model, tmp_path / "checkpoint")
    file = tmp_path / "m.onnx"
    export(tmp_path / "checkpoint", {precision: file}, rows=ROWS, on_loss="allow")
    alone = [OnnxScorer(file, threads=1).score([group])[0].scores for group in GROUPS[:3]]
    scorer = OnnxScorer(file, threads=2)
    alone += [scorer.score([group])[0].scores for group in GROUPS[3:]]
    for threads in (1, 2, 3):
        for tokens in (64, 500, 1024, 8192):
            assert difference(alone, together(OnnxScorer(file, threads=threads), tokens)) <= bound
    program = (
        "import json, sys, ranker; m = ranker.load(sys.argv[1], threads=1); groups = json.load(sys.stdin);"
        "print(json.dumps([r.scores.tolist() for r in m.scorer.score([ranker.Group(p, tuple(c)) for p, c in groups])]))"
    )
    sent = json.dumps([[group.prompt, group.candidates] for group in GROUPS])
    command = [sys.executable, "-c", program, str(file)]
    other = subprocess.run(command, input=sent, capture_output=True, text=True, check=True, cwd=ROOT)
    rows = [np.array(row, np.float32) for row in json.loads(other.stdout)]
    assert difference(alone, rows) <= bound


@pytest.mark.parametrize("layout", cases(LAYOUTS, lambda layout: layout == "set_encoder"))
def test_a_score_of_torch_does_not_depend_on_its_batch(layout):
    scorer = TorchScorer(*tiny(layout))
    alone = [scorer.score([group])[0].scores for group in GROUPS]
    for tokens in (64, 1024, 8192):
        assert difference(alone, together(scorer, tokens)) <= BOUNDS["fp32"]


@pytest.mark.parametrize("layout", ["set_encoder", "pointwise"])
def test_candidates_of_the_same_tokens_tie_exactly(layout, tmp_path):
    native.save(*tiny(layout), tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", {"fp32": tmp_path / "m.onnx"}, rows=ROWS, on_loss="allow")
    scorer = OnnxScorer(tmp_path / "m.onnx")
    for group in GROUPS:
        result = scores(scorer, [Group(group.prompt, (*group.candidates, group.candidates[0].upper()))])[0]
        assert result[0] == result[-1]


WIDE = [
    *(Group(text(12), tuple(text(30) for _ in range(3))) for _ in range(12)),
    *(Group(text(12), (words_of(long), text(60))) for long in (200, 225, 238, 250, 330, 470, 490)),
    Group(text(60), tuple(words_of(90 + n) for n in range(20))),
    Group(text(6), tuple(words_of(205 + n % 5, n) for n in range(40))),
]
"""Groups whose rows end on both sides of 256 and 512 tokens, small ones and large ones."""


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A file of a set encoder whose heads are 64 wide: keys are added up in runs of 256."""
    folder = tmp_path_factory.mktemp("wide")
    settings = backbone_config("bert") | {
        "hidden_size": 128,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
    }
    layout = SetEncoder(max_length=512, prompt_reserve=16, pad_id=PAD, cls_id=CLS, sep_id=SEP)
    torch.manual_seed(0)
    model = PairwiseModel(PairwiseConfig(backbone=settings, text=layout.model_dump(), num_labels=1)).eval()
    native.save(model, TextTokenizer(tokenizer_json()), folder / "checkpoint")
    export(folder / "checkpoint", {"fp32": folder / "m.onnx"}, rows=ROWS, on_loss="allow")
    return folder / "m.onnx"


def alone_and_together(file):
    """Scores of each group alone, and of all in batches of many sizes, in the passes that int8 gets.

    The products are those of fp32, whose last bits int8 may hide or enlarge.
    """
    scorer = OnnxScorer(file, threads=1)
    scorer.precision = "int8"
    alone = [scorer.score([group])[0].scores for group in WIDE]
    for tokens in (2048, 8192, 65536):
        with fixed_tokens(tokens):
            yield alone, scores(scorer, WIDE)


def test_states_of_others_are_added_up_with_the_same_keys_in_any_batch(wide):
    assert max(difference(*pair) for pair in alone_and_together(wide)) == 0


def test_without_that_rule_a_longer_pass_changes_scores(wide, monkeypatch):
    """The proof that the test above would see it."""
    monkeypatch.setattr(onnx_scorer, "KEY_RUN", None)
    assert max(difference(*pair) for pair in alone_and_together(wide)) > 0
