import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ranker
from ranker.cli.main import CommandStoppedError, app
from ranker.errors import NOT_FIELDS, DataError, OutputError
from tests.conftest import ROOT

RUN = CliRunner()


def ranker_cli(*args, stdin=None):
    return subprocess.run(
        [sys.executable, "-m", "ranker", *map(str, args)], input=stdin, capture_output=True, text=True, cwd=ROOT
    )


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_comes_back_in_order_with_its_columns(model, tmp_path):
    out = tmp_path / "out.jsonl"
    done = ranker_cli("score", "--onnx", model, "--input", "data/validation.jsonl", "--output", out)
    assert done.returncode == 0, done.stderr
    source = lines(ROOT / "data" / "validation.jsonl")
    scored = lines(out)
    assert len(scored) == len(source)
    for before, after in zip(source, scored, strict=True):
        assert after["input_scores"] == before["scores"], "a column with a result's name is kept as input_*"
        assert {k: after[k] for k in before if k != "scores"} == {k: v for k, v in before.items() if k != "scores"}
        count = len(before["candidates"])
        assert len(after["scores"]) == len(after["ranks"]) == len(after["order"]) == len(after["truncated"]) == count
        assert after["error"] is None
        best = after["order"][0]
        assert after["ranks"][best] == 1
        assert after["scores"][best] == max(after["scores"])


def test_bad_rows_keep_their_place_and_say_why(model):
    rows = [
        '{"prompt": "p", "candidates": ["a", "b"]}',
        "{broken",
        '{"prompt": "p", "candidates": ["a", 3]}',
        '{"prompt": "p", "candidates": []}',
        '{"prompt": "\\ud800 p", "candidates": ["\\udfff", "b\\u0000"]}',
        '{"words": "nothing known"}',
        '{"prompt": "p", "candidates": ["alone"]}',
    ]
    done = ranker_cli("score", "--onnx", model, stdin="\n".join(rows) + "\n")
    assert done.returncode == 0
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["error"] is None for r in results] == [True, False, False, True, True, False, True]
    assert results[1]["input"] == "{broken\n"
    assert "stdin:3: field 'candidates[1]'" in results[2]["error"]
    assert results[2]["scores"] is None
    assert results[3]["scores"] == []
    assert "7 rows, 3 with an error; the first: stdin:2: " in done.stderr
    done = ranker_cli("score", "--onnx", model, "--fail-on-error-rate", "0.1", stdin="\n".join(rows) + "\n")
    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == 7


@pytest.mark.parametrize(("number", "expected"), [(15, CommandStoppedError), (None, ImportError)])
def test_an_extension_whose_import_was_interrupted_is_no_error_of_its_own(number, expected, monkeypatch):
    def load(*_, **__):
        raise ImportError("initialization failed")

    monkeypatch.setattr("ranker.signals._number", number)
    monkeypatch.setattr("ranker.api.files.score_file", load)
    result = RUN.invoke(app, ["score", "--model", "model.onnx"])
    assert type(result.exception) is expected
    assert number is None or result.exception.exit_code == 143


def test_the_summary_says_how_many_answers_were_read(pointwise, tmp_path):
    rows = [{"prompt": "p", "candidates": pair} for pair in (["a", "b"], ["b", "c"], ["c", "a"])]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    done = ranker_cli("score", "--onnx", pointwise, stdin=lines)
    assert "3 rows, 0 with an error; 3 of 6 answers read, the others are repeats" in done.stderr
    scores = [json.loads(line)["scores"] for line in done.stdout.splitlines()]
    assert scores[0][1] == scores[1][0]
    (tmp_path / "rows.jsonl").write_text(lines)
    done = ranker_cli("filter", tmp_path / "rows.jsonl", "--onnx", pointwise, "-o", tmp_path / "kept")
    assert "3 of 6 answers read, the others are repeats" in done.stderr
    assert "3 of 6 answers read, the others are repeats" in (tmp_path / "kept" / "summary.md").read_text()


def test_scoring_a_scored_file_loses_no_column(model, tmp_path):
    row = json.dumps({"prompt": "p", "candidates": ["a", "b"], "scores": [1, 0]})
    once = ranker_cli("score", "--onnx", model, stdin=row).stdout
    (twice,) = [json.loads(line) for line in ranker_cli("score", "--onnx", model, stdin=once).stdout.splitlines()]
    assert twice["input_scores"] == [1, 0]
    assert twice["input_input_scores"] == twice["scores"]


