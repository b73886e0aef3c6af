"""A checkpoint's chat template is code of a stranger: it is refused in a line, soon, and without filling the memory."""

import resource
import time

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from ranker.errors import ConfigError
from ranker.text.chat import ChatTemplate, TemplateRefusal
from tests.hostile.templates import BLIND, HARMLESS, TEMPLATES

TURNS = [{"role": "user", "content": "How many {123456}?"}, {"role": "assistant", "content": "4 %123456s"}]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_hostile_template_is_refused_in_a_line(name):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    with pytest.raises((TemplateRefusal, ConfigError), match="chat template") as caught:
        ChatTemplate(template=TEMPLATES[name]).render(TURNS)
    assert time.perf_counter() - started < 5  # a second, on a machine that does nothing else
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BLIND)
def test_a_template_sees_no_objects_of_python(name):
    assert ChatTemplate(template=BLIND[name]).render(TURNS).strip("['] ") in ("", "Undefined")


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_template_is_rendered_as_transformers_does(name):
    (expected,), _ = render_jinja_template([TURNS], chat_template=HARMLESS[name])
    assert ChatTemplate(template=HARMLESS[name]).render(TURNS) == expected
