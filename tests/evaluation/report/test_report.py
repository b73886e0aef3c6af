"""What an evaluation leaves behind: files that say the same as the numbers they were made from."""

import json
import re
from dataclasses import replace

import numpy as np
import pyarrow.parquet as parquet
import pytest

from ranker.errors import DataError
from ranker.evaluation.evaluate import evaluate
from ranker.evaluation.report import page, writer
from ranker.evaluation.report.charts import charts, short_names
from ranker.evaluation.report.tables import best_baseline, compared, headline
from ranker.evaluation.robustness import SAME, WORSE, robustness
from ranker.evaluation.statistics.paired import paired
from ranker.records import Preference
from ranker.scoring.protocol import failed
from tests.evaluation.test_run import Fixed
from tests.support.selection import cases

ATTACK = "<script>alert('x')</script>"


def rows(count=40):
    rng = np.random.default_rng(0)
    return [
        Preference(
            f"prompt {ATTACK}",
            tuple("x" * int(n) + ATTACK for n in rng.integers(1, 60, 4)),
            tuple((float(s),) for s in rng.permutation(4)),
            id=f"row-{i}",
            subset="ab"[i % 2],
            kinds=("good", "bad", "good", "bad"),
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def evaluations():
    data = rows()
    first = evaluate(Fixed(lambda _, c: len(c) / 20), data)
    first = replace(first, report=replace(first.report, robustness=robustness(Comparing(), data)))
    return {"first": first, "sec|ond": evaluate(Fixed(lambda _, c: -len(c) / 20), data)}


class Comparing:
    """Likes long answers, and ones that say that they are good."""

    def compare(self, pairs):
        scores = [[len(c) + 1000 * ("better than all others" in c) for c in p.candidates] for p in pairs]
        return np.array([a - b for a, b in scores], np.float32)


def test_the_page_needs_nothing_else_and_no_text_becomes_markup(evaluations):
    text = page.html("a & b", evaluations, [("sec|ond - first", "0.1")])
    assert text.startswith("<!doctype html>")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "a &amp; b" in text
    assert not re.search(r"""(src|href)=["']?(https?:|//|file:)""", text)
    drawn = ["Margins", "Certain decisions", "Calibration", "Length", "Best of n", "Subsets", "Edited answers"]
    assert [*charts(evaluations)] == drawn, "one chart for all models"
    assert [*charts({"first": evaluations["first"]})] == [*drawn[:-1], "Kinds", drawn[-1]]
    assert text.count("<svg") == len(drawn)
    sizes = re.findall(r'<svg [^>]*viewBox="([^"]*)"', text)
    assert len(set(sizes)) == 1, "one size for all charts"
    assert text.count("<details") == 2, "one error of each prompt"


def test_worst_errors_are_the_most_certain_ones(evaluations):
    result = page.worst(evaluations["first"])
    leads = [lead for *_, lead in result]
    assert leads == sorted(leads, reverse=True)
    for preference, better, other, lead in result:
        assert preference.scores[better] > preference.scores[other]
        lengths = [len(preference.candidates[i]) / 20 for i in (better, other)]
        assert lead == pytest.approx(lengths[1] - lengths[0], rel=1e-5)
    assert len({preference.prompt for preference, *_ in result}) == len(result)


def test_markdown_has_a_column_per_model(evaluations):
    lines = page.markdown("title", evaluations, [("x", "y")]).splitlines()
    assert lines[2] == "## Accuracy"
    assert "| | first | sec\\|ond |" in lines
    accuracy = next(line for line in lines if line.startswith("| accuracy"))
    assert accuracy.count("(n=240)") == 2
    assert lines[-1] == "| x | y |"


def test_a_headline_says_everything_with_its_n(evaluations):
    result = dict(headline(evaluations["first"].report))
    for name in ("accuracy", "log-loss (nats)", "Kendall tau-b per prompt", "calibration error", "best of 4: label"):
        assert "(n=" in result[name]
        assert "nan" not in result[name], "of one prompt there is no interval"
    assert result["edited to empty: wins"].startswith("0.000 ")


def test_a_page_begins_with_what_the_models_reach_beside_the_best_rule(evaluations):
    text = page.html("title", evaluations, [])
    report = evaluations["first"].report
    sentence = f"<b>first.</b> The model prefers the right answer in {report.accuracy.value:.1%} "
    assert sentence in text
    name, best = best_baseline(report)
    assert f"best simple baseline ({name}) reaches {best.value:.1%}" in text
    assert best.value == max(b.accuracy.value for name, b in report.baselines.items() if name != "random")


def test_figures_that_were_measured_on_nothing_are_left_out():
    report = evaluate(Fixed(lambda _, c: len(c)), [Preference("p", ("a", "bb"), ((1.0,), (0.0,)))]).report
    names = {name for name, _ in headline(report)}
    assert report.cyclic_triads.n == 0
    assert "cyclic triads" not in names
    assert not any("nan" in text for _, text in headline(report))
    assert not any("swapped" in name or "reverse" in name for name in names), "places make no difference"


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["runs/a/model.onnx", "runs/b/model.onnx"], ["a", "b"]),
        (["old", "new"], ["old", "new"]),
        (["/x/y/run/checkpoint"], ["run/checkpoint"]),
        (["a/b", "a/b/c"], ["b", "b/c"]),
        (["m.onnx", "m.int8.onnx"], ["m.onnx", "m.int8.onnx"]),
        (["x/x/x", "x/x"], ["x/x", "x"]),
    ],
)
def test_models_have_short_names_in_charts(names, short):
    assert short_names(names) == short