def test_misused_options_are_said(model):
    for args, message in (
        (["--device", "gpu"], "expected device auto, cpu, cuda, tensorrt, mps, xpu or cuda:1, got 'gpu'"),
        (["--column", "prompt:q"], "expected --column name=column"),
        (["--column", "promt=q"], "did you mean 'prompt'"),
        (["--option", "precison=bf16"], "expected name=value with an option of ranker.load; did you mean 'precision'"),
        (["--option", "device=cpu"], "--option device=cpu: it is --device"),
        (["--option", "passes_in_flight=0"], "expected passes_in_flight of at least 1, got 0"),
    ):
        done = ranker_cli("score", "--onnx", model, *args, stdin='{"prompt": "p", "candidates": []}')
        assert done.returncode == 2
        assert message in done.stderr
    assert ranker_cli("score", "--onnx", model, stdin="{bad").returncode == 3, "every row failed"


def test_one_order_is_for_models_that_read_ordered_pairs(model):
    row = '{"prompt": "p", "candidates": ["a", "b"]}'
    done = ranker_cli("score", "--onnx", model, "--no-average-orders", stdin=row)
    assert done.returncode == 2
    assert (
        "average_orders=False is for models that read ordered pairs; layout 'set_encoder' has no order" in done.stderr
    )


def test_best_of_n_and_comparisons_under_a_budget(model):
    rows = "\n".join(json.dumps({"prompt": "p", "candidates": [f"answer {i}" for i in range(n)]}) for n in (20, 3, 0))
    whole = ranker_cli("best-of-n", "--onnx", model, stdin=rows)
    played = ranker_cli("best-of-n", "--onnx", model, "--budget", "30", stdin=rows)
    ranked = ranker_cli("rank", "--onnx", model, "--schedule", "knockout", stdin=rows)
    stored = [[json.loads(line) for line in done.stdout.splitlines()] for done in (whole, played, ranked)]
    assert [row["best"] == row["candidates"][row["best_index"]] for row in stored[0][:2]] == [True, True]
    assert "expected at least one candidate" in stored[0][2]["error"]
    assert stored[1][0]["comparisons"] <= 30
    assert 0 < stored[1][1]["confidence"] <= 1
    assert (stored[2][0]["comparisons"], stored[2][0]["rounds"]) == (19, 5)
    assert sorted(stored[2][1]["ranked"]) == sorted(stored[2][1]["candidates"])
    small = ranker_cli("best-of-n", "--onnx", model, "--budget", "5", stdin=rows)
    assert "a budget of 5 comparisons is too small for 20 candidates" in small.stdout


def test_scores_against_a_reference(model):
    rows = '{"prompt": "p", "candidates": ["a", "b"], "reference": "c"}\n{"prompt": "p", "candidates": ["a"]}'
    good, bad = map(json.loads, ranker_cli("rank-with-ref", "--onnx", model, stdin=rows).stdout.splitlines())
    loaded = ranker.load(model)
    assert good["scores"] == pytest.approx([loaded.compare("p", a, "c") for a in ("a", "b")], abs=1e-5)
    assert good["scores"] == pytest.approx(loaded.rank_with_reference("p", ["a", "b"], "c").tolist(), abs=1e-5)
    assert "expected a text" in bad["error"]
    named = ranker_cli(
        "rank-with-ref", "--onnx", model, "--column", "reference=gold", stdin=rows.replace("reference", "gold")
    )
    assert json.loads(named.stdout.splitlines()[0])["scores"] == good["scores"]
    assert loaded.best_of_n("p", ["a", "b"]) in ("a", "b")
    assert loaded.best_of_n_batch(["p", "q"], [["a", "b"], ["c"]], budget=1)[1] == "c"


def test_a_model_that_is_asked_first(model):
    row = json.dumps({"prompt": "p", "candidates": ["a", "b b", "c c c", "d"]})
    args = ("rank", "--onnx", model, "--prefilter", model, "--keep", "2")
    (stored,) = map(json.loads, ranker_cli(*args, "--budget", "1", stdin=row).stdout.splitlines())
    (plain,) = map(json.loads, ranker_cli("rank", "--onnx", model, stdin=row).stdout.splitlines())
    assert stored["comparisons"] == 1
    assert set(stored["order"][:2]) == set(plain["order"][:2])
    assert stored["order"][2:] == plain["order"][2:]


