"""Writes figures into the pages, from the files of figures beside the docs.

A page has ``<!-- figure: NAME -->`` before the text and ``<!-- end -->`` after it.

python docs/figures.py            # or: make docs
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

DOCS = Path(__file__).parent
PAGES = (DOCS.parent / "README.md", DOCS / "results.md", DOCS / "reliability.md", DOCS / "gpu.md")
PLACE = re.compile(r"(<!-- figure: (\w+) -->)(.*?)(<!-- end -->)", re.DOTALL)
HERE = "https://github.com/ranker-toolkit/ranker-toolkit/blob/main/docs/"


def figures(name: str) -> dict[str, Any]:
    """The figures in a file of this folder."""
    content: dict[str, Any] = json.loads((DOCS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def rows() -> list[tuple[str, str, str]]:
    """What was counted, the figure with its n, and where it is explained."""
    same, kills, steady = figures("compatibility"), figures("kills"), figures("steadiness")
    load, soak = figures("overload")["10x"], figures("soak")
    equal, n = (sum(row[key] for row in same["rows"]) for key in ("equal", "n"))
    signals = {name: sum(part["kills"].values()) for name, part in kills.items()}
    bad = sum(part[key] for part in kills.values() for key in ("lost", "doubled", "leftovers", "wrong_codes"))
    finished, alike = (sum(part[key] for part in kills.values()) for key in ("results", "equal"))
    int8 = [model for model in steady.values() if model["precision"] == "int8"]
    fp32 = [model for model in steady.values() if model["precision"] == "fp32"]
    return [
        (
            "scores of checkpoints that other libraries wrote, beside their own code",
            f"{equal} of {n} equal, {len(same['rows'])} producers and forms",
            "compatibility.md",
        ),
        (
            "ids of conversations beside `apply_chat_template`",
            f"{same['ids']['equal']:,} of {same['ids']['rows']:,} equal, {same['ids']['templates']} templates",
            "compatibility.md",
        ),
        (
            "interrupts at random moments",
            f"{', '.join(f'{count} of `{name}`' for name, count in signals.items())}: {bad} lost, doubled or left "
            f"behind; {alike} of {finished} results equal to the byte",
            "results.md#interrupts",
        ),
        (
            "scores alone and in any batch, other threads, processes and load",
            f"int8: {sum(map(differing, int8))} of {sum(model['answers'] for model in int8):,} answers differ"
            + (f", by {max(map(largest, int8)):.2f} logits at most" if sum(map(differing, int8)) else "")
            + f", and {changed(int8)} of the comparisons change; fp32: by "
            f"{max(map(largest, fp32)):.0e} logits at most (n = {sum(model['answers'] for model in fp32):,})",
            "reliability.md#scores",
        ),
        (
            "a server at 10 times its load",
            f"accepted requests: p99 {load['accepted_p99_seconds']:.1f} s; the others get 429 with `Retry-After`",
            "reliability.md#server",
        ),
        (
            f"a server for {soak['minutes']:.0f} minutes, wrong bodies and clients that leave among the requests",
            f"{soak['rss_mib']['third']:.0f} MiB after a third, {soak['rss_mib']['last']:.0f} MiB at the end; "
            f"{soak['descriptors']['after']} open files after it",
            "reliability.md#server",
        ),
        (
            f"training on one {figures('gpu')['card']} beside TRL's RewardTrainer, real tokens per second",
            ", ".join(f"{SHAPES[shape]} {beside_trl(shape):.1f} times" for shape in SHAPES)
            + "; if TRL's user switches cuDNN's attention off, "
            + " and ".join(f"{beside_trl(shape, ', without cuDNN'):.1f}" for shape in SHAPES),
            "gpu.md#training",
        ),
    ]


SHAPES = {"minilm": "MiniLM", "bert-base": "BERT-base"}


def beside_trl(shape: str, variant: str = "") -> float:
    """Speed of training over TRL's, at natural lengths and with default settings."""
    lines = [line for line in lines_of("training") if (line["shape"], line["length"]) == (shape, "natural")]
    speed = {line["side"]: line["tokens_per_second"] for line in lines}
    return float(speed["ranker"] / speed[f"TRL{variant}"])


def conditions(model: dict[str, Any]) -> list[dict[str, Any]]:
    """The conditions under which a model was compared with its scores alone."""
    return [value for value in model.values() if isinstance(value, dict)]


