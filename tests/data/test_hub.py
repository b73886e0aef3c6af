"""Every known dataset on handmade rows with its real columns."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.data import fields, known_datasets, shapes
from ranker.data.formats import parse_preference
from ranker.data.load import load_preferences
from ranker.errors import ConfigError, DataError

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
CONVERSATIONS = {"chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "No"}]}
RATED = {a: {"Rating": "4", "Rationale": ""} for a in shapes.ULTRAFEEDBACK}
ROWS = {
    "hh-rlhf": {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: No"},
    "ultrafeedback": {
        "instruction": "Hi",
        "source": "evol",
        "models": [],
        "completions": [
            {"response": "Hello", "annotations": RATED},
            {"response": "No", "annotations": RATED | {"honesty": {"Rating": "N/A"}, "truthfulness": {"Rating": "1"}}},
        ],
    },
    "ultrafeedback-binarized": CONVERSATIONS
    | {
        "prompt": "Hi",
        "prompt_id": "a",
        "messages": CONVERSATIONS["chosen"],
        "score_chosen": 8.0,
        "score_rejected": 2.0,
    },
    "helpsteer3": {
        "domain": "general",
        "language": "english",
        "context": [USER],
        "response1": "No",
        "response2": "Hello",
        "overall_preference": 2,
        "individual_preference": [],
    },
    "shp": {
        "history": "Hi",
        "human_ref_A": "No",
        "human_ref_B": "Hello",
        "labels": 0,
        "score_ratio": 2.0,
        "domain": "askhr",
    },
    "mixinstruct": {
        "id": "1",
        "instruction": "",
        "input": "Hi",
        "output": "Hello",
        "candidates": [
            {"decoder_method": "top_p", "model": "a", "text": "Hello", "scores": {"bleu": 0.9}},
            {"decoder_method": "top_p", "model": "b", "text": "No", "scores": {"bleu": 0.1}},
        ],
    },
    "unified-feedback": {
        "id": "1",
        "conv_A": [USER, {"role": "assistant", "content": "No"}],
        "conv_B": [USER, ANSWER],
        "conv_A_rating": 0.0,
        "conv_B_rating": 1.0,
        "num_turns": 1,
        "source": "argilla",
    },
    "webgpt-comparisons": {
        "question": {"full_text": "Hi", "id": "1"},
        "quotes_0": {"extract": ["q"]},
        "answer_0": "Hello",
        "score_0": 0.5,
        "quotes_1": {"extract": ["q"]},
        "answer_1": "No",
        "score_1": -0.5,
    },
    "summarize-from-feedback": {
        "info": {"id": "1", "post": "Hi", "title": None, "subreddit": "tifu", "site": None, "article": None},
        "summaries": [{"text": " No", "policy": "a"}, {"text": " Hello", "policy": "b"}],
        "choice": 1,
        "worker": "w",
    },
    "preference-700k": CONVERSATIONS,
    "skywork-reward-preference": CONVERSATIONS | {"source": "magpie"},
    "pku-saferlhf": {
        "prompt": "Hi",
        "response_0": "No",
        "response_1": "Hello",
        "better_response_id": 1,
        "safer_response_id": 0,
    },
    "nectar": {
        "prompt": "\n\nHuman: Hi\n\nAssistant: ",
        "answers": [{"answer": "No", "model": "a", "rank": 7.0}, {"answer": "Hello", "model": "b", "rank": 1.0}],
        "turns": 1,
        "num_responses": 2,
        "source": [],
    },
}
HELPSTEER2 = [
    {"prompt": "Hi", "response": r, "helpfulness": h, "correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 0}
    for r, h in (("No", 0), ("Hello", 3))
]
OASST = [
    {"message_id": "p", "parent_id": None, "text": "Hi", "role": "prompter", "rank": None, "lang": "en"},
    {"message_id": "a", "parent_id": "p", "text": "No", "role": "assistant", "rank": 1, "lang": "en"},
    {"message_id": "b", "parent_id": "p", "text": "Hello", "role": "assistant", "rank": 0, "lang": "en"},
    {"message_id": "c", "parent_id": "b", "text": "More", "role": "prompter", "rank": None, "lang": "en"},
    {"message_id": "d", "parent_id": "c", "text": "Sure", "role": "assistant", "rank": 0, "lang": "en"},
]


@pytest.fixture
def online(monkeypatch):
    """``datasets.load_dataset`` that answers with handmade rows and remembers what it was asked for."""
    import datasets

    asked = []

    def load_dataset(path, config=None, **options):
        asked.append((path, config, options))
        name = next(name for name, known in known_datasets.HUB.items() if known.path == path)
        return {"oasst2": OASST, "helpsteer2": HELPSTEER2}.get(name) or [ROWS[name]]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize("name", known_datasets.HUB)
def test_a_name_is_enough_and_the_better_answer_wins(name, online):
    (preference,) = load_preferences([name]).preferences
    assert set(preference.candidates) == {"Hello", "No"}
    ((_, _, target),) = preference.pairs()
    known = [t for t in target if t == t]
    winner = preference.candidates[0 if sum(known) / len(known) > 0.5 else 1]
    assert winner == "Hello"
    assert "Hi" in (preference.prompt if isinstance(preference.prompt, str) else preference.prompt[0].content)
    path, config, options = online[0]
    known = known_datasets.HUB[name]
    assert (path, config) == (known.path, known.config)
    assert options == {"split": known.split, "revision": known.revision, "streaming": False}


def test_aspects_come_by_name_with_missing_ratings(online):
    (row,) = load_preferences(["helpsteer2"]).preferences
    assert row.tasks == tuple(sorted(shapes.HELPSTEER))
    assert [dict(zip(row.tasks, scores, strict=True))["helpfulness"] for scores in row.scores] == [0, 3]
    (row,) = load_preferences(["ultrafeedback"]).preferences
    second = dict(zip(row.tasks, row.scores[1], strict=True))
    assert math.isnan(second["honesty"])
    assert second["truthfulness"] == 1


def test_helpsteer2_turns_are_messages():
    prompt = "First?\n<extra_id_1>Assistant\nA.\n<extra_id_1>User\nThen?"
    row = parse_preference(HELPSTEER2[0] | {"prompt": prompt}, "f:1")
    assert [(m.role, m.content) for m in row.prompt] == [("user", "First?"), ("assistant", "A."), ("user", "Then?")]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("helpsteer3", {"overall_preference": 0}),
        ("unified-feedback", {"conv_A_rating": 1.0}),
        ("ultrafeedback-binarized", {"score_rejected": 8.0}),
        ("webgpt-comparisons", {"score_1": 0.5}),
    ],
)
def test_ties_are_ties(name, changes):
    shape = known_datasets.HUB[name].shape
    assert parse_preference(ROWS[name] | changes, "f:1", shape=shape).pairs() == [(0, 1, (0.5,))]


def test_answers_without_ratings_hold_no_comparison():
    row = parse_preference(ROWS["unified-feedback"] | {"conv_A_rating": None}, "f:1")
    ((_, _, (target,)),) = row.pairs()
    assert math.isnan(target)


def test_splits_and_streaming_are_passed_on(online):
    load_preferences(["shp:validation"], streaming=True)
    assert online[0][2] == {"split": "validation", "revision": "main", "streaming": True}


def test_transcripts_keep_their_turns():
    turns = fields.transcript("\n\nHuman: a\n\nAssistant: b\n\nHuman: c Human: d\n\nAssistant:")
    assert [t["role"] for t in turns] == ["user", "assistant", "user", "assistant"]
    assert [t["content"] for t in turns] == ["a", "b", "c Human: d", ""]
    with pytest.raises(ValueError, match="begins with"):
        fields.transcript("no turns at all")


def test_conversations_above_ranked_replies_are_the_prompt():
    replies = [*OASST, OASST[4] | {"message_id": "e", "text": "Nope", "rank": 1}]
    lists = {row["id"]: row for row in known_datasets.oasst_lists(replies)}
    assert [m["content"] for m in lists["c"]["prompt"]] == ["Hi", "Hello", "More"]
    assert lists["c"]["scores"] == [0.0, -1.0]


def test_rows_that_are_not_what_the_card_says_are_named(online, monkeypatch):
    monkeypatch.setitem(ROWS, "shp", {"history": "Hi"})
    with pytest.raises(DataError, match=r"shp:1: .*expected history, human_ref_A.*KeyError"):
        load_preferences(["shp"])


def texts_of(preference):
    """What a preference says, whatever it is called."""
    return repr(preference.prompt), preference.candidates, repr(preference.scores), preference.label, preference.subset


def written(kind, rows, folder):
    """Rows as a file or folder of a kind."""
    if kind == "saved":
        import datasets

        datasets.Dataset.from_list(rows).save_to_disk(folder / "saved")
        return folder / "saved"
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "saved"])
@pytest.mark.parametrize("name", known_datasets.HUB)
def test_a_copy_is_read_as_the_dataset_is(name, kind, online, tmp_path):
    rows = {"oasst2": OASST, "helpsteer2": HELPSTEER2}.get(name) or [ROWS[name]]
    path = written(kind, rows, tmp_path)
    expected = [texts_of(preference) for preference in load_preferences([name]).preferences]
    assert [texts_of(preference) for preference in load_preferences([f"{name}={path}"]).preferences] == expected
    assert [texts_of(preference) for preference in load_preferences([str(path)]).preferences] == expected


def test_a_copy_of_another_dataset_is_refused_with_the_columns(tmp_path):
    path = written("jsonl", [ROWS["shp"]], tmp_path)
    with pytest.raises(DataError, match=r"rows.jsonl:1: .*expected context, response1.* as nvidia/HelpSteer3 has them"):
        load_preferences([f"helpsteer3={path}"])
    with pytest.raises(ConfigError, match=r"did you mean 'helpsteer3'\?"):
        load_preferences([f"helpster3={path}"])
    with pytest.raises(ConfigError, match="says what its columns mean"):
        load_preferences([f"shp={path}"], columns={"prompt": "history"})


def test_the_licence_of_a_known_dataset_is_said_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("ranker.data.load._warned", set())
    path = written("jsonl", [ROWS["pku-saferlhf"]], tmp_path)
    for _ in range(2):
        load_preferences([str(path)])
    lines = [message for message in caplog.messages if "licence" in message]
    assert len(lines) == 1
    assert "PKU-Alignment/PKU-SafeRLHF, licence CC-BY-NC-4.0" in lines[0]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(DataError, match="did you mean 'hh-rlhf'"):
        load_preferences(["hh-rlfh"])
