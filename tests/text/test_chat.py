"""Turns, and what a chat template puts around them."""

import pytest

from ranker.errors import ConfigError
from ranker.records import Message
from ranker.text.chat import template_parts, turns
from tests.support.texts import ids_of


def encode(text):
    return ids_of(text)


def chatml(messages):
    return "^" + "".join(f"<{m['role'][0]}>{m['content']};" for m in messages) + "$"


def conversation(*roles):
    return tuple(Message(role, f"{role} {i}") for i, role in enumerate(roles))


def test_a_text_is_one_user_turn():
    assert turns("hello") == [("user", "hello")]


def test_alternating_turns_stay_as_they_are():
    assert turns(conversation("user", "assistant", "user")) == [
        ("user", "user 0"),
        ("assistant", "assistant 1"),
        ("user", "user 2"),
    ]


def test_a_system_text_joins_the_user_turn_after_it():
    assert turns(conversation("system", "user")) == [("user", "system 0\n\nuser 1")]


def test_a_tool_text_is_a_user_turn():
    assert turns(conversation("user", "assistant", "tool")) == [
        ("user", "user 0"),
        ("assistant", "assistant 1"),
        ("user", "tool 2"),
    ]


def test_turns_of_one_role_in_a_row_are_joined():
    assert turns(conversation("user", "user", "assistant", "assistant", "user")) == [
        ("user", "user 0\n\nuser 1"),
        ("assistant", "assistant 2\n\nassistant 3"),
        ("user", "user 4"),
    ]


def test_a_conversation_that_the_assistant_begins_gets_an_empty_user_turn():
    assert turns(conversation("assistant", "user"))[0] == ("user", "")


def test_a_conversation_that_the_assistant_ends_gets_an_empty_user_turn():
    assert turns(conversation("user", "assistant"))[-1] == ("user", "")


def test_no_messages_are_an_empty_user_turn():
    assert turns(()) == [("user", "")]


def test_template_parts_are_what_stands_around_the_turns():
    assert template_parts(chatml, encode) == {
        "prefix": tuple(ids_of("^<u>")),
        "between": tuple(ids_of(";<a>")),
        "turn": tuple(ids_of(";<u>")),
        "suffix": tuple(ids_of(";$")),
    }


def test_template_parts_joined_are_the_template_of_any_conversation():
    parts = template_parts(chatml, encode)
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    joined = (*parts["prefix"], *ids_of("q"), *parts["between"], *ids_of("a"), *parts["suffix"])
    assert joined == tuple(ids_of(chatml(messages)))


@pytest.mark.parametrize(
    "render",
    [
        lambda messages: chatml(messages[:3]),
        lambda messages: chatml(messages).upper(),
        lambda messages: chatml(messages[::-1]),
        lambda messages: chatml([*messages[:1], *messages]),
        lambda messages: chatml([*messages, messages[0]]),
    ],
    ids=["drops a turn", "changes the content", "changes the order", "repeats a turn", "repeats a turn at the end"],
)
def test_a_template_that_does_not_keep_the_turns_is_refused(render):
    with pytest.raises(ConfigError, match="expected a chat template that keeps the content of user and assistant"):
        template_parts(render, encode)