def differing(model: dict[str, Any]) -> int:
    """Answers that differ in any condition."""
    return max(condition["answers_that_differ"] for condition in conditions(model))


def largest(model: dict[str, Any]) -> float:
    """The largest difference in any condition."""
    return max(condition["largest_difference"] for condition in conditions(model))


def changed(models: list[dict[str, Any]]) -> int:
    """Comparisons that change in any condition."""
    return sum(max(part["comparisons_that_change"] for part in conditions(model)) for model in models)


def evidence() -> str:
    """The table of the README."""
    lines = [f"| {what} | {figure} ([figures]({HERE}{where})) |" for what, figure, where in rows()]
    return "\n".join(["", "| counted | figure |", "|---|---|", *lines, ""])


def interrupts() -> str:
    """The table of interrupts of the page of results."""
    kills = figures("kills")
    commands = {
        "score": "`ranker score`, {rows} rows, MiniLM int8",
        "filter": "`ranker filter --keep-top 50%`, {rows} rows, MiniLM int8",
        "train": "`ranker train pairrm --offline`, 40 rows, a checkpoint after every step, with evaluation and export",
    }
    lines = []
    for name, command in commands.items():
        part = kills[name]
        each = ", ".join(f"{count} {number}" for number, count in part["kills"].items())
        bad = " | ".join(str(part[key]) for key in ("aborts", "lost", "doubled", "leftovers", "wrong_codes"))
        of = f"{part['equal']} of {part['results']}"
        lines.append(f"| {command.format(**part)} | {each} | {bad} | {of} | {part['cpu']}, {part['date']} |")
    head = (
        "| command | interrupts | tracebacks, aborts | lost | doubled | left behind | wrong exit codes | "
        "results equal to the byte | processor, date |"
    )
    return "\n".join(["", head, "|---|---|---|---|---|---|---|---|---|", *lines, ""])


def steady(precision: str) -> str:
    """What scores in batches were beside scores alone."""
    models = [model for model in figures("steadiness").values() if model["precision"] == precision]
    answers = sum(model["answers"] for model in models)
    layouts = ", ".join(sorted({f"`{model['layout']}`" for model in models}))
    processors = " and ".join(sorted({model["processor"] for model in models}))
    pairs = sum(model["comparisons"] for model in models)
    differ = sum(map(differing, models))
    by = f", by {max(map(largest, models)):.1e} at most" if differ else ""
    return (
        f"{answers:,} answers (MiniLM; {layouts}; {processors}) in "
        f"{max(len(conditions(model)) for model in models)} conditions: "
        f"{differ} of them differ{by}; {changed(models)} of {pairs:,} comparisons change"
    )


def overload() -> str:
    """A server at ten times its load."""
    run = figures("overload")
    load = run["10x"]
    return (
        f"accepted requests p50 {load['accepted_p50_seconds']:.1f} s, p99 {load['accepted_p99_seconds']:.1f} s, most "
        f"{load['accepted_most_seconds']:.1f} s, n = {load['statuses']['200']:,}; `/livez` p99 "
        f"{load['livez_p99_seconds'] * 1000:.0f} ms; goodput {load['goodput_of_peak']:.2f} of the peak of 8 clients "
        f"beside a process that spins on that core ({run['processor']}, {run['date']})"
    )


def event_loop() -> str:
    """How long a body holds the server's event loop."""
    loop = figures("event_loop")
    return (
        f"{loop['bodies']} bodies, the least of {loop['times']} tries each: {loop['longest_ms']:.0f} ms at most; all "
        f"tries, beside other work: {loop['longest_of_all_ms']:.0f} ms ({loop['processor']}, {loop['date']})"
    )


def bench_conditions() -> str:
    """Where, with what and on which rows ``make bench`` was run beside CrossEncoder."""
    run = figures("bench")["pointwise"]["machine"]
    for part in ("lengths", "latency", "start-up"):
        if figures("bench")[part]["machine"] != run:
            raise SystemExit(f"bench.json: {part} and pointwise are of different runs; run them together")
    other = ", ".join(f"{name} {run['other'][name]}" for name in ("onnxruntime", "sentence-transformers", "openvino"))
    rows = figures("bench")["pointwise"]["rows"]
    return (
        f"{conditions_of('pointwise')}; CrossEncoder's sides on ONNX and OpenVINO: {other}. {rows['answers']} answers, "
        f"no row twice, from {', '.join(rows['files'])}: {rows['mean_tokens']:.0f} tokens on average, "
        f"{rows['most_tokens']} at most"
    )


