"""Data pipelines of other libraries, run by them."""

import json
import math
import subprocess
import sys

import datasets
import numpy as np
import pytest
from datatrove.data import Document
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from distilabel.pipeline import Pipeline

import ranker
from ranker.batch_scorer import BatchScorer
from ranker.integrations.datatrove import RankerFilter
from ranker.integrations.distilabel import RankerStep
from tests.conftest import ROOT

ROWS = [{"prompt": f"p {i}", "candidates": ["a saw", "hammer " * (i % 5), "pear"][: 1 + i % 3]} for i in range(30)]


def test_datasets_map_hits_its_cache_the_second_time(model, tmp_path):
    datasets.disable_progress_bars()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def mapped():
        data = datasets.load_dataset(
            "json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
        )
        scorer = BatchScorer(model)
        return scorer, data.map(scorer, batched=True, batch_size=7)

    first, once = mapped()
    second, again = mapped()
    assert first._scorer is not None
    assert second._scorer is None, "the model was not even loaded"
    assert once.to_list() == again.to_list()
    for row, (plain) in zip(
        once, ranker.load(model).score_batch([r["prompt"] for r in ROWS], [r["candidates"] for r in ROWS]), strict=True
    ):
        np.testing.assert_allclose(row["ranker_scores"], plain, atol=1e-5)
    other = BatchScorer(model, prefix="x_")
    assert "x_scores" in datasets.Dataset.from_list(ROWS).map(other, batched=True).column_names


def test_datatrove_keeps_what_scores_and_writes_what_does_not(pointwise, model, tmp_path):
    (tmp_path / "in").mkdir()
    texts = [f"hammer {i} " * (1 + i % 4) for i in range(40)]
    rows = [{"text": text, "id": str(i), "question": f"p {i}"} for i, text in enumerate(texts)]
    (tmp_path / "in" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = ranker.load(pointwise)
    scores = [float(loaded.score(f"p {i}", [text])[0]) for i, text in enumerate(texts)]
    middle = float(np.median(scores))
    dropped = JsonlWriter(str(tmp_path / "dropped"), compression=None)
    LocalPipelineExecutor(
        [
            JsonlReader(str(tmp_path / "in")),
            RankerFilter(pointwise, middle, columns={"prompt": "question"}, exclusion_writer=dropped, batch_size=16),
            JsonlWriter(str(tmp_path / "out"), compression=None),
        ],
        tasks=2,
        logging_dir=str(tmp_path / "logs"),
    ).run()

    def read(folder):
        return [
            json.loads(line) for path in (tmp_path / folder).glob("*.jsonl") for line in path.read_text().splitlines()
        ]

    kept = read("out")
    assert {row["id"] for row in kept} == {str(i) for i, score in enumerate(scores) if score >= middle}
    assert all(math.isclose(row["metadata"]["ranker_scores"][0], scores[int(row["id"])], abs_tol=1e-5) for row in kept)
    assert {row["metadata"]["filter_reason"] for row in read("dropped")} == {"ranker_below_threshold"}
    assert len(kept) + len(read("dropped")) == 40
    with pytest.raises(ranker.errors.ConfigError, match="compares answers to one prompt"):
        RankerFilter(model, 0.0).filter(Document(text="a", id="1"))


def test_distilabel_ranks_ragged_rows(model):
    rows = [{"input": row["prompt"], "candidates": row["candidates"]} for row in ROWS[:5]]
    rows.append({"input": "q", "candidates": ["a", 3]})
    step = RankerStep(name="rank", model=str(model), pipeline=Pipeline(name="alone"))
    step.load()
    (result,) = step.process([dict(row) for row in rows])
    loaded = ranker.load(model)
    for row in result[:5]:
        ranking = loaded.rank(row["input"], row["candidates"])
        assert row["ranker_ranks"] == ranking.ranks.tolist()
        assert row["ranker_order"] == ranking.order.tolist()
        assert row["ranker_scores"] == pytest.approx(ranking.scores.tolist(), abs=1e-5)
    assert result[5]["ranker_ranks"] is None
    assert "candidates" in result[5]["ranker_error"]


PIPELINE = """
import json, sys
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from ranker.integrations.distilabel import RankerStep

if __name__ == "__main__":
    with Pipeline(name="test") as pipeline:
        load = LoadDataFromDicts(data=json.loads(sys.argv[2]))
        load >> RankerStep(model=sys.argv[1], input_batch_size=8, threads=1)
    found = pipeline.run(use_cache=False)["default"]["train"]
    print("RANKS", json.dumps([row["ranker_ranks"] for row in found]))
"""


@pytest.mark.full
def test_distilabel_runs_it_in_a_pipeline(model, tmp_path):
    """In a process of its own: the library forks, which a process that has computed does not survive."""
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    rows = [{"input": row["prompt"], "candidates": row["candidates"]} for row in ROWS]
    done = subprocess.run(
        [sys.executable, tmp_path / "pipeline.py", model, json.dumps(rows)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    (ranks,) = [
        json.loads(line.removeprefix("RANKS ")) for line in done.stdout.splitlines() if line.startswith("RANKS")
    ]
    assert ranks == [ranker.load(model).rank(row["input"], row["candidates"]).ranks.tolist() for row in rows]
