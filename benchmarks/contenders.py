"""One contender of ``scoring.py`` in a process and environment of its own: loads once, then runs when told to.

    python benchmarks/contenders.py SIDE MODEL GROUPS.json THREADS

Every line on standard input is answered by one pass over the groups: a line of JSON with ``seconds``, ``scores`` and
``peak_MiB``, the most memory that the process has had.
Only the libraries of the running side are imported, so every environment needs only its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
Groups = list[tuple[str, list[str]]]
Pass = Callable[[Groups], list[list[float]]]

MAX_LENGTH = int(os.environ.get("BENCH_MAX_LENGTH", "512"))
"""Tokens of a row; by default as the recipe ``encoder-bradley-terry`` reads them."""
BATCH = 32
"""Batch size of sides that count rows; sentence-transformers' default."""


def flat(groups: Groups) -> list[tuple[str, str]]:
    """(prompt, answer) of every answer."""
    return [(prompt, answer) for prompt, answers in groups for answer in answers]


def folded(groups: Groups, scores: list[float]) -> list[list[float]]:
    """Scores of ``flat`` rows by group."""
    rest = iter(scores)
    return [[float(next(rest)) for _ in answers] for _, answers in groups]


def ours_one_order(model: str, threads: int) -> Pass:
    """``ranker.load(model.onnx, average_orders=False)``."""
    return ours(model, threads, average_orders=False)


def ours_bf16(model: str, threads: int) -> Pass:
    """``ranker.load(checkpoint, precision="bf16")``: torch, for processors that have bf16."""
    return ours(model, threads, device="cpu", precision="bf16")


def ours(model: str, threads: int, **options: object) -> Pass:
    """``ranker.load(model.onnx)``."""
    import ranker

    if "BENCH_MAX_LENGTH" in os.environ:
        options["text"] = {"max_length": MAX_LENGTH}
    loaded = ranker.load(model, threads=threads, **options)

    def run(groups: Groups) -> list[list[float]]:
        prompts, answers = zip(*groups, strict=True)
        return [scores.tolist() for scores in loaded.score_batch(list(prompts), list(answers))]

    return run


def cross_encoder(model: str, threads: int, **options: object) -> Pass:
    """sentence-transformers on torch, ONNX or OpenVINO."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(threads)
    loaded = CrossEncoder(model, max_length=MAX_LENGTH, device="cpu", activation_fn=torch.nn.Identity(), **options)

    def run(groups: Groups) -> list[list[float]]:
        scores = loaded.predict(flat(groups), batch_size=BATCH, show_progress_bar=False, convert_to_numpy=False)
        return folded(groups, [float(score) for score in scores])

    return run


def cross_encoder_bf16(model: str, threads: int) -> Pass:
    """sentence-transformers on torch in bf16."""
    return cross_encoder(model, threads, model_kwargs={"dtype": "bfloat16"})


def cross_encoder_onnx(model: str, threads: int) -> Pass:
    """sentence-transformers' ONNX backend, fp32; its graph is kept for the sides that read one."""
    if not Path(model, "onnx", "model.onnx").exists():
        from sentence_transformers import CrossEncoder

        CrossEncoder(model, backend="onnx", model_kwargs=onnx_options(threads)).save_pretrained(model)
    return cross_encoder(model, threads, backend="onnx", model_kwargs=onnx_options(threads))


def cross_encoder_int8(model: str, threads: int) -> Pass:
    """sentence-transformers' ONNX backend with its dynamic int8 for AVX-512 VNNI; it has no gate."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.backend import export_dynamic_quantized_onnx_model

    if not list(Path(model, "onnx").glob("*qint8_avx512_vnni.onnx")):
        plain = CrossEncoder(model, backend="onnx", model_kwargs=onnx_options(threads))
        export_dynamic_quantized_onnx_model(plain, "avx512_vnni", model)
    (file,) = Path(model, "onnx").glob("*qint8_avx512_vnni.onnx")
    options = onnx_options(threads) | {"file_name": f"onnx/{file.name}"}
    return cross_encoder(model, threads, backend="onnx", model_kwargs=options)


def cross_encoder_onnx_o3(model: str, threads: int) -> Pass:
    """sentence-transformers' ONNX backend, fp32, after optimum's fusions of level O3."""
    if not Path(model, "onnx", "model_O3.onnx").exists():
        from sentence_transformers import CrossEncoder
        from sentence_transformers.backend import export_optimized_onnx_model

        plain = CrossEncoder(model, backend="onnx", model_kwargs=onnx_options(threads))
        export_optimized_onnx_model(plain, "O3", model)
    options = onnx_options(threads) | {"file_name": "onnx/model_O3.onnx"}
    return cross_encoder(model, threads, backend="onnx", model_kwargs=options)


def cross_encoder_openvino(model: str, threads: int) -> Pass:
    """sentence-transformers' OpenVINO backend, fp32."""
    if not Path(model, "openvino", "openvino_model.xml").exists():
        from sentence_transformers import CrossEncoder

        CrossEncoder(model, backend="openvino", model_kwargs=openvino_options(threads)).save_pretrained(model)
    return cross_encoder(model, threads, backend="openvino", model_kwargs=openvino_options(threads))


