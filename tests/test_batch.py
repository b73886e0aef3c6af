"""The one callable: rows and order kept, nothing lost, no model in the pickle."""

import pickle

import numpy as np
import pytest

import ranker
from ranker.batch_scorer import RESULTS, BatchScorer
from ranker.errors import ConfigError, ModelFileError

BATCH = {
    "prompt": ["p", "q", "r", "s"],
    "candidates": [["a", "b b"], ["c"], [], ["d", None]],
    "kept": [1, 2, 3, 4],
}


def test_rows_come_back_in_order_with_their_columns(model):
    scorer = BatchScorer(model)
    result = scorer(BATCH)
    assert list(result) == [*BATCH, *("ranker_" + name for name in RESULTS)]
    assert result["kept"] == [1, 2, 3, 4]
    expected = ranker.load(model).score("p", ["a", "b b"])
    np.testing.assert_array_equal(np.array(result["ranker_scores"][0], np.float32), expected)
    assert result["ranker_margin"][0] == pytest.approx(abs(float(expected[0] - expected[1])), abs=1e-6)
    assert result["ranker_margin"][1] is None
    assert result["ranker_scores"][2] == []
    assert result["ranker_scores"][3] is None
    assert "row 3 of the batch: field 'candidates[1]': expected text, got null" in result["ranker_error"][3]
    alone = scorer({name: values[:1] for name, values in BATCH.items()})
    assert alone["ranker_scores"][0] == pytest.approx(result["ranker_scores"][0], abs=1e-5)


def test_arrays_of_numpy_and_arrow_are_read_and_never_written_to(model):
    import pyarrow as pa

    candidates = np.empty(2, object)
    candidates[:] = [np.array(["a", "b b"], object), np.array(["c"], object)]
    candidates.setflags(write=False)
    of_numpy = BatchScorer(model)({"prompt": np.array(["p", "q"]), "candidates": candidates})
    table = pa.table({name: values[:2] for name, values in BATCH.items()})
    of_arrow = BatchScorer(model)(dict(zip(table.column_names, table.columns, strict=True)))
    assert of_numpy["ranker_scores"] == of_arrow["ranker_scores"]


def test_a_pickle_holds_settings_and_the_file_must_be_the_same(model, tmp_path):
    copy = tmp_path / "model.onnx"
    copy.write_bytes(model.read_bytes())
    scorer = BatchScorer(copy, columns={"candidates": "answers"}, threads=1)
    batch = {"prompt": ["p"], "answers": [["a", "b"]]}
    expected = scorer(batch)
    text = pickle.dumps(scorer)
    assert len(text) < 1000
    assert pickle.dumps(pickle.loads(text)) == text
    assert pickle.loads(text)(batch) == expected
    data = bytearray(copy.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(bytes(data))
    with pytest.raises(ModelFileError, match="not the file that this scorer was made with|differs from its recorded"):
        pickle.loads(text)


def test_misuse_is_said_before_a_model_is_loaded(model, tmp_path):
    with pytest.raises(ConfigError, match="unknown column name 'propmt'"):
        BatchScorer(model, columns={"propmt": "x"})
    with pytest.raises(ConfigError, match="expected a prefix"):
        BatchScorer(model, prefix="")
    with pytest.raises(ModelFileError, match="found no file"):
        BatchScorer(tmp_path / "none.onnx")
    scorer = BatchScorer(model)
    with pytest.raises(ConfigError, match="columns of one length, got 1, 2"):
        scorer({"prompt": ["a"], "candidates": [["b"], ["c"]]})
    with pytest.raises(ConfigError, match="a column 'ranker_scores' already"):
        scorer({"prompt": ["a"], "candidates": [["b"]], "ranker_scores": [1]})
    assert scorer._scorer is None


def test_an_arrow_table_comes_back_as_one(model):
    import pyarrow as pa

    table = pa.table({name: values[:3] for name, values in BATCH.items()})
    scored = BatchScorer(model)(table)
    assert isinstance(scored, pa.Table)
    assert scored.column_names == [*BATCH, *("ranker_" + name for name in RESULTS)]
    assert scored.column("ranker_scores").to_pylist() == BatchScorer(model)(table.to_pydict())["ranker_scores"]
    assert scored.schema.field("ranker_error").type == pa.string()


def test_a_prompt_that_was_cut_is_a_column(pointwise):
    scored = BatchScorer(pointwise)({"prompt": ["word " * 400, "p"], "candidates": [["a"], ["a"]]})
    assert scored["ranker_prompt_truncated"] == [True, False]


def test_a_bad_row_of_a_batch_is_named_by_its_id(model):
    scored = BatchScorer(model)({"id": ["x7"], "prompt": ["p"], "candidates": [3]})
    assert scored["ranker_error"][0].startswith("row 0 of the batch (id x7): field 'candidates'")
