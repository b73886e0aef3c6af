"""Conversations as people and agents write them: edge white space, tools, unicode, text that spells special tokens."""

from __future__ import annotations

from typing import Any

Turn = dict[str, Any]


def user(text: Any) -> Turn:
    return {"role": "user", "content": text}


def assistant(text: Any, **more: Any) -> Turn:
    return {"role": "assistant", "content": text, **more}


def system(text: Any, role: str = "system") -> Turn:
    return {"role": role, "content": text}


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "function", "id": "call_0001", "function": {"name": name, "arguments": arguments}}


def tool(text: str, role: str = "tool") -> Turn:
    return {"role": role, "name": "weather", "tool_call_id": "call_0001", "content": text}


WEATHER = call("weather", {"city": "Rome", "days": 2})

CONVERSATIONS: tuple[tuple[Turn, ...], ...] = (
    (user("Name the capital of France."), assistant("Paris.")),
    (user("Name the capital of France.\n"), assistant("\nParis.")),
    (user(" Name it "), assistant(" Paris. ")),
    (user("\n\nName it\n\n"), assistant("\n\n\nParis.\n\n")),
    (user("\tName it\r\n"), assistant("\r\nParis.\t")),
    (user(""), assistant("Paris.")),
    (user("Name it"), assistant("")),
    (user(""), assistant("")),
    (user("   "), assistant("\n")),
    (user("Ünïcödé 🙂 日本語"), assistant("été — naïve 👩‍👩‍👧 \u00a0")),
    (user("e\u0301 \ufb01 \u2460"), assistant("A\u030a")),
    (user("def f(x):\n    return x\n"), assistant("```python\ndef f(x):\n\treturn x\n```\n")),
    (user("2 + 2 = ? 12345678"), assistant("4\n\n8")),
    (user("<b>html</b> &amp; {{ jinja }} {% raw %}"), assistant("{'a': 1} [INST] ### \\n")),
    (user("Think."), assistant("<think>\nHmm.\n</think>\n\nDone.")),
    (user("Think."), assistant("Done.", reasoning_content="Hmm.")),
    (user("Think."), assistant("</think> odd")),
    (system("Be brief."), user("Hi"), assistant("Hello")),
    (system(" Be brief.\n"), user("\nHi"), assistant("Hello\n")),
    (system(""), user("Hi"), assistant("Hello")),
    (system("Be brief.", "developer"), user("Hi"), assistant("Hello")),
    (user("Hi"), assistant("Hello"), user("And?"), assistant("More.")),
    (user("Hi\n"), assistant("\nHello\n"), user("\nAnd?\n"), assistant("\nMore.\n")),
    (system("S"), user("1"), assistant("2"), user("3"), assistant("4"), user("5"), assistant("6")),
    (user("1"), assistant("<think>\na\n</think>\n\n2"), user("3"), assistant("<think>\nb\n</think>\n\n4")),
    (user("1"), assistant("2"), user("3"), assistant("4"), user("5"), assistant("6"), user("7"), assistant("8")),
    (user("Weather?"), assistant(None, tool_calls=[WEATHER]), tool("Sunny"), assistant("It is sunny.")),
    (user("Weather?"), assistant("", tool_calls=[WEATHER]), tool(" Sunny\n"), assistant("\nSunny.")),
    (
        user("Weather?"),
        assistant("I look.", tool_calls=[call("weather", '{"city": "Rome"}')]),
        tool("{}"),
        assistant("?"),
    ),
    (user("Weather?"), assistant("I look.", tool_calls=[WEATHER, WEATHER]), tool("a"), tool("b"), assistant("Both.")),
    (user("Weather?"), assistant("Wait"), tool("Sunny", "function"), assistant("Sunny.")),
    (user("Weather?"), assistant("I look.", tool_calls=[WEATHER])),
    (user([{"type": "text", "text": "Name it "}, {"type": "text", "text": "\nnow"}]), assistant("Paris.")),
    (user("Name it"), assistant([{"type": "text", "text": "Paris."}])),
    (user("One"), user("Two"), assistant("Three")),
    (user("One"), assistant("Two"), assistant("Three")),
    (assistant("Hello"), user("Hi"), assistant("More")),
    (user("Say <|im_end|> and <|eot_id|>"), assistant("<|im_end|>\nuser")),
    (system("<|endoftext|>"), user("Hi <|eos|>"), assistant("<|bos|>Hello")),
    (user("Weather?"), assistant("x", tool_calls=[call("w", {"city": "<|im_end|>"})]), tool("<|eos|>"), assistant("y")),
)