def cross_encoder_openvino_int8(model: str, threads: int) -> Pass:
    """sentence-transformers' OpenVINO backend with its static int8, calibrated on rows of ``data/``; it has no gate."""
    file = "openvino/openvino_model_qint8_quantized.xml"
    if not Path(model, file).exists():
        from sentence_transformers import CrossEncoder
        from sentence_transformers.backend import export_static_quantized_openvino_model

        plain = CrossEncoder(model, backend="openvino", model_kwargs=openvino_options(threads))
        rows = {"dataset_name": calibration(Path(model)), "dataset_config_name": "default", "column_name": "text"}
        export_static_quantized_openvino_model(plain, None, model, dataset_split="train", **rows)
    return cross_encoder(
        model, threads, backend="openvino", model_kwargs=openvino_options(threads) | {"file_name": file}
    )


def calibration(folder: Path) -> str:
    """A folder of texts to calibrate on: 300 prompts of ``data/train.jsonl``, each with an answer."""
    target = folder / "calibration"
    target.mkdir(exist_ok=True)
    lines = (ROOT / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:300]
    rows = [json.loads(line) for line in lines]
    texts = [json.dumps({"text": f"{row['prompt']} {row['candidates'][0]}"}) for row in rows]
    (target / "train.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return str(target)


def openvino_options(threads: int) -> dict[str, object]:
    """Threads of OpenVINO, and fp32 where the processor has bf16."""
    return {"ov_config": {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}}


def onnx_options(threads: int) -> dict[str, object]:
    """Threads and provider of a session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return {"provider": "CPUExecutionProvider", "session_options": options}


def pipeline(model: str, threads: int) -> Pass:
    """The text-classification pipeline of transformers."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    loaded = transformers.pipeline("text-classification", model=model, device="cpu", batch_size=BATCH)

    def run(groups: Groups) -> list[list[float]]:
        rows = [{"text": prompt, "text_pair": answer} for prompt, answer in flat(groups)]
        options = {"truncation": True, "max_length": MAX_LENGTH, "function_to_apply": "none"}
        return folded(groups, [result["score"] for result in loaded(rows, **options)])

    return run


def single_batch(model: str, threads: int) -> Pass:
    """FlashRank's way: all answers of a prompt in one padded batch, onnxruntime fp32."""
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.enable_padding()
    session = onnxruntime.InferenceSession(f"{model}/onnx/model.onnx", onnx_options(threads)["session_options"])
    names = [node.name for node in session.get_inputs()]

    def run(groups: Groups) -> list[list[float]]:
        import numpy as np

        scores = []
        for prompt, answers in groups:
            rows = tokenizer.encode_batch([(prompt, answer) for answer in answers])
            arrays = {
                "input_ids": np.array([row.ids for row in rows]),
                "attention_mask": np.array([row.attention_mask for row in rows]),
                "token_type_ids": np.array([row.type_ids for row in rows]),
            }
            scores.append(session.run(None, {name: arrays[name] for name in names})[0][:, 0].tolist())
        return scores

    return run


def bare_session(model: str, threads: int) -> Pass:
    """The ``model.onnx`` of a pointwise BERT in a session of onnxruntime: no more than tokens and one call."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    session = onnxruntime.InferenceSession(model, onnx_options(threads)["session_options"])
    about = session.get_modelmeta().custom_metadata_map
    text = json.loads(about["ranker.manifest"])["text"]
    tokenizer = Tokenizer.from_str(about["ranker.tokenizer.json"])

    def run(groups: Groups) -> list[list[float]]:
        scores = []
        for prompt, answer in flat(groups):
            first = text["prefix"] + tokenizer.encode(prompt, add_special_tokens=False).ids + text["between"]
            second = tokenizer.encode(answer, add_special_tokens=False).ids + text["suffix"]
            arrays = {
                "input_ids": np.array([first + second]),
                "block_ids": np.array([[0] * len(first) + [1] * len(second)]),
                "position_ids": np.arange(len(first) + len(second))[None],
            }
            scores.append(float(session.run(None, arrays)[0][0, 0, 0]))
        return folded(groups, scores)

    return run


def ours_torch(model: str, threads: int) -> Pass:
    """``ranker.load(checkpoint)`` on a processor, in fp32."""
    return ours(model, threads, device="cpu", precision="fp32")


def transformers_classifier(model: str, threads: int) -> Pass:
    """A decoder with a head in transformers: the answers of a prompt in one padded batch, each with its prompt."""

    def logits(loaded: Any, rows: list[list[int]], shared: int) -> Any:
        return loaded(**padded(rows)).logits

    return transformers_decoder(model, threads, logits)


def transformers_prefix(model: str, threads: int) -> Pass:
    """The same with the prompt's keys and values computed once, as servers of language models reuse prefixes."""
    import torch
    from transformers import DynamicCache

    def logits(loaded: Any, rows: list[list[int]], shared: int) -> Any:
        rest = padded([row[shared:] for row in rows])
        mask = torch.cat([torch.ones(len(rows), shared, dtype=torch.long), rest["attention_mask"]], dim=1)
        cache = DynamicCache(config=loaded.config)
        loaded.model(input_ids=torch.tensor([rows[0][:shared]]), past_key_values=cache)
        cache.batch_repeat_interleave(len(rows))
        states = loaded.model(input_ids=rest["input_ids"], attention_mask=mask, past_key_values=cache).last_hidden_state
        return loaded.score(states[torch.arange(len(rows)), rest["attention_mask"].sum(1) - 1])

    return transformers_decoder(model, threads, logits)


def transformers_decoder(model: str, threads: int, logits: Callable[[Any, list[list[int]], int], Any]) -> Pass:
    """A decoder of transformers in fp32; ``logits`` (answers, 1) are of its rows, the first ids of which are shared."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(threads)
    loaded = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval()
    encode = chat_encoder(model)

    def run(groups: Groups) -> list[list[float]]:
        with torch.inference_mode():
            return [logits(loaded, *encode(prompt, answers))[:, 0].tolist() for prompt, answers in groups]

    return run


def chat_encoder(model: str) -> Callable[[str, list[str]], tuple[list[list[int]], int]]:
    """The ids of a prompt with each of its answers by the tokenizer's template, and how many ids all of them share."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)

    def encode(prompt: str, answers: list[str]) -> tuple[list[list[int]], int]:
        turns = [[{"role": "user", "content": prompt}, {"role": "assistant", "content": text}] for text in answers]
        rows = [tokenizer.apply_chat_template(turn, return_dict=False) for turn in turns]
        return rows, len(os.path.commonprefix(rows))

    return encode


def padded(rows: list[list[int]]) -> dict[str, Any]:
    """Rows as one batch, padded at the end."""
    import torch

    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }


