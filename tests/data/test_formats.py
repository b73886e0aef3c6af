import math

import pytest

from ranker.data.formats import parse_group, parse_preference
from ranker.data.read_row import UnusedColumns
from ranker.errors import NOT_FIELDS, DataError
from ranker.records import Group, Message, subset_of

USER, GOOD, BAD = ({"role": r, "content": c} for r, c in (("user", "Hi"), ("assistant", "yes"), ("assistant", "no")))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "p", "candidates": ["a", "b"]}, Group("p", ("a", "b"))),
        ({"prompt": "p", "responses": ["a"]}, Group("p", ("a",))),
        ({"instruction": "i", "generations": ["a", "b"]}, Group("i", ("a", "b"))),
        ({"input": "i", "candidates": ["a", "b"]}, Group("i", ("a", "b"))),
        ({"instruction": "do", "input": "this", "candidates": []}, Group("do\nthis", ())),
        ({"prompt": "p", "instruction": "i", "input": "x", "response": "a"}, Group("p", ("a",))),
        ({"prompt": "p", "candidates": [{"text": "a"}, {"text": "b"}]}, Group("p", ("a", "b"))),
        ({"prompt": "p", "completions": [[GOOD], [BAD]]}, Group("p", ("yes", "no"))),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, Group("", ("a", "b"))),
        (
            {
                "prompt": "Hi",
                "chosen": [{"role": "system", "content": "s"}, USER, GOOD],
                "rejected": [{"role": "system", "content": "s"}, USER, BAD],
            },
            Group((Message("system", "s"), Message("user", "Hi")), ("yes", "no")),
        ),
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, Group("p", ("a", "b"))),
        ({"instruction": "i", "response": "a"}, Group("i", ("a",))),
        ({"query": "q", "response": "a"}, Group("q", ("a",))),
        ({"messages": [USER, GOOD]}, Group((Message("user", "Hi"),), ("yes",))),
        ({"prompt": [USER], "responses": ["x"]}, Group((Message("user", "Hi"),), ("x",))),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, Group((Message("user", "Hi"),), ("yes", "no"))),
        (
            {"prompt": "Hi", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
            Group((Message("user", "Hi"),), ("yes", "no")),
        ),
        ({"prompt": "Hi", "chosen": [GOOD], "rejected": [BAD]}, Group((Message("user", "Hi"),), ("yes", "no"))),
    ],
)
def test_shapes_are_recognised(row, expected):
    assert parse_group(row, "f:1") == expected


@pytest.mark.parametrize("name", ["context", "history", "post", "question", "instruction", "query", "trajectory"])
def test_a_prompt_under_another_known_name_is_read(name):
    for row in ({"chosen": "a", "rejected": "b"}, {"candidates": ["a", "b"]}):
        assert parse_group({name: "Say hi", **row}, "f:1") == Group("Say hi", ("a", "b"))


CHAT = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye"))


@pytest.mark.parametrize("name", ["messages", "conversations", "conversation", "history", "context", "prompt"])
@pytest.mark.parametrize(
    "turns",
    [
        [{"role": m.role, "content": m.content} for m in CHAT],
        [{"from": {"user": "human", "assistant": "gpt"}[m.role], "value": m.content} for m in CHAT],
    ],
    ids=["role and content", "from and value"],
)
def test_a_conversation_under_a_known_name_is_the_prompt(name, turns):
    assert parse_group({name: turns, "chosen": "a", "rejected": "b"}, "f:1") == Group(CHAT, ("a", "b"))
    assert parse_group({name: turns, "response": "a"}, "f:1") == Group(CHAT, ("a",))


def test_turns_that_hold_their_prompt_are_not_checked_against_other_columns(caplog):
    unused = UnusedColumns()
    row = {"chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD], "context": "a forum"}
    assert parse_group(row, "f:1", unused=unused) == Group((Message("user", "Hi"),), ("yes", "no"))
    unused.say()
    assert caplog.messages == ["f: columns not used: messages, context"]


def test_a_conversation_that_has_its_answer_is_no_prompt():
    with pytest.raises(DataError, match="expected messages that wait for an answer"):
        parse_group({"messages": [USER, GOOD], "chosen": "x", "rejected": "y"}, "f:1")


def test_a_single_message_is_an_answer():
    row = {
        "conversations": [{"from": "human", "value": "Hi"}],
        "chosen": {"from": "gpt", "value": "yes"},
        "rejected": {"role": "assistant", "content": "no"},
    }
    assert parse_group(row, "f:1") == Group((Message("user", "Hi"),), ("yes", "no"))


def test_a_prompt_column_that_was_named_is_never_another_one():
    row = {"ctx": None, "question": "other", "chosen": "a", "rejected": "b"}
    with pytest.raises(
        DataError, match=r"expected text or messages, got null; if there is no prompt, give \"prompt\": \"\""
    ):
        parse_group(row, "f:1", {"prompt": "ctx"})


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"prompt": "p", "respons": "a"}, "did you mean 'response' by 'respons'\\? .*--column response=respons,"),
        ({"prompt": "p", "reply": "a"}, "--column candidates=COLUMN"),
        ({"prompt": "p", "idx": "7"}, "--column candidates=COLUMN"),
        ({"prompt": "p", "Chosen": "a", "rejected": "b"}, "did you mean 'chosen' by 'Chosen'\\?"),
    ],
)
def test_a_column_that_is_nearly_called_so_is_named(row, named):
    with pytest.raises(DataError, match=named):
        parse_group(row, "f:1")


