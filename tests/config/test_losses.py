"""Settings of losses: a tagged union."""

import pytest
from pydantic import TypeAdapter, ValidationError

from ranker.config import MODEL_TYPES, LossConfig
from ranker.config.losses import (
    AnswerTokenLossConfig,
    ComparisonLossConfig,
    CrossEntropyLossConfig,
    CustomLossConfig,
    HuberLossConfig,
    ListLossConfig,
    RegressionLossConfig,
    TokenPairwiseLossConfig,
)

LOSS = TypeAdapter(LossConfig)
FAMILIES = {
    "bradley_terry": ComparisonLossConfig,
    "log_exp": ComparisonLossConfig,
    "answer_token": AnswerTokenLossConfig,
    "token_pairwise": TokenPairwiseLossConfig,
    "list_net": ListLossConfig,
    "list_mle": ListLossConfig,
    "rank_net": ListLossConfig,
    "mse": RegressionLossConfig,
    "rmse": RegressionLossConfig,
    "binary_cross_entropy": RegressionLossConfig,
    "huber": HuberLossConfig,
    "cross_entropy": CrossEntropyLossConfig,
}


@pytest.mark.parametrize(("name", "family"), FAMILIES.items())
def test_a_name_gives_the_settings_of_its_family(name, family):
    loss = LOSS.validate_python(name)
    assert type(loss) is family
    assert loss.type == name


def test_every_loss_trains_some_model():
    assert set().union(*(cls.losses for cls in MODEL_TYPES.values())) == {*FAMILIES, "custom"}


def test_settings_are_read_beside_the_type():
    assert LOSS.validate_python({"type": "huber", "delta": 2}).delta == 2.0


def test_settings_of_another_loss_are_refused():
    with pytest.raises(ValidationError, match="delta"):
        LOSS.validate_python({"type": "mse", "delta": 2})


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValidationError, match="'no_such_loss'"):
        LOSS.validate_python("no_such_loss")


def test_a_custom_loss_is_recorded_by_its_name():
    assert LOSS.validate_python({"type": "custom", "name": "MyLoss"}) == CustomLossConfig(type="custom", name="MyLoss")


@pytest.mark.parametrize(
    "values",
    [
        {"type": "huber", "delta": 0},
        {"type": "cross_entropy", "label_smoothing_factor": 1},
        {"type": "cross_entropy", "class_weights": [1]},
        {"type": "bradley_terry", "center_rewards_coefficient": -0.1},
        {"type": "custom"},
    ],
)
def test_a_setting_out_of_range_is_refused(values):
    with pytest.raises(ValidationError):
        LOSS.validate_python(values)


def test_settings_are_immutable():
    loss = LOSS.validate_python("huber")
    with pytest.raises(ValidationError, match="frozen"):
        loss.delta = 3.0
