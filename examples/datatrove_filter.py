"""A datatrove pipeline that keeps the documents which a reward model scores well.

    python examples/datatrove_filter.py MODEL.onnx [--input FOLDER] [--output runs/kept] [--threshold 0.0]

Documents are JSON lines with ``text`` (the answer) and the prompt in ``metadata.question``. Without ``--input`` a few
are made. The model is a pointwise one: the threshold compares scores of different prompts.
"""

import argparse
import json
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

from ranker.integrations.datatrove import RankerFilter

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="a model.onnx or a checkpoint folder of a pointwise model")
parser.add_argument("--input", type=Path)
parser.add_argument("--output", type=Path, default=Path("runs/kept"))
parser.add_argument("--threshold", type=float, default=0.0, help="in logits")
parser.add_argument("--tasks", type=int, default=1, help="parts that are read on their own, one file each at least")
options = parser.parse_args()

if options.input is None:
    options.input = options.output.with_name("documents")
    options.input.mkdir(parents=True, exist_ok=True)
    answers = ["It is four.", "Five.", "Add them: 2 + 2 = 4."]
    documents = [
        {"text": answer, "id": str(number), "metadata": {"question": "What is 2 + 2?"}}
        for number, answer in enumerate(answers)
    ]
    (options.input / "part.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))

executor = LocalPipelineExecutor(
    pipeline=[
        JsonlReader(str(options.input)),
        RankerFilter(options.model, threshold=options.threshold, columns={"prompt": "question"}),
        JsonlWriter(str(options.output), compression=None),
    ],
    tasks=options.tasks,
    logging_dir=str(options.output.with_name("logs")),
)
statistics = executor.run()
print(statistics.get_repr())