def test_a_leaderboard_of_games(tmp_path):
    games = [{"model_a": "x", "model_b": "y", "winner": w, "id": i} for i, w in enumerate(["a", "a", "tie", "b", "a"])]
    (tmp_path / "games.jsonl").write_text("\n".join(map(json.dumps, games)))
    done = ranker_cli("leaderboard", tmp_path / "games.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stdout.index(" x ") < done.stdout.index(" y ")
    assert "(n=5)" in done.stdout
    (tmp_path / "games.jsonl").write_text('{"model_a": "x"}')
    assert ranker_cli("leaderboard", tmp_path / "games.jsonl").returncode == 3


def test_rank_and_compare(model):
    row = json.dumps({"prompt": "Sort: b, a", "candidates": ["a, b", "b, a", "c"]})
    (ranked,) = [json.loads(x) for x in ranker_cli("rank", "--onnx", model, stdin=row).stdout.splitlines()]
    assert ranked["ranked"] == [ranked["candidates"][i] for i in ranked["order"]]
    pair = json.dumps({"prompt": "p", "chosen": "x", "rejected": "y y"})
    (compared,) = [json.loads(x) for x in ranker_cli("compare", "--onnx", model, stdin=pair).stdout.splitlines()]
    assert compared["winner"] == int(compared["logit"] < 0)
    assert (compared["probability"] > 0.5) == (compared["logit"] > 0)
    (wrong,) = [json.loads(x) for x in ranker_cli("compare", "--onnx", model, stdin=row).stdout.splitlines()]
    assert "expected two candidates to compare, got 3" in wrong["error"]


def test_python_says_what_the_command_line_says(model):
    r = ranker.load(model)
    answers = ["a, b", "b, a", "c"]
    scores = r.score("Sort: b, a", answers)
    ranking = r.rank("Sort: b, a", answers)
    assert ranking.scores.tolist() == scores.tolist()
    assert r.compare("Sort: b, a", "a, b", "c") == -r.compare("Sort: b, a", "c", "a, b")
    batch = r.score_batch(["Sort: b, a", "x"], [answers, ["only"]])
    assert [len(s) for s in batch] == [3, 1]
    logits = r.compare_batch(["p", "q"], ["a", "b"], ["c", "d"])
    assert logits.shape == (2,)
    with pytest.raises(ranker.RankerError, match="one list of candidates per prompt"):
        r.score_batch(["p", "q"], [["a"]])
    with pytest.raises(ranker.RankerError, match="a list of candidates, got 'abc'"):
        r.score("p", "abc")
    with pytest.raises(ranker.RankerError, match="one a and one b per prompt"):
        r.compare_batch(["p"], "a", "b")
    with pytest.raises(ranker.RankerError, match="found no file or folder"):
        ranker.load("modle.onxx")


def test_prompts_and_candidates_may_be_messages(model):
    r = ranker.load(model)
    printed = r.score("Say hi", ["Hi!", "No."])
    chat = [{"role": "user", "content": "Say hi"}]
    answers = [[{"role": "assistant", "content": text}] for text in ("Hi!", "No.")]
    for prompt in (chat, [ranker.Message("user", "Say hi")], tuple([ranker.Message("user", "Say hi")])):
        assert r.score(prompt, ["Hi!", "No."]).tolist() == printed.tolist()
    assert r.score(chat, answers).tolist() == printed.tolist()
    assert r.compare(chat, *answers) == pytest.approx(printed[0] - printed[1], abs=1e-6)
    assert r.rank_batch([chat, "Say hi"], [answers, answers])[0].order.tolist() == r.rank(chat, answers).order.tolist()
    with pytest.raises(ranker.ConfigError, match=r"prompt\[0\]: expected a message with role"):
        r.score([{"role": "robot", "content": "x"}], ["a"])
    with pytest.raises(ranker.ConfigError, match="expected a list of prompts, got one text"):
        r.score_batch("p", ["a"])
    with pytest.raises(ranker.ConfigError, match=r"candidates\[1\]: expected text, got int"):
        r.score("p", ["a", 3])


def test_a_probability_is_the_logit_at_the_stored_temperature(model):
    r = ranker.load(model)
    logit = r.compare("p", "a", "b b")
    chance = r.compare("p", "a", "b b", probability=True)
    assert chance == pytest.approx(1 / (1 + math.exp(-logit / r.calibration.temperature)), abs=1e-6)
    assert r.compare_batch(["p"], ["a"], ["b b"], probability=True).tolist() == pytest.approx([chance])


def test_a_loaded_model_says_what_it_is(model, capfd):
    r = ranker.load(model, device="cpu")
    assert repr(r).startswith(
        f"Ranker(model={str(model)!r}, layout='set_encoder', precision='fp32', device='cpu', max_length=128"
    )
    assert r.info.scores_are_relative
    checkpoint = ranker.load(model.parent / "checkpoint", device="cpu")
    facts = {"parallel_passes": 1, "providers": (), "graph_sha256": ""}
    facts |= {name: getattr(checkpoint.info, name) for name in ("engine", "max_tokens_per_forward")}
    assert checkpoint.info == replace(r.info, **facts)
    assert checkpoint.info.engine.startswith("torch ")
    assert r.info.engine.startswith("onnxruntime ")
    r.score_batch(["p"] * 3, [["a", "b"]] * 3, progress=True)
    assert "3/3" in capfd.readouterr().err


def test_the_public_names_are_listed_and_importable():
    assert dir(ranker) == sorted(ranker.__all__)
    for name in dir(ranker):
        assert getattr(ranker, name).__doc__
    assert {"load", "Ranker", "BatchScorer", "Message", "Group", "RankerError", "ConfigError"} <= set(dir(ranker))


def test_checkpoint_and_file_agree(model):
    group = ("Sort: b, a", ["a, b", "b, a", "c"])
    onnx, torch = ranker.load(model), ranker.load(model.parent / "checkpoint", device="cpu")
    assert onnx.score(*group) == pytest.approx(torch.score(*group), abs=1e-5)


def test_errors_are_one_line_with_an_exit_code(model, tmp_path):
    done = ranker_cli("score", "--onnx", tmp_path / "none.onnx")
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("\n") == 1
    assert "found no file" in done.stderr
    assert "Traceback" not in done.stderr
    assert ranker_cli("train", "pairrm", "training.num_train_epoch=1").returncode == 2
    assert ranker_cli("eval", model, "--data", "nowhere.jsonl").returncode == 3


def test_cuda_asked_for_and_absent_is_said(model):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    done = ranker_cli("score", "--onnx", model, "--device", "cuda", stdin="{}")
    assert done.returncode == 2
    assert "CUDA was asked for" in done.stderr
    assert "ranker-toolkit[gpu]" in done.stderr


def test_print_config_and_dry_run(tiny_backbone):
    shown = RUN.invoke(app, ["train", "pairrm", "--print-config", "training.num_train_epochs=3"])
    assert shown.exit_code == 0
    assert "num_train_epochs: 3.0" in shown.output
    dry = RUN.invoke(
        app,
        [
            "train",
            "pairrm",
            "--dry-run",
            f"model.name_or_path={tiny_backbone}",
            "data.max_train_samples=5",
            "model.max_length=40",
            "model.prompt_reserve=8",
        ],
    )
    assert dry.exit_code == 0, dry.output
    assert dry.output.count("[CLS]") >= 3
    assert "steps at a learning rate of" in dry.output
    assert "cut: candidates none; prompt yes" in dry.output


@pytest.mark.parametrize(
    ("loss", "meaning"),
    [
        ("bradley_terry", "one raw logit; a difference of two is the log-odds of preference"),
        ("mse", "one number on the scale of the labels"),
        ("token_pairwise", "one raw logit, higher is better"),
    ],
)
def test_a_dry_run_says_what_a_score_means_under_the_loss(tiny_backbone, loss, meaning):
    name, length = f"model.name_or_path={tiny_backbone}", "model.max_length=40"
    few = ("data.max_train_samples=5", length, "model.prompt_reserve=8", f"training.loss={loss}")
    dry = RUN.invoke(app, ["train", "encoder-regress", "--dry-run", name, *few])
    assert f"loss: {loss}; a score is {meaning}\n" in dry.output


@pytest.mark.full
def test_the_export_verb_says_what_was_compared(model, tmp_path):
    done = RUN.invoke(app, ["export", str(model.parent / "checkpoint"), "-o", str(tmp_path / "m.onnx")])
    assert done.exit_code == 0, done.output
    assert "Kendall tau-b" in done.stdout
    assert "the built-in sample" in done.stdout
    assert "accuracy, torch" not in done.stdout, "of rows that are not the user's it says nothing"


def test_the_eval_verb_prints_and_writes_the_figures(model, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(Path("data/validation.jsonl").read_text().splitlines(keepends=True)[:40]))
    done = ranker_cli("eval", model, "--data", rows, "-o", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "longer wins" in done.stdout
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["models"][str(model)]["accuracy"]["n"] == 370


def likely_pairs(model, lines):
    """Pairs that are labelled as often as ``model`` says at a temperature of 2."""
    loaded = ranker.load(model)
    for number in range(200):
        first, other = (
            f"{line['candidates'][number % 4]} {number}" for line in (lines[number % 11], lines[number % 7])
        )
        label = 1 / (1 + math.exp(-loaded.compare(f"p{number}", first, other) / 2))
        yield {"prompt": f"p{number}", "chosen": first, "rejected": other, "label": label}


def test_a_calibration_that_does_not_hold_is_refused_and_not_written(model, tmp_path):
    copy = shutil.copy(model, tmp_path / "m.onnx")
    loaded, rows = ranker.load(copy), []
    for k in range(60):  # the model is right in all of them
        chosen, rejected = sorted(
            ("a saw", "pear pear"), key=lambda answer, k=k: -loaded.compare(f"p{k}", answer, "pear pear")
        )
        rows.append({"prompt": f"p{k}", "chosen": chosen, "rejected": rejected})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    before = (tmp_path / "m.onnx").read_bytes()
    done = ranker_cli("eval", copy, "--data", tmp_path / "rows.jsonl", "--calibrate")
    assert done.returncode == 3, done.stderr
    assert "no temperature can be stored" in done.stderr
    assert "nothing was written" in done.stderr
    assert (tmp_path / "m.onnx").read_bytes() == before


@pytest.mark.full
def test_export_prints_the_accuracy_of_the_users_rows(model, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(Path("data/validation.jsonl").read_text().splitlines()[:8]))
    done = ranker_cli("export", model.parent / "checkpoint", "-o", tmp_path / "m.onnx", "--data", rows)
    assert "accuracy, torch / exported" in done.stdout
    assert "the built-in sample" not in done.stdout


def test_nothing_is_written_into_the_home_folder_by_telemetry(model, tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | {"HOME": str(tmp_path)}
    code = f"import ranker; print(ranker.load({str(model)!r}).score('p', ['a', 'b']))"
    for command in ([sys.executable, "-c", code], [sys.executable, "-m", "ranker", "score", "--onnx", str(model)]):
        done = subprocess.run(
            command, env=env, input='{"prompt": "p", "candidates": ["a", "b"]}\n', capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert not [path for path in tmp_path.rglob("*") if "onnxruntime" in str(path)]


@pytest.mark.full
def test_eval_compares_models_and_refuses_a_regression(model, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    lines = [json.loads(line) for line in Path("data/validation.jsonl").read_text().splitlines()[:12]]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, [*lines, *likely_pairs(model, lines)])))
    first, other = (shutil.copy(model, tmp_path / name) for name in ("first.onnx", "other.onnx"))
    rows = ("--data", tmp_path / "rows.jsonl")
    done = ranker_cli("eval", first, other, *rows, "-o", tmp_path / "first", "--calibrate")
    assert done.returncode == 0, done.stderr
    assert "difference in accuracy" in done.stdout
    assert {path.name for path in (tmp_path / "first").iterdir()} == {
        "examples.parquet",
        "metrics.json",
        "report.html",
        "report.md",
    }
    stored = ranker.load(other).calibration
    assert stored.n > 20
    assert stored.std > 0
    assert stored.temperature == pytest.approx(2.0, rel=0.5)
    assert "calibration written to" in done.stdout
    assert stored.data == str(tmp_path / "rows.jsonl")
    pair = '{"prompt": "p", "candidates": ["x", "y y"]}'
    (compared,) = map(json.loads, ranker_cli("compare", "--onnx", other, stdin=pair).stdout.splitlines())
    expected = 1 / (1 + math.exp(-compared["logit"] / stored.temperature))
    assert compared["probability"] == pytest.approx(expected, abs=1e-5)
    baseline = ("--baseline", tmp_path / "first" / "metrics.json")
    assert ranker_cli("eval", model, *rows, *baseline).returncode == 0
    examples = tmp_path / "first" / "examples.parquet"
    table = parquet.read_table(examples)
    perfect = pa.array([10.0 * (t - 0.5) for t in table["target"].to_pylist()])
    parquet.write_table(table.set_column(table.schema.get_field_index("logit"), "logit", perfect), examples)
    worse = ranker_cli("eval", model, *rows, *baseline)
    assert worse.returncode == 5
    assert "is significantly worse than" in worse.stderr
    refused = ranker_cli("eval", model.parent / "checkpoint", *rows, "--calibrate")
    assert refused.returncode == 2
    assert "export the checkpoint first" in refused.stderr


def test_eval_on_a_suite(model, tmp_path):
    rows = [{"prompt": "q", "response 1": "a b", "response 2": "c", "label": i % 2, "scenario": "x"} for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = f"auto-j={tmp_path / 'rows.jsonl'}"
    done = ranker_cli("eval", model, "--data", data, "-o", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["models"][str(model)]["agreement"]["value"] == 0.5
    assert "agreement" in done.stdout
    assert ranker_cli("eval", model, "--data", "auto-j").returncode == 3


@pytest.mark.parametrize("args", [["--help"], ["score", "--help"]])
def test_help_needs_no_torch(args):
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['ranker', *{args!r}]\n"
        "try:\n    runpy.run_module('ranker', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'onnxruntime', 'pyarrow', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_scoring_needs_no_torch(model):
    code = (
        "import sys, ranker\n"
        f"ranker.load({str(model)!r}).rank('p', ['a', 'b'])\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ["score", "--model", "MODEL", "-i", "ROWS", "-o", "FOLDER"],
            "expected the name of a file to write, got a folder",
        ),
        (["rank", "--model", "MODEL", "-i", "ROWS", "-o", "FILE/out.jsonl"], "cannot be written"),
        (["score", "--model", "MODEL", "-i", "ROWS", "-o", "/dev/full"], "No space left on device"),
        (["filter", "ROWS", "--model", "MODEL", "-o", "FILE"], "expected a folder to write, got a file"),
        (["eval", "MODEL", "--data", "ROWS", "-o", "FILE"], "expected a folder to write, got a file"),
        (["export", "MODEL", "-o", "FOLDER"], "expected the name of a file to write, got a folder"),
        (["export", "MODEL", "-o", "FILE/m.onnx"], "expected a folder to write, got a file"),
        (["sample", "FILE"], "expected a folder to write, got a file"),
        (
            ["train", "pairrm", "--offline", "data.train=ROWS", "output_dir=FILE"],
            "expected a folder to write, got a file",
        ),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else "",
)
def test_an_output_that_cannot_be_written_is_one_line_before_the_work(command, message, model, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    places = {"MODEL": model, "ROWS": rows, "FOLDER": tmp_path / "folder", "FILE": tmp_path / "file"}
    for name, path in places.items():
        command = [part.replace(name, str(path)) for part in command]
    error = RUN.invoke(app, command).exception
    assert isinstance(error, OutputError)
    assert error.exit_code == 1
    assert message in str(error)
    assert "\n" not in str(error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "rows.jsonl"]


def test_a_full_standard_output_is_one_line(pointwise):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ranker", "score", "--model", pointwise],
            input='{"prompt": "p", "candidates": ["a"]}\n',
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["ranker: error: -: cannot be written (No space left on device)"]


@pytest.mark.parametrize(
    "command",
    [
        ["score", "--model", "MODEL", "-i", "WRONG"],
        ["compare", "--model", "MODEL", "-i", "WRONG"],
        ["rank-with-ref", "--model", "MODEL", "-i", "WRONG"],
        ["filter", "WRONG", "--model", "MODEL", "-o", "OUT"],
        ["eval", "MODEL", "--data", "WRONG"],
        ["leaderboard", "WRONG"],
        ["train", "pairrm", "--offline", "data.train=WRONG", "output_dir=OUT", "--dry-run"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize(
    ("content", "name"),
    [
        ('{"prompt": "p \\ud83d", "chosen": null, "rejected": "b"}', "rows.jsonl"),
        ('{"prompt": "p", "candidates": ["a", "b"], "scores": [1' + "0" * 400 + ', 1], "label": "x"}', "rows.jsonl"),
        ("not json", "rows.jsonl"),
        ("a,a\n1,2\n", "rows.csv"),
        ("[1, 2", "rows.json"),
    ],
    ids=["null", "huge", "text", "names", "cut"],
)
def test_a_bad_file_is_one_line_that_names_it(command, content, name, model, tmp_path):
    (tmp_path / name).write_text(content)
    places = {"MODEL": model, "WRONG": tmp_path / name, "OUT": tmp_path / "out"}
    for word, path in places.items():
        command = [part.replace(word, str(path)) for part in command]
    result = RUN.invoke(app, command)
    error = result.exception
    if error is None:  # scores need no labels
        assert "huge" in os.environ["PYTEST_CURRENT_TEST"]
        return
    assert isinstance(error, DataError), error
    assert name in str(error)
    assert "field '" in str(error) or error.field in NOT_FIELDS
    assert "\n" not in str(error)