def conditions_of(part: str) -> str:
    """Where and with what a part of ``make bench`` was run."""
    run = figures("bench")[part]["machine"]
    versions = ", ".join(f"{name} {run[name]}" for name in ("torch", "onnxruntime", "sentence-transformers"))
    return f"{run['threads']} threads of an {run['cpu']}, {run['date']}; {versions}"


def of_bench(part: str, columns: dict[str, str]) -> str:
    """A table of a part of ``make bench``; ``columns`` are the names in the file, each with its format, by head."""
    lines = [
        [name, *(f"{{{column}}}".format(**side) for column in columns.values())]
        for name, side in figures("bench")[part]["sides"].items()
    ]
    return table(" | ".join(["side", *columns]), lines)


def bench_pointwise() -> str:
    """Scoring speed of a reward model beside other libraries."""
    columns = {
        "answers a second": "answers_per_second:.0f",
        "speed, ranker fp32 = 1": "speed_of_first:.2f",
        "tau-b with ranker fp32": "tau:.3f",
    }
    return of_bench("pointwise", columns)


def bench_peers() -> str:
    """The speed beside CrossEncoder's fastest backends, by precision, and the start-up."""
    sides = figures("bench")["pointwise"]["sides"]

    def best(*words: str) -> str:
        names = [name for name in sides if name.startswith("CrossEncoder") and any(word in name for word in words)]
        return max(names, key=lambda name: sides[name]["speed_of_first"])

    fp32, int8 = best("fp32", "O3"), best("int8")
    ours = sides["ranker int8"]
    backend = int8.removeprefix("CrossEncoder ").removesuffix(" int8 (no gate)")
    starts = figures("bench")["start-up"]["sides"]
    share = starts["ranker score fp32"]["seconds"] / min(
        start["seconds"] for name, start in starts.items() if name.startswith("CrossEncoder")
    )
    return (
        f"{1 / sides[fp32]['speed_of_first']:.2f} times its answers per second in fp32; in int8 "
        f"{ours['speed_of_first'] / sides[int8]['speed_of_first']:.2f} times ({backend}), with a tau-b of "
        f"{ours['tau']:.2f} against {sides[int8]['tau']:.2f}; 8 rows as a whole process in {share:.2f} of its time"
    )


def bench_lengths() -> str:
    """What a row of a length costs, in batches."""
    return of_bench("lengths", {f"{n} tokens, ms": f"ms_of_{n}_tokens:.1f" for n in (32, 128, 512)})


def bench_latency() -> str:
    """How long one call with one answer takes."""
    columns = {f"{n} tokens, p{p}, ms": f"p{p}_ms_of_{n}:.1f" for n in (32, 128) for p in (50, 99)}
    return of_bench("latency", columns)


def bench_start_up() -> str:
    """Eight rows as a whole process."""
    return of_bench("start-up", {"seconds": "seconds:.2f", "most memory, MiB": "peak_MiB:.0f"})


def by_size(part: str, separator: str, columns: dict[str, str]) -> str:
    """A table whose rows are sides and whose columns repeat for each size, which ends the names in the file."""
    sides = figures("bench")[part]["sides"]
    names = list(dict.fromkeys(name.rpartition(separator)[0] for name in sides))
    sizes = list(dict.fromkeys(name.rpartition(separator)[2] for name in sides))
    heads = [f"{size}: {head}" for size in sizes for head in columns]
    lines = [
        [name, *(f"{{{c}}}".format(**sides[f"{name}{separator}{size}"]) for size in sizes for c in columns.values())]
        for name in names
    ]
    return table(" | ".join(["side", *heads]), lines)


def bench_ranking() -> str:
    """Ranking beside LLM-Blender, by number of answers."""
    columns = {"prompts a second": "prompts_per_second:.3g", "of LLM-Blender": "speed_of_LLM-Blender:.3g"}
    return by_size("ranking", ", ", columns)