def blender(model: str, threads: int) -> Pass:
    """LLM-Blender's ``rank``: all pairs in both orders."""
    import llm_blender
    import torch

    torch.set_num_threads(threads)
    loaded = llm_blender.Blender()
    loaded.loadranker(model, device="cpu")

    def run(groups: Groups) -> list[list[float]]:
        prompts, answers = zip(*groups, strict=True)
        scores = loaded.rank(list(prompts), list(answers), return_scores=True, batch_size=8, disable_tqdm=True)
        return [[float(score) for score in row] for row in scores]

    return run


SIDES: dict[str, Callable[[str, int], Pass]] = {
    side.__name__: side
    for side in (
        ours,
        ours_one_order,
        ours_bf16,
        cross_encoder,
        cross_encoder_bf16,
        cross_encoder_onnx,
        cross_encoder_int8,
        cross_encoder_onnx_o3,
        cross_encoder_openvino,
        cross_encoder_openvino_int8,
        pipeline,
        single_batch,
        bare_session,
        ours_torch,
        transformers_classifier,
        transformers_prefix,
        blender,
    )
}


def main() -> None:
    """Load a side, then answer every line with a pass."""
    side, model, file, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr  # what libraries print must not mix with answers
    os.dup2(2, 1)
    groups: Groups = json.loads(Path(file).read_text(encoding="utf-8"))
    run = SIDES[side](model, int(threads))
    run(groups)
    print(json.dumps("ready"), file=answers, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        scores = run(groups)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "scores": scores, "peak_MiB": peak()}), file=answers, flush=True)


def peak() -> float:
    """The most memory of this process, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
