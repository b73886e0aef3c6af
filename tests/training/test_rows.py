"""The rows of a run: which are held out, which are left out, and whether their labels fit."""

import json

import pytest

from ranker.config.files import parse_config
from ranker.errors import ConfigError, DataError
from ranker.records import Message, Preference
from ranker.training.rows import HELD_OUT_SHARE, check_labels, held_out, load, without_repeats


def pair(prompt, chosen="a", rejected="b", **values):
    return Preference(prompt, (chosen, rejected), ((1.0,), (0.0,)), label=1.0, **values)


def single(prompt, score=1.0):
    return Preference(prompt, ("a",), ((score,),))


def prompts(rows):
    return {row.prompt for row in rows}


def run(train, **sections):
    data = {"train": train, **sections.pop("data", {})}
    model = {"type": "set_encoder", "name_or_path": "offline", **sections.pop("model", {})}
    return parse_config({"output_dir": "runs/x", "model": model, "data": data, **sections})


@pytest.fixture
def file(tmp_path):
    """Writes pairs of these prompts to a file and gives its name."""

    def write(name, *texts):
        path = tmp_path / name
        rows = [{"prompt": text, "chosen": "a", "rejected": "b"} for text in texts]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def test_a_twentieth_of_the_prompts_is_held_out():
    kept, validation = held_out([[pair(f"q{n}") for n in range(2000)]], seed=0)
    assert len(validation) == round(HELD_OUT_SHARE * 2000)
    assert len(kept[0]) == 2000 - len(validation)


def test_of_few_prompts_a_fifth_is_held_out_and_at_most_as_many_as_of_a_thousand():
    for prompts_, expected in ((20, 4), (200, 40), (1000, 50)):
        _, validation = held_out([[pair(f"q{n}") for n in range(prompts_)]], seed=0)
        assert len(validation) == expected


def test_single_answers_to_one_prompt_validate_as_one_list():
    rows = [
        Preference(f"q{n}", (answer,), ((score,),)) for n in range(10) for answer, score in (("a", 1.0), ("b", 0.0))
    ]
    _, validation = held_out([rows], seed=0)
    assert {row.candidates for row in validation} == {("a", "b")}


def test_at_least_one_prompt_is_held_out():
    kept, validation = held_out([[pair("q"), pair("r")]], seed=0)
    assert (len(kept[0]), len(validation)) == (1, 1)


def test_of_many_prompts_a_fixed_number_is_held_out(monkeypatch):
    monkeypatch.setattr("ranker.training.rows.HELD_OUT_MOST", 3)
    _, validation = held_out([[pair(f"q{n}") for n in range(200)]], seed=0)
    assert len(validation) == 3


def test_all_rows_of_a_prompt_go_to_one_side_in_every_source():
    first = [pair(f"q{n % 20}", f"a{n}") for n in range(60)]
    second = [pair(f"q{n % 20}", f"c{n}") for n in range(40)]
    kept, validation = held_out([first, second], seed=0)
    assert not prompts(validation) & (prompts(kept[0]) | prompts(kept[1]))
    assert len(prompts(validation)) == 4
    assert len(validation) == 20
    assert len(kept[0]) + len(kept[1]) + len(validation) == 100


def test_sources_stay_apart():
    kept, _ = held_out([[pair(f"q{n}") for n in range(30)], [pair(f"r{n}") for n in range(30)]], seed=0)
    assert all(prompt.startswith("q") for prompt in prompts(kept[0]))
    assert all(prompt.startswith("r") for prompt in prompts(kept[1]))


def test_the_seed_decides_which_prompts_are_held_out():
    rows = [[pair(f"q{n}") for n in range(200)]]
    assert held_out(rows, 1) == held_out(rows, 1)
    assert held_out(rows, 1)[1] != held_out(rows, 2)[1]


def test_the_order_of_the_rows_does_not_decide_which_prompts_are_held_out():
    rows = [pair(f"q{n}") for n in range(100)]
    assert prompts(held_out([rows], 0)[1]) == prompts(held_out([rows[::-1]], 0)[1])


def test_validation_rows_hold_a_comparison():
    rows = [row for n in range(40) for row in (pair(f"q{n}"), single(f"q{n}"))]
    _, validation = held_out([rows], seed=0)
    assert {len(row.candidates) for row in validation} == {2}


def test_rows_of_one_prompt_are_held_out_by_their_answers():
    rows = [pair("q", f"answer {number}") for number in range(10)]
    kept, validation = held_out([rows], seed=0)
    assert len(kept[0]) == 8
    assert not {row.candidates for row in validation} & {row.candidates for row in kept[0]}


def test_one_row_cannot_be_held_out():
    with pytest.raises(ConfigError, match=r"data\.train has one distinct row, so none can be held out; set it"):
        held_out([[pair("q")]], seed=0)