def bench_decoder() -> str:
    """Eight answers to a long prompt beside transformers, by the prompt's words."""
    columns = {
        "answers a second": "answers_per_second:.2f",
        "of transformers": "speed_of_transformers:.2f",
        "most memory, MiB": "peak_MiB:.0f",
        "largest difference": "largest_difference:.0e",
    }
    return by_size("decoder", ", prompts of ", columns)


TRAINERS = {
    "once": "`encoder-bradley-terry`, each answer read once",
    "pairs": "`encoder-bradley-terry`, pair by pair",
    "trl": "TRL's `RewardTrainer`",
    "cross_encoder": "sentence-transformers' `CrossEncoderTrainer`, `RankNetLoss`",
    "pairrm": "`pairrm` (`set_encoder`)",
    "pairrm_original": "`pairrm-original` (`ordered_pair`, both orders)",
    "blender": "LLM-Blender's `RerankerTrainer`",
}


def trainers() -> str:
    """Training beside other libraries: speed, padding and accuracy."""
    sides = figures("trainers")["sides"]
    lines = []
    for name, side in sides.items():
        ours = [
            f"{speed['tokens_per_second']:.2f} in tokens, {speed['seconds']:.2f} in seconds ({TRAINERS[other]})"
            for other, speed in side["speed_of_ours"].items()
        ]
        each = ", ".join(f"{value:.3f}" for value in side["accuracy"])
        tokens, padding = f"{median(side['tokens']) / 1000:.0f}", f"{side['padding']:.0%}"
        speed, seconds = f"{side['tokens_per_second']:.0f}", f"{median(side['seconds']):.0f}"
        lines.append([TRAINERS[name], speed, tokens, padding, seconds, each, "; ".join(ours)])
    return table(
        "side | real tokens a second | thousand tokens read | padding | seconds | accuracy of each seed | "
        "speed of ours over it",
        lines,
    )


def trainers_conditions() -> str:
    """Where, with what and on how many rows training was measured."""
    run = figures("trainers")
    known = {name: version for side in run["sides"].values() for name, version in side["versions"].items()}
    known |= {name: run["sides"]["pairs"]["versions"][name] for name in ("torch", "transformers")}
    other = run["sides"]["blender"]["versions"]["transformers"]
    versions = ", ".join(f"{name} {version}" for name, version in known.items())
    return (
        f"{run['threads']} threads of an {run['machine']}, {run['date']}; {versions} (with transformers {other}). "
        f"{run['comparisons']} training and {run['held_out']} held-out comparisons, seeds "
        f"{', '.join(map(str, run['seeds']))}"
    )


def trainers_beside() -> str:
    """For the README: the speed of training over each other library's, and the differences of accuracy."""
    sides = figures("trainers")["sides"]
    beside = {
        "trl": ("TRL", "pairs"),
        "cross_encoder": ("CrossEncoderTrainer", "pairs"),
        "blender": ("LLM-Blender", "pairrm_original"),
    }
    parts = []
    for name, (library, ours) in beside.items():
        lead = sides[name]["accuracy_of_ours_less_its"][ours]
        speed = sides[name]["speed_of_ours"][ours]["tokens_per_second"]
        parts.append(
            f"{speed:.1f} times {library}'s (accuracy {lead['value']:+.3f} [{lead['low']:+.3f}, {lead['high']:+.3f}])"
        )
    return "; ".join(parts)


def soak() -> str:
    """A server for an hour."""
    hour = figures("soak")
    late = hour["statuses"].get("503", 0)
    return (
        f"{hour['minutes']:.0f} minutes: {hour['rss_mib']['third']:.0f} MiB after a third, "
        f"{hour['rss_mib']['last']:.0f} MiB at the end; at most {hour['descriptors']['most']} descriptors, "
        f"{hour['descriptors']['after']} after it; "
        f"{hour['statuses']['200']:,} requests answered, {late} with 503 at their deadline ({hour['processor']}, "
        f"{hour['date']})"
    )


def card() -> str:
    """The card and the versions of the figures of a GPU."""
    run = figures("gpu")
    versions = ", ".join(f"{name} {run[name]}" for name in ("torch", "onnxruntime-gpu", "transformers", "trl"))
    return f"One {run['card']}, {run['cores']} cores, {versions}, {run['date']}"


