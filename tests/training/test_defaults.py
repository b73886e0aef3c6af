"""Rates and tokens that follow from the backbone's size."""

import pytest

from ranker.config.files import parse_config
from ranker.training import defaults
from ranker.training.defaults import LORA_FACTOR, SIZES, resolved

MODEL = {"type": "set_encoder", "name_or_path": "offline"}


@pytest.fixture
def resolve(monkeypatch):
    """Resolves a configuration for a backbone of so many parameters."""

    def of(parameters, **sections):
        monkeypatch.setattr(defaults, "backbone_parameters", lambda name: int(parameters))
        return resolved(
            parse_config({"output_dir": "runs/x", "model": MODEL, "data": {"train": ["r.jsonl"]}, **sections})
        )

    return of


@pytest.mark.parametrize(
    ("parameters", "learning_rate", "tokens_per_step"),
    [
        (22e6, 2e-4, 2048),
        (60e6, 2e-4, 2048),
        (60e6 + 1, 2e-5, 16384),
        (184e6, 2e-5, 16384),
        (435e6, 1e-5, 32768),
        (4e9, 5e-6, 65536),
        (70e9, 2e-6, 65536),
    ],
)
def test_the_size_decides_what_is_left_open(parameters, learning_rate, tokens_per_step, resolve):
    settings = resolve(parameters)
    assert (settings.learning_rate, settings.tokens_per_step, settings.parameters) == (
        learning_rate,
        tokens_per_step,
        int(parameters),
    )


def test_rates_fall_and_tokens_do_not_with_the_size():
    rates, tokens = [size.learning_rate for size in SIZES], [size.tokens_per_step for size in SIZES]
    assert rates == sorted(rates, reverse=True)
    assert tokens == sorted(tokens)


def test_settings_that_are_set_stay(resolve):
    settings = resolve(22e6, training={"learning_rate": 3e-6, "tokens_per_step": 4096})
    assert (settings.learning_rate, settings.tokens_per_step) == (3e-6, 4096)


def test_the_configuration_has_what_was_filled_in(resolve):
    training = resolve(184e6).config.training
    assert (training.learning_rate, training.tokens_per_step) == (2e-5, 16384)


def test_nothing_else_of_the_configuration_changes(resolve):
    settings = resolve(184e6, training={"seed": 7})
    assert settings.config.training.seed == 7
    assert settings.config.data.train == ("r.jsonl",)


def test_adapters_train_at_a_higher_rate(resolve):
    assert resolve(4e9, lora={}).learning_rate == LORA_FACTOR * resolve(4e9).learning_rate


def test_a_rate_that_is_set_is_not_raised_for_adapters(resolve):
    assert resolve(4e9, lora={}, training={"learning_rate": 1e-6}).learning_rate == 1e-6


def test_a_step_reads_at_least_one_pass(resolve):
    assert resolve(22e6, training={"max_tokens_per_forward": 8192}).tokens_per_step == 8192
