"""Models evaluated together: what the report says, and the files with which later ones are compared."""

import json
import sys

import numpy as np
import pyarrow.parquet as parquet
import pytest

from ranker.errors import ConfigError, DataError, MissingExtraError
from ranker.evaluation.evaluation_report import differences, evaluate_models
from ranker.evaluation.report import writer
from ranker.records import Preference
from tests.evaluation.test_run import Fixed


class Lengths(Fixed):
    """Scores by the number of characters times ``weight``."""

    def __init__(self, weight):
        super().__init__(lambda _, candidate: weight * len(candidate))

    def compare(self, pairs):
        return np.array([r.scores[0] - r.scores[1] for r in self.score(pairs)], np.float32)


ROWS = [Preference(f"p{i}", ("longer", "short"), ((1.0,), (0.0,)), label=1.0, id=f"row-{i}") for i in range(30)]


@pytest.fixture(scope="module")
def report():
    return evaluate_models({"good": Lengths(1.0), "bad": Lengths(-1.0)}, ROWS, data="rows.jsonl")


def test_models_are_found_by_name(report):
    assert [*report] == ["good", "bad"]
    assert len(report) == 2
    assert report["good"].accuracy.value == 1
    assert report["bad"].robustness["empty"].wins.value == 1
    with pytest.raises(ConfigError, match="no model 'goood' in this report; did you mean 'good'"):
        report["goood"]


def test_accuracy_is_of_the_only_model_and_names_several(report):
    assert evaluate_models({"good": Lengths(1.0)}, ROWS).accuracy.value == 1
    with pytest.raises(ConfigError, match="expected a report of one model, got good, bad"):
        assert report.accuracy


def test_other_models_are_compared_with_the_first(report):
    difference = report.differences["good", "bad"]
    assert difference.difference.value == -1
    assert difference.worse
    assert differences({"good": report.evaluations["good"]}) == {}


def test_the_text_holds_the_main_numbers_and_the_differences(report):
    text = str(report)
    assert text.startswith("good on rows.jsonl\n")
    assert "\nbad on rows.jsonl\n" in text
    assert "difference in accuracy\n  bad - good  -1.000" in text
    assert "on " not in str(evaluate_models({"m": Lengths(1.0)}, ROWS)).splitlines()[0]
    assert report._repr_html_().startswith("<div class=scroll><table>")


def test_a_data_frame_has_the_rows_of_the_examples_file_and_their_texts(report, tmp_path):
    report.save(tmp_path)
    frame = report.to_pandas()
    table = parquet.read_table(tmp_path / writer.EXAMPLES)
    assert [*frame.columns] == [*table.column_names, "prompt", "left_text", "right_text", "credit"]
    assert len(frame) == table.num_rows == 60
    assert set(frame["model"]) == {"good", "bad"}


def test_a_data_frame_without_pandas_names_the_extra(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"ranker-toolkit\[train\]"):
        report.to_pandas()


def test_saved_files_are_a_baseline_of_the_next_evaluation(report, tmp_path):
    page = report.save(tmp_path / "first")
    assert page == tmp_path / "first" / "report.html"
    assert page.is_file()
    metrics = tmp_path / "first" / "metrics.json"
    saved = json.loads(metrics.read_text())
    assert saved["data"] == ["rows.jsonl"]
    assert [*saved["compared"]] == ["bad - good"]
    later = evaluate_models({"later": Lengths(-1.0), "same": Lengths(1.0)}, ROWS, baseline=metrics)
    assert [*later.differences] == [(f"good (baseline {metrics})", "later"), ("later", "same")]
    assert next(iter(later.differences.values())).worse


def test_a_missing_baseline_is_an_error_before_the_first_score(tmp_path):
    class Unused:
        pass

    with pytest.raises(DataError, match="expected an existing metrics.json, found none"):
        evaluate_models({"m": Unused()}, ROWS, baseline=tmp_path / "metrics.json")
    with pytest.raises(ConfigError, match="expected at least one model"):
        evaluate_models({}, ROWS)
