"""Scores of a dataset with Ray Data: every worker loads the model once.

    python examples/ray_scores.py MODEL.onnx ROWS.jsonl [--output runs/scored] [--workers 2]

Rows are as for ``ranker score``. The columns ``ranker_scores``, ``ranker_order`` and ``ranker_margin`` are added. For a
job that is to survive interruptions, ``ranker filter --engine ray`` does the same with parts that are checked.
"""

import argparse
from typing import Any

import ray

from ranker import BatchScorer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="a model.onnx or a checkpoint folder")
parser.add_argument("rows", help="JSON lines")
parser.add_argument("--output", default="runs/scored")
parser.add_argument("--workers", type=int, default=1)
options = parser.parse_args()


class Scores:
    """A worker."""

    def __init__(self) -> None:
        self.score = BatchScorer(options.model, threads=1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with the new columns."""
        return self.score(batch)


ray.init(num_cpus=max(2, options.workers + 1), include_dashboard=False)
rows = ray.data.read_json(options.rows, lines=True)
scored = rows.map_batches(
    Scores, compute=ray.data.ActorPoolStrategy(size=options.workers), batch_size=64, batch_format="numpy"
)
scored.write_json(options.output)
print("rows:", ray.data.read_json(options.output, lines=True).count(), "in", options.output)
ray.shutdown()