def test_single_answers_are_held_out_whole_where_their_labels_are_learned():
    rows = [Preference("", (f"text {number}",), ((float(number),),)) for number in range(10)]
    kept, validation = held_out([rows], seed=0, single=True)
    assert (len(kept[0]), len(validation)) == (8, 2)
    with pytest.raises(ConfigError, match="hold no comparison"):
        held_out([rows], seed=0)


def test_held_out_rows_without_a_comparison_are_refused():
    with pytest.raises(ConfigError, match=r"hold no comparison .*; set data\.validation"):
        held_out([[single(f"q{n}") for n in range(40)]], seed=0)


def test_rows_without_validation_rows_are_split(file, caplog):
    training, validation, test = load(run([file("rows.jsonl", *(f"q{n}" for n in range(40)))]))
    assert (len(training), len(validation)) == (32, 8)
    assert test is validation
    assert "data.validation is not set: 8 rows of data.train are held out" in caplog.text


def test_named_rows_are_validation_and_test(file):
    data = {"validation": [file("validation.jsonl", "v")], "test": [file("test.jsonl", "t")]}
    training, validation, test = load(run([file("train.jsonl", "q", "r")], data=data))
    assert [sorted(prompts(rows)) for rows in (training, validation, test)] == [["q", "r"], ["v"], ["t"]]


def test_repeated_rows_are_left_out_where_it_is_asked_for(file, caplog):
    data = {"validation": [file("validation.jsonl", "v")], "deduplicate": "exact"}
    training, _, _ = load(run([file("a.jsonl", "q", "q"), file("b.jsonl", "q", "r")], data=data))
    assert [row.prompt for row in training] == ["q", "r"]
    assert "2 of 4 training rows are repeats (exact); left out" in caplog.text


def test_without_repeats_keeps_the_first_row_of_any_source():
    parts = without_repeats([[pair("q")], [pair("q"), pair("r")]], "exact", 0.8)
    assert [[row.prompt for row in part] for part in parts] == [["q"], ["r"]]


@pytest.mark.parametrize(("overlap", "count"), [("ignore", 2), ("warn", 2), ("drop", 1)])
def test_training_rows_whose_prompt_is_held_out_are_treated_as_asked(overlap, count, file):
    data = {"validation": [file("validation.jsonl", "q")], "train_eval_overlap": overlap}
    training, _, _ = load(run([file("train.jsonl", "q", "r")], data=data))
    assert len(training) == count


def test_an_overlap_is_an_error_where_it_is_asked_for(file):
    data = {"validation": [file("validation.jsonl", "q")], "train_eval_overlap": "raise"}
    with pytest.raises(DataError, match=r"1 of 2 training rows have a prompt that is also in the validation or test"):
        load(run([file("train.jsonl", "q", "r")], data=data))


def test_an_overlap_of_all_rows_leaves_nothing_to_train(file):
    data = {"validation": [file("validation.jsonl", "q")], "train_eval_overlap": "drop"}
    with pytest.raises(DataError, match="2 of 2 training rows"):
        load(run([file("train.jsonl", "q", "q")], data=data))


def test_labels_are_one_per_output_of_the_model():
    row = Preference("q", ("a", "b"), ((1.0, 0.0), (0.0, 1.0)), id="7", tasks=("x", "y"))
    with pytest.raises(ConfigError, match=r"row '7' has 2 labels \(x, y\) .* the model 1 outputs.*model\.num_labels"):
        check_labels(run(["rows.jsonl"]), [row])
    check_labels(run(["rows.jsonl"], model={"type": "set_encoder", "num_labels": 2}), [row])


def test_labels_keep_their_names():
    rows = [Preference("q", ("a",), ((1.0,),), tasks=(name,), id=name) for name in ("x", "y")]
    with pytest.raises(ConfigError, match=r"row 'y' has 1 labels \(y\)"):
        check_labels(run(["rows.jsonl"]), rows)


def test_labels_have_the_names_of_the_aspects():
    config = run(["rows.jsonl"], model={"type": "pointwise", "aspects": ["x", "y"]})
    check_labels(config, [Preference("q", ("a",), ((1.0, 0.0),), tasks=("x", "y"))])
    with pytest.raises(ConfigError, match=r"the model 2 outputs \(x, y\); set model\.aspects"):
        check_labels(config, [Preference("q", ("a",), ((1.0, 0.0),), tasks=("x", "z"))])


def test_a_prompt_of_messages_is_held_out_whole():
    parts = [pair((Message("user", f"q{n % 10}"),), f"a{n}") for n in range(30)]
    kept, validation = held_out([parts], seed=0)
    assert len(validation) == 6
    assert prompts(validation).isdisjoint(prompts(kept[0]))


def test_texts_without_a_prompt_are_not_held_out_together():
    rows = [Preference("", (f"text {number}", "b"), ((1.0,), (0.0,))) for number in range(200)] + [pair("q")]
    for seed in range(4):
        kept, validation = held_out([rows], seed=seed)
        assert (len(kept[0]), len(validation)) == (161, 40)
