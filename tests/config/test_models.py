"""Settings of models: a tagged union."""

import pytest
from pydantic import TypeAdapter, ValidationError

from ranker.config import MODEL_TYPES, ModelConfig
from ranker.layouts import LAYOUTS


def model(name, **values):
    """Validated settings of a model type on the packaged encoder."""
    return TypeAdapter(ModelConfig).validate_python({"type": name, "name_or_path": "offline", **values})


REQUIRED = {"armorm": {"aspects": ["helpful"]}}


@pytest.mark.parametrize("name", MODEL_TYPES)
def test_a_type_gives_the_settings_of_its_class(name):
    assert type(model(name, **REQUIRED.get(name, {}))) is MODEL_TYPES[name]


def test_every_layout_is_a_model_type():
    trained = set(LAYOUTS) - {"conversation", "judge"}
    assert trained <= set(MODEL_TYPES), "decoders of type pointwise read conversations, judges are not trained"


@pytest.mark.parametrize("name", MODEL_TYPES)
def test_every_model_trains_with_some_loss(name):
    assert MODEL_TYPES[name].losses


def test_settings_of_another_type_are_refused():
    with pytest.raises(ValidationError, match="num_labels"):
        model("pointwise", num_labels=2)


@pytest.mark.parametrize("name", ["pointwise", "armorm"])
def test_aspects_are_sorted(name):
    assert model(name, aspects=["b", "c", "a"]).aspects == ("a", "b", "c")


def test_armorm_needs_aspects():
    with pytest.raises(ValidationError, match="aspects"):
        model("armorm")


def test_the_verbosity_of_the_gate_is_one_of_the_aspects():
    gate = {"verbosity": "long"}
    assert model("armorm", aspects=["long"], gate=gate).gate.verbosity == "long"
    with pytest.raises(ValidationError, match=r"gate\.verbosity 'long' is not in model\.aspects"):
        model("armorm", aspects=["short"], gate=gate)


def test_a_reserve_beyond_half_of_the_length_is_refused():
    assert model("pointwise", max_length=128, prompt_reserve=64).prompt_reserve == 64
    with pytest.raises(ValidationError, match="expected prompt_reserve at most half of max_length 128"):
        model("pointwise", max_length=128, prompt_reserve=65)


def test_settings_are_immutable():
    with pytest.raises(ValidationError, match="frozen"):
        model("pointwise").max_length = 64
