"""The registry, ``ranker convert --to`` and ``docs/checkpoints.md`` name the same formats."""

import importlib.util
import re

import pytest
from typer.main import get_command

from ranker.checkpoints import convert
from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat
from ranker.checkpoints.formats.registry import FORMATS, TARGETS, UNKNOWN, WRITERS, by_name, recognise
from ranker.cli.main import app
from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("checkpoints", ROOT / "docs" / "checkpoints.py")
page = importlib.util.module_from_spec(spec)
spec.loader.exec_module(page)
DOCUMENT = (ROOT / "docs" / "checkpoints.md").read_text()


def test_names_are_unique_and_found():
    assert len({known.name for known in FORMATS}) == len(FORMATS)
    assert all(by_name(known.name) is known for known in FORMATS)
    assert by_name("unknown") is UNKNOWN


def test_every_subclass_is_in_the_registry():
    def concrete(cls):
        for sub in cls.__subclasses__():
            yield from concrete(sub)
            if sub.__module__.startswith("ranker.") and "name" in vars(sub):
                yield sub

    assert {*concrete(CheckpointFormat)} == {type(known) for known in (*FORMATS, UNKNOWN)}


def test_targets_of_the_registry_the_command_and_the_page_agree():
    assert convert.TARGETS == TARGETS
    assert {*TARGETS} == {known.target for known in FORMATS} - {None} == {*WRITERS}
    (option,) = (part for part in get_command(app).get_command(None, "convert").params if "--to" in part.opts)
    listed = re.findall(r"[a-z]+(?:-[a-z]+)?", option.help.partition(";")[0])
    assert {*listed} == {*TARGETS}
    assert all(f"`{target}`" in DOCUMENT for target in TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_formats_that_share_a_target_share_its_writer(target):
    writers = {type(known).write for known in FORMATS if known.target == target}
    assert len(writers) == 1
    assert CheckpointFormat.write not in writers


def test_readable_formats_have_a_reader():
    without = {known.name for known in FORMATS if known.readable and type(known).load is CheckpointFormat.load}
    assert without == {"ranker adapter"}, "it is read by adapters.load"


def test_the_page_is_what_its_generator_writes():
    assert page.document() == DOCUMENT, "run: make docs"
    assert all(known.name in DOCUMENT for known in FORMATS)


def test_a_folder_that_no_format_matches_is_unknown():
    assert recognise(Files({"model_type": "bert", "architectures": ["BertModel"]}, frozenset(), {})) is UNKNOWN
