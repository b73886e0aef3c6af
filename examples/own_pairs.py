"""From preference pairs to a filtered corpus: train, load, rank, evaluate, export and filter in one script.

    python examples/own_pairs.py                          # on the packaged 22M MiniLM encoder, minutes on a CPU
    python examples/own_pairs.py microsoft/deberta-v3-base

Replace ``pairs`` by your own rows: a list of dicts, a ``datasets.Dataset``, or the path of a JSON lines file.
"""

import json
import sys
from pathlib import Path

import ranker

BACKBONE = sys.argv[1] if len(sys.argv) > 1 else "offline"
OUT = Path("runs/own-pairs")

# 1. Preference pairs: the chosen answer is the right sum. Rows may also be lists with scores.
pairs = [
    {"prompt": f"What is {a} + {b}?", "chosen": f"{a} + {b} is {a + b}.", "rejected": f"{a} + {b} is {a + b + 3}."}
    for a in range(12)
    for b in range(10)
]
train_rows, test_rows = pairs[:100], pairs[100:]

# 2. Train. Without data.validation some of the prompts are held out to choose the checkpoint.
result = ranker.train(
    "pairrm",
    model=BACKBONE,
    data=train_rows,
    output_dir=OUT,
    overwrite=True,
    training={"num_train_epochs": 1, "report_to": []},
    export={"precisions": ["fp32"]},
)
print("checkpoint:", result.checkpoint, "steps:", result.steps)

# 3. Load the exported file (this needs no torch) and rank the answers to a prompt.
model = ranker.load(result.model)
ranking = model.rank("What is 2 + 2?", ["2 + 2 is 4.", "2 + 2 is 7."])
print("order:", ranking.order.tolist(), "scores:", ranking.scores.round(2).tolist())
print("P(first is better):", round(model.compare("What is 2 + 2?", "It is 4.", "It is 7.", probability=True), 2))

# 4. Evaluate on rows that were not trained on, with interval and count, and keep the report.
report = ranker.evaluate(model, test_rows)
print("accuracy:", report.accuracy, "->", report.save(OUT / "evaluation"))

# 5. Export the checkpoint again, as fp32 here; precision="int8" is smaller and, on CPUs with VNNI, faster.
print("parity:", f"{ranker.export_onnx(result.checkpoint, OUT / 'again.onnx', rows=test_rows).max_difference:.0e}")

# 6. Filter a corpus: the best half of the rows as pairs for DPO. The same call continues a job that was stopped.
corpus = OUT / "corpus.jsonl"
corpus.write_text("".join(json.dumps(row) + "\n" for row in test_rows))
status = ranker.filter_files(corpus, result.model, OUT / "kept", keep_top=0.5, output_rows="pairs")
print("read:", status.read, "kept:", status.written, "in", OUT / "kept")