def write(evaluations, folder):
    writer.write_examples(evaluations, folder / writer.EXAMPLES)
    reports = {name: e.report.to_dict() for name, e in evaluations.items()}
    writer.write_report({"schema_version": 2, "models": reports}, folder / writer.METRICS)
    return folder / writer.METRICS


def test_a_baseline_is_known_by_its_texts_wherever_they_stand(evaluations, tmp_path, caplog):
    metrics = write(evaluations, tmp_path)
    first, second = evaluations.values()
    name, result = writer.baseline(metrics, second)
    assert name == "first"
    for field in ("logits", "targets", "groups", "indices"):
        np.testing.assert_array_equal(getattr(result, field), getattr(first.comparisons, field))
    difference = paired(result, second.comparisons)
    accuracies = [e.report.accuracy.value for e in evaluations.values()]
    assert difference.difference.value == pytest.approx(accuracies[1] - accuracies[0])
    assert ("significantly worse" in compared(difference, "first", "second")) == difference.worse
    assert not caplog.text
    turned = evaluate(Fixed(lambda _, c: -len(c) / 20), [*rows()[::-1][:30], *new_rows()])
    _, result = writer.baseline(metrics, turned)
    assert "180 of 186 comparisons are in the baseline" in caplog.text
    assert paired(result, turned.comparisons).difference.n == 180
    with pytest.raises(DataError, match="expected comparisons of these rows, got none"):
        writer.baseline(metrics, evaluate(Fixed(lambda _, c: len(c)), new_rows()))


def test_who_alone_was_right_is_said_of_the_right_model(tmp_path):
    """A is right in three comparisons in which B is not, B in one."""
    from ranker.evaluation.statistics.paired import paired as compare

    rows = [Preference(f"p{k}", ("good", f"bad {k}"), ((1.0,), (0.0,)), label=1.0) for k in range(10)]
    a, b = (
        evaluate(Fixed(lambda _, c, wrong=wrong: float(c in wrong) or 0.5 * (c == "good")), rows)
        for wrong in ({"bad 9"}, {"bad 1", "bad 2", "bad 3"})
    )
    text = compared(compare(a.comparisons, b.comparisons), "A", "B")
    assert "only A right: 3, only B right: 1" in text
    assert text.startswith("-0.200")


def new_rows():
    return [Preference("new", ("a", "bb", "ccc", "dddd"), tuple((float(i),) for i in range(4)), id="new")]


def test_examples_are_one_row_per_model_and_comparison(evaluations, tmp_path):
    write(evaluations, tmp_path)
    table = parquet.read_table(tmp_path / writer.EXAMPLES)
    assert table.num_rows == 480
    assert set(table["id"].to_pylist()) == {f"row-{i}" for i in range(40)}
    assert len(set(table["key"].to_pylist())) > 220, "rows of equal texts are one"