def lines_of(part: str, run: str = "after") -> list[dict[str, Any]]:
    """The lines of a part of ``benchmarks/gpu.py``."""
    return [line for line in figures("gpu")[run]["lines"] if line["part"] == part]


def table(head: str, rows: list[list[str]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(["", f"| {head} |", "|---" * (head.count("|") + 1) + "|", *lines, ""])


def gpu_shapes() -> str:
    """Milliseconds of a training step by kernel of attention and shapes."""
    names = {"default": "torch's choice", "no cudnn": "all but cuDNN", "cudnn only": "cuDNN alone"}
    return table(
        "encoder | kernel of attention | one shape | a ladder of lengths | a new shape each",
        [
            [line["shape"], names[line["kernel"]], *(f"{line[f'ms_{kind}']:.0f} ms" for kind in KINDS)]
            for line in figures("gpu")["steps_by_shape"]
            if line["mask"]
        ],
    )


KINDS = ("one", "ladder", "new")


def gpu_training() -> str:
    """Training beside other libraries."""
    rows = []
    for line in lines_of("training"):
        same = [o for o in lines_of("training") if (o["shape"], o["length"]) == (line["shape"], line["length"])]
        other = next(o["tokens_per_second"] for o in same if o["side"] == "TRL")
        rows.append(
            [
                line["shape"],
                f"{line['length']}",
                line["side"],
                f"{line['tokens_per_second']:,.0f}",
                f"{line['tokens_per_second'] / other:.2f}",
                f"{line['of_bf16_product']:.1%}",
                f"{line['padding']:.0%}",
            ]
        )
    return table("shape | tokens of a row | side | real tokens/s | of TRL's | of the bf16 product | padding", rows)


def gpu_kernels() -> str:
    """Kernels of attention that onnxruntime has."""
    return table(
        "shape | precision | kernel | tokens/s, one shape | tokens/s, a new shape each",
        [
            [
                line["shape"],
                line["precision"],
                line["kernel"] + (" (`auto`)" if line["kernel"] == "flash, efficient" else ""),
                f"{line['tokens_per_second_one']:,.0f}",
                f"{line['tokens_per_second_new']:,.0f}",
            ]
            for line in lines_of("kernels")
        ],
    )


def gpu_parity() -> str:
    """Scores on the card beside fp32 on the CPU."""
    return table(
        "shape | side | largest difference, of the spread | tau-b | comparisons that change",
        [
            [
                line["shape"],
                line["side"],
                f"{line['largest_difference_of_spread']:.1e}",
                f"{line['tau']:.3f}",
                f"{line['decisions_changed']} of {line['n']}",
            ]
            for line in lines_of("parity")
        ],
    )


def gpu_budgets() -> str:
    """Answers per second by the size of a pass."""
    return table(
        "side | padded tokens of a pass | answers/s",
        [
            [line["side"], f"{line.get('max_tokens_per_forward', '')}", f"{line['answers_per_second']:,.0f}"]
            for line in lines_of("budgets", "before")
        ],
    )


FIGURES: dict[str, Callable[[], str]] = {
    "gpu_card": card,
    "gpu_shapes": gpu_shapes,
    "gpu_training": gpu_training,
    "gpu_kernels": gpu_kernels,
    "gpu_parity": gpu_parity,
    "gpu_budgets": gpu_budgets,
    "evidence": evidence,
    "interrupts": interrupts,
    "steady_fp32": lambda: steady("fp32"),
    "steady_int8": lambda: steady("int8"),
    "overload": overload,
    "event_loop": event_loop,
    "bench": bench_conditions,
    "bench_peers": bench_peers,
    "bench_pointwise": bench_pointwise,
    "bench_lengths": bench_lengths,
    "bench_latency": bench_latency,
    "bench_start_up": bench_start_up,
    "bench_ranking": bench_ranking,
    "bench_ranking_conditions": lambda: conditions_of("ranking"),
    "bench_decoder": bench_decoder,
    "bench_decoder_conditions": lambda: conditions_of("decoder"),
    "trainers": trainers,
    "trainers_conditions": trainers_conditions,
    "trainers_beside": trainers_beside,
    "soak": soak,
}


def written(page: str) -> str:
    """A page with its figures written anew."""
    return PLACE.sub(lambda place: f"{place[1]}{FIGURES[place[2]]()}{place[4]}", page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
