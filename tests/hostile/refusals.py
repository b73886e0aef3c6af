"""How reading a hostile file ends."""

import time

import ranker


def refusals(read):
    """What reading says is wrong, and its seconds."""
    started = time.perf_counter()
    try:
        problems = read()
    except ranker.RankerError as error:
        problems = [str(error)]
    return problems, time.perf_counter() - started


def check_lines(refused):
    """Every refusal is one line that a terminal can show."""
    for text in refused:
        assert "\n" not in text
        assert len(text) < 900
