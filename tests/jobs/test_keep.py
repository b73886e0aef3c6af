import pytest

from ranker.errors import ConfigError
from ranker.jobs.keep import rule

ROW = {"score": 1.5, "margin": None, "truncated": False, "candidates": 1, "characters": 40}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("score > 0.5", True),
        ("score > 0.5 and not truncated", True),
        ("score < -1 or characters >= 40", True),
        ("0 < score < 2", True),
        ("0 < score < 1", False),
        ("margin > -100", False),
        ("not margin > 0", True),
        ("not (score > 1 and candidates == 1)", False),
        ("truncated", False),
        ("score > -margin", False),
    ],
)
def test_expressions(text, kept):
    assert rule(text)(ROW) is kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "score >",
        "__import__('os')",
        "score.real > 1",
        "scores > 1",
        "score > '1'",
        "[1]",
        "score in candidates",
        "score if 1 else 2",
        "lambda: 1",
        "score + 1 > 2",
        "(" * 3000,
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ConfigError, match="--keep"):
        rule(text)