def test_speakers_of_the_wrong_type_are_named():
    with pytest.raises(DataError, match="expected a message with role"):
        parse_group({"messages": [{"from": ["x"], "value": "q"}], "response": "a"}, "f:1")


def test_pairs_of_turns_are_a_history():
    group = parse_group({"history": [["Hi", "Hello"]], "chosen": "a", "rejected": "b"}, "f:1")
    assert group.prompt == CHAT[:2]


def test_whole_transcripts_hold_their_prompt():
    pair = {side: f"\n\nHuman: Hi\n\nAssistant: {side}" for side in ("chosen", "rejected")}
    assert parse_group(pair, "f:1") == Group((Message("user", "Hi"),), ("chosen", "rejected"))


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": "a", "rejected": "b", "situation": "Say hi"},
        {"chosen": [GOOD], "rejected": [BAD], "situation": "Say hi"},
    ],
)
def test_a_pair_in_which_nothing_is_the_prompt_is_refused_with_its_columns(row):
    for read in (parse_group, parse_preference):
        with pytest.raises(
            DataError, match=r"found no prompt in the columns .*situation.*--column prompt=COLUMN"
        ) as caught:
            read(row, "f:1")
        assert '"prompt": ""' in str(caught.value)
    columns = {"prompt": "situation"}
    assert parse_group(row, "f:1", columns).prompt in ("Say hi", (Message("user", "Say hi"),))


@pytest.mark.parametrize(("column", "meant"), [("promt", "prompt"), ("instructions", "instruction")])
def test_a_prompt_with_nearly_the_right_name_is_asked_about(column, meant):
    row = {column: "Say hi", "chosen": "Hi", "rejected": "No"}
    with pytest.raises(DataError, match=f"did you mean '{meant}' by '{column}'.*columns={{'prompt': '{column}'}}"):
        parse_group(row, "f:1")


def test_columns_of_text_that_are_not_used_are_named_once_per_file(caplog):
    unused = UnusedColumns()
    row = {"prompt": "p", "note": "be kind", "n": 3, "empty": "", "chosen": "a", "rejected": "b", "id": "x"}
    for number in range(3):
        parse_group(row, f"one.jsonl:{number}", unused=unused)
    parse_preference({"prompt": "p", "chosen": "a", "rejected": "b", "tags": ["x"]}, "two.jsonl:1", unused=unused)
    unused.say()
    unused.say()
    assert [record.getMessage() for record in caplog.records] == [
        "one.jsonl: columns not used: note",
        "two.jsonl: columns not used: tags",
    ]


def test_a_column_that_another_one_replaces_is_named(caplog):
    unused = UnusedColumns()
    row = {"prompt": "old", "question": "new", "context": "more", "response": "a"}
    assert parse_group(row, "f:1", {"prompt": "question"}, unused).prompt == "new"
    unused.say()
    assert caplog.messages == ["f: columns not used: prompt, context"]


def test_pairs_lists_and_blender_rows():
    pair = parse_preference({"prompt": "p", "chosen": "a", "rejected": "b", "label": 0.5, "margin": 2, "id": 7}, "f:1")
    assert (pair.label, pair.margin, pair.id) == (0.5, 2.0, "7")
    assert pair.pairs() == [(0, 1, (0.5,))]
    ranked = parse_preference({"prompt": "p", "candidates": ["a", "b", "c"], "scores": [1, 3, 3]}, "f:1")
    assert ranked.pairs() == [(0, 1, (0.0,)), (0, 2, (0.0,)), (1, 2, (0.5,))]
    aspects = parse_preference(
        {"prompt": "p", "candidates": ["a", "b"], "scores": {"x": [1, 2], "y": [None, 1]}}, "f:1"
    )
    (only,) = aspects.pairs()
    assert only[2][0] == 0.0
    assert math.isnan(only[2][1])
    blender = parse_preference(
        {
            "instruction": "do ",
            "input": "it",
            "candidates": [
                {"text": "a", "scores": {"bleu": 1.0, "gpt": 2}},
                {"text": "b", "scores": {"bleu": 3, "gpt": 1}},
            ],
        },
        "f:1",
    )
    assert blender.prompt == "do it"
    assert blender.scores == ((1.0, 2.0), (3.0, 1.0))


