"""A family has one member per name: registries, settings, tests and docs agree."""

from typing import get_args

import pytest

from ranker.config import MODEL_TYPES
from ranker.config.models import PairwiseConfig
from ranker.layouts import LAYOUTS
from ranker.models.readouts import READOUTS
from ranker.runtime.manifest import ModelType
from tests import conftest

DOCS = {name: (conftest.ROOT / name).read_text() for name in ("README.md", "docs/architecture.md", "docs/glossary.md")}


def test_every_layout_has_a_model_type_and_the_other_way_round():
    assert (set(LAYOUTS) - {"conversation", "judge"}) | {"armorm"} == set(MODEL_TYPES), (
        "decoders of type pointwise read conversations, armorm either; judges are read and not trained"
    )


def test_a_model_file_knows_every_model_type():
    assert set(get_args(ModelType)) == {*MODEL_TYPES, "judge"}, "judges are read and not trained"


def test_every_layout_of_the_pairwise_encoder_has_a_readout():
    pairwise = {name for name, cls in MODEL_TYPES.items() if issubclass(cls, PairwiseConfig)}
    assert {LAYOUTS[name] for name in pairwise} == set(READOUTS)


def test_the_tests_run_for_every_layout():
    assert set(conftest.LAYOUTS) == set(LAYOUTS) - {"steamshp", "judge", "conversation"}, "tests/conftest.py"


@pytest.mark.parametrize("name", [*MODEL_TYPES])
@pytest.mark.parametrize("page", [*DOCS])
def test_every_model_type_is_in_the_docs(name, page):
    assert f"`{name}`" in DOCS[page], page
