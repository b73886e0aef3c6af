import json

import pytest

from ranker.runtime import budgets

FACTS = {"graph": "abc", "threads": 2}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def settle(budget):
    while not budget.settled:
        with budget.timed(budget.slice_tokens):
            pass
    return budget.tokens


def test_what_one_process_found_the_next_one_knows():
    best = settle(budgets.remembered((10, 20), FACTS))
    again = budgets.remembered((10, 20), FACTS)
    assert again.settled
    assert again.tokens == best
    assert not budgets.remembered((10, 20), FACTS | {"threads": 4}).settled
    settle(budgets.remembered((10, 20), FACTS | {"threads": 4}))
    assert len(json.loads(budgets.file().read_text())) == 2


@pytest.mark.parametrize("text", ["", "[1]", '{"a": "b"}', "{"])
def test_a_damaged_file_is_found_anew(text):
    budgets.file().parent.mkdir()
    budgets.file().write_text(text)
    assert not budgets.remembered((10, 20), FACTS).settled


def test_without_a_home_folder_nothing_is_remembered(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(budgets.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert settle(budgets.remembered((10, 20), FACTS)) in (10, 20)


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert settle(budgets.remembered((10, 20), FACTS)) in (10, 20)