SPANS = {"prompt": "p", "chosen": "abc", "rejected": "ab"}


def test_token_spans_of_pairs_and_lists():
    pair = parse_preference({**SPANS, "chosen_spans": [[0, 2], {"start": 2, "end": 3}]}, "f:1")
    assert pair.spans == (((0, 2), (2, 3)), ())
    assert parse_preference({**SPANS, "chosen_spans": None}, "f:1").spans == ()
    listed = parse_preference(
        {"prompt": "p", "candidates": ["ab", "c"], "scores": [1, 2], "spans": [None, [[0, 1]]]}, "f:1"
    )
    assert listed.spans == ((), ((0, 1),))
    assert subset_of(listed, (1, 0)).spans == (((0, 1),), ())


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({"prompt": "p"}, "columns", "or a response and a score; got prompt"),
        ({}, "columns", "got nothing"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt", "expected text or a list of messages, got int"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "label": 1.2}, "label", r"probability in \(0, 1\]"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": float("inf")}, "margin", "finite number"),
        ({"prompt": "p", "candidates": ["a", None], "scores": [1, 2]}, "candidates[1]", "expected text, got null"),
        ({"prompt": "p", "candidates": ["a", "b"], "scores": [1]}, "scores", "one for each of 2 candidates, got 1"),
        ({"prompt": "p", "candidates": "ab", "scores": [1, 2]}, "candidates", "expected a list of answers, got str"),
        ({"prompt": "other", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "prompt", "part of 'chosen'"),
        (
            {"prompt": "p", "candidates": ["a", "b"], "scores": [1, 2], "kinds": ["x"]},
            "kinds",
            "one for each of 2 candidates, got 1",
        ),
        ({"prompt": "p", "candidates": ["a"], "scores": [1], "spans": [[[0, 1]], []]}, "spans", "got 2"),
        ({**SPANS, "chosen_spans": [[0, 1], [1, 4]]}, "chosen_spans[1]", r"0 <= start < end <= 3, .* got \[1, 4\]"),
        ({**SPANS, "chosen_spans": [{"start": 2, "end": 2}]}, "chosen_spans[0]", "start < end"),
        ({**SPANS, "rejected_spans": "0-1"}, "rejected_spans", r"a list of \[start, end\], got str"),
        ({**SPANS, "chosen_spans": []}, "chosen_spans, rejected_spans", "a span in at least one answer"),
        (
            {"chosen": [USER, GOOD], "rejected": [BAD]},
            "rejected",
            "expected a conversation with its prompt, as in 'chosen'",
        ),
        ({"chosen": [USER], "rejected": [USER]}, "chosen", "end with an assistant turn"),
        ({"chosen": [{"role": "robot", "content": "x"}], "rejected": [BAD]}, "chosen[0]", "role"),
        (
            {"instruction": "i", "candidates": [{"text": "a", "scores": {}}]},
            "candidates[0].scores",
            "at least one metric",
        ),
    ],
)
def test_a_bad_row_names_where_what_and_why(row, field, message):
    with pytest.raises(DataError, match=message) as caught:
        parse_preference(row, "file.jsonl:12")
    assert caught.value.where == "file.jsonl:12"
    assert caught.value.field == field
    assert str(caught.value).startswith("file.jsonl:12: " + (field if field in NOT_FIELDS else f"field '{field}'"))


def test_columns_can_be_named():
    row = {"question_text": "p", "good": "a", "bad": "b"}
    columns = {"prompt": "question_text", "chosen": "good", "rejected": "bad"}
    assert parse_preference(row, "f:1", columns).candidates == ("a", "b")
    with pytest.raises(DataError, match="expected the column named for 'prompt'"):
        parse_preference({"good": "a"}, "f:1", columns)


def test_tasks_have_one_order_whatever_the_rows_say():
    a = parse_preference({"prompt": "p", "candidates": ["x"], "scores": {"safe": [0], "help": [1]}}, "f:1")
    b = parse_preference({"prompt": "p", "candidates": ["x"], "scores": {"help": [1], "safe": [0]}}, "f:1")
    assert a.tasks == b.tasks == ("help", "safe")
    assert a.scores == b.scores == ((1.0, 0.0),)


def test_an_explicit_prompt_column_wins_and_swapping_columns_loses_nothing():
    row = {"instruction": "i", "input": "x", "question": "q", "response": "a"}
    assert parse_group(row, "f:1", {"prompt": "question"}).prompt == "q"
    swapped = parse_preference(
        {"prompt": "p", "chosen": "a", "rejected": "b"}, "f:1", {"chosen": "rejected", "rejected": "chosen"}
    )
    assert swapped.candidates == ("b", "a")


def test_unknown_column_names_are_refused():
    from ranker.data.read_row import check_columns
    from ranker.errors import ConfigError

    with pytest.raises(ConfigError, match="unknown column name 'promt'; did you mean 'prompt'"):
        check_columns({"promt": "q"})