@pytest.mark.parametrize(
    "odd",
    cases(
        [
            Preference("p\ud800", ("a\ud800", "bb", "c"), ((3.0,), (1.0,), (2.0,)), id="\ud800", subset="$\\bad0$"),
            Preference("p", ("a", "bb", "c"), ((3.0,), (float("nan"),), (2.0,))),
            Preference("p", ("a", "bb"), ((1.0,), (0.0,)), label=0.5),
            Preference("p", ("a", "bb", "c"), ((1.0, 2.0), (0.0, 1.0), (0.5, float("nan"))), tasks=("x", "y")),
        ],
        lambda row: row.subset != "",
    ),
)
def test_odd_rows_are_reported_like_all_others(odd, tmp_path):
    plain = Preference(
        "q", ("x", "yy", "zzz"), ((1.0,), (2.0,), (3.0,)), tasks=("x",), subset="$a", kinds=("$", "_", "^")
    )
    broken = Fixed(lambda _, c: float("nan"))
    broken.score = lambda groups, *, preserve_order=False: [failed(g, "no") for g in groups]
    for data in ([odd], [odd, plain], [plain, odd]):
        result = {"good": evaluate(Fixed(lambda _, c: len(c)), data), "bad": evaluate(broken, data)}
        writer.write(tmp_path, "title \ud800", result, [], {"data": ["d"]})
        assert json.loads((tmp_path / writer.METRICS).read_text())["models"]["bad"]["accuracy"]["n"] == 0


def test_a_baseline_that_cannot_be_used_says_what_is_missing(evaluations, tmp_path):
    path, mine = tmp_path / writer.METRICS, evaluations["first"]
    with pytest.raises(DataError, match="expected a metrics.json of ranker eval"):
        writer.baseline(path, mine)
    path.write_text(json.dumps({"schema_version": 1}))
    with pytest.raises(DataError, match="expected 2; evaluate the baseline again"):
        writer.baseline(path, mine)
    path.write_text(json.dumps({"schema_version": 2, "models": {"m": {}}}))
    with pytest.raises(DataError, match="expected the comparisons beside metrics.json"):
        writer.baseline(path, mine)


def test_the_preferred_answer_is_the_best_by_the_labels_that_are_known():
    nan = float("nan")
    seen = []

    class Seen(Comparing):
        def compare(self, pairs):
            seen.extend(p.candidates[1] for p in pairs)
            return super().compare(pairs)

    robustness(Seen(), [Preference("p", ("a", "b", "c"), ((1.0, nan), (nan, nan), (2.0, nan)))])
    assert set(seen) == {"c"}
    assert robustness(Comparing(), [Preference("p", ("a", "b"), ((nan,), (nan,)))])["empty"].wins.n == 0


def test_aspects_are_told_apart_by_name():
    first = Preference("p", ("a", "bb", "ccc"), ((1.0, 9.0), (2.0, 8.0), (3.0, 7.0)), tasks=("x", "y"))
    second = Preference("p", ("a", "bb", "ccc"), ((9.0,), (8.0,), (7.0,)), tasks=("y",))
    aspects = evaluate(Fixed(lambda _, c: len(c)), [first, second]).report.aspects
    assert aspects["x"].tau_b.value == pytest.approx(1)
    assert aspects["y"].tau_b.value == pytest.approx(-1)
    assert (aspects["x"].tau_b.n, aspects["y"].tau_b.n) == (1, 2)


def test_kinds_follow_the_target_of_all_aspects():
    nan = float("nan")
    row = Preference("p", ("a", "bb"), ((nan, 3.0), (1.0, 1.0)), tasks=("x", "y"), kinds=("good", "bad"))
    assert [*evaluate(Fixed(lambda _, c: len(c)), [row]).report.kinds] == ["good > bad"]


def test_edits_of_the_preferred_answer_are_compared_with_it():
    effects = robustness(Comparing(), rows(10))
    assert set(effects) == {*WORSE, *SAME}
    assert effects["empty"].wins.value == 0
    assert effects["twice"].wins.value == 1
    assert effects["praise of itself"].shift.value > 1000
    assert effects["empty"].wins.n == 10
    best = rows(1)[0]
    texts = []

    class Seen(Comparing):
        def compare(self, pairs):
            texts.extend(p.candidates[1] for p in pairs)
            return super().compare(pairs)

    robustness(Seen(), [best])
    assert set(texts) == {best.candidates[int(np.argmax([s[0] for s in best.scores]))]}
