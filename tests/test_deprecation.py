"""What goes away warns, at the caller's line, with what to use."""

import doctest
import warnings

import pytest

from ranker import deprecation


@deprecation.deprecated(use="new()", ends="0.3")
def old(value, *, twice=False):
    """Doubles."""
    return value * (2 if twice else 1)


def test_a_deprecated_function_works_and_warns_where_it_is_called():
    with pytest.warns(
        DeprecationWarning, match=r"old\(\) is deprecated and ends with version 0\.3; use new\(\)"
    ) as caught:
        assert old(2, twice=True) == 4
    assert caught[0].filename == __file__
    assert (old.__name__, old.__doc__) == ("old", "Doubles.")


def test_python_shows_it_to_whoever_runs_a_script():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        deprecation.warn("ranker.load(fast=)", use="precision='bf16'", ends="0.3", stacklevel=1)
    assert caught[0].filename == __file__


def test_the_example_of_the_docstring_runs():
    assert doctest.testmod(deprecation).failed == 0
