"""One word for one thing: names that were given up are nowhere but in the changelog, and names say what a value is."""

import ast
import re
import subprocess

import pytest

from tests.conftest import ROOT

GIVEN_UP = [
    "group_of",
    "preference_of",
    "make_room",
    "as_given",
    "share_prompts",
    "shares_prompts",
    "rank_with_ref_batch",
    "read_one_order",
    "_mended",
    "left_in_fp32",
    "quantize_steps",
    "checkpoints.foreign",
    "foreign.reading",
    "foreign.table",
    "Names.written",
    "reading_of",
    "batch_tokens",
    "step_tokens",
    "group_size",
    "centring",
    "training.epochs",
    "training.scheduler",
    "training.patience",
    "training.compile",
    "training.tensorboard",
    "warmup_ratio",
    "training.gradient_checkpointing",
    "training.label_smoothing=",
    "training.evaluations",
    "data.limit",
    "data.validation_limit",
    "data.leaks",
    "adapter.rank",
    "adapter.alpha",
    "adapter.targets",
    "lora.r=0",
    "output=tasks",
    "output=classes",
    "model.output",
    "model.scheme",
    "model.layout=",
    "model.exchange",
    "exchange=",
    "model.n_tasks",
    "training.consistency",
    "training.huber_delta",
    "training.accept_threshold",
    "training.class_weights",
    "model.backbone=",
    "encoder-bt",
    "decoder-bt",
    "pairrm-published",
    "pairrm-hub",
    "--orders",
    "body_bytes",
    "limits.items",
    "limits.seconds",
    "limits.requests",
    "TextLayout",
    "PairwiseLayout",
    "CandidateLayout",
    "CandidateLayouts",
    "PACKERS",
    "READERS",
    "MARKERS[",
    "Packed(",
    "PairwiseCollator",
    "TOKENWISE",
    "LISTWISE",
    "losses_of",
    "check_tasks",
    "ranker.commands",
    "ranker.batch",
    "ranker.text.layout",
    "ranker.text.packing",
    "ranker.text.pipeline",
    "ranker.text.batching",
    "models.seq2seq",
    "models.gated",
    "models.reward",
    "training.run",
    "jobs.run",
    "evaluation.run",
    "export.command",
    "checkpoints.inspect.",
    "Trained.found",
    "Evaluation.found",
    "jobs.Done",
]
PHRASES = (
    'orders="one"',
    "output: classes",
    "schedule focus",
    "the torch wall",
    "torch room",
    'layout="set"',
    'layout="hub"',
)
"""Names, settings, recipes and command-line values; phrases with spaces or quotes apart."""

PLAIN = {
    "n_tasks": (
        "tests/checkpoints/layouts.py",
        "tests/references/test_checkpoints.py",
        "benchmarks/scoring.py",
        "ranker/checkpoints/formats/pairrm.py",
    )
}
"""Where LLM-Blender's own setting is written or read."""

EMPTY_NAMES = {"found", "own", "made", "given", "taken", "said", "begun"}


def files(*patterns):
    listed = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    return [
        ROOT / name
        for name in listed
        if name.endswith((".py", ".md", ".yaml", ".toml", "Makefile"))
        and name not in ("CHANGELOG.md", "tests/test_words.py")
        and (ROOT / name).is_file()
    ]


@pytest.fixture(scope="module")
def texts():
    return {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in files()}


def pattern_of(word):
    begin = r"(?<![\w])" if word[0].isalnum() or word[0] == "_" else ""
    end = r"(?![\w])" if word[-1].isalnum() else ""
    return begin + re.escape(word) + end


def test_a_name_that_was_given_up_is_nowhere(texts):
    places = [
        (word, str(path))
        for word in (*GIVEN_UP, *PHRASES, "n_tasks")
        for path, text in texts.items()
        if word in text and re.search(pattern_of(word), text) and str(path) not in PLAIN.get(word, ())
    ]
    assert places == []


def names_of(tree):
    """Every name that a file gives to a value, a function or a class, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, getattr(node, "lineno", 0)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def test_no_name_is_empty():
    empty = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files("*.py")
        for name, line in names_of(ast.parse(path.read_text(encoding="utf-8")))
        if name.strip("_").lower() in EMPTY_NAMES
    ]
    assert empty == []


@pytest.mark.parametrize("construct", ["scorer: Any", "getattr(scorer", "# fmt: skip", "__signature__", "**locals()"])
def test_a_construct_that_hides_something_is_nowhere(construct):
    assert [str(path) for path in files("*.py") if construct in path.read_text(encoding="utf-8")] == []
