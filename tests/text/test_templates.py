"""Prompts as plain text."""

from ranker.records import Message
from ranker.text.templates import render_prompt


def test_a_text_is_rendered_as_it_is():
    assert render_prompt("a\nb") == "a\nb"


def test_one_user_message_is_its_content():
    assert render_prompt((Message("user", "hello"),)) == "hello"


def test_one_system_message_keeps_its_role():
    assert render_prompt((Message("system", "be kind"),)) == "System: be kind"


def test_several_messages_are_lines_with_their_roles():
    messages = (Message("system", "s"), Message("user", "u"), Message("assistant", "a"), Message("tool", "t"))
    assert render_prompt(messages) == "System: s\nUser: u\nAssistant: a\nTool: t"


def test_no_messages_are_an_empty_text():
    assert render_prompt(()) == ""
