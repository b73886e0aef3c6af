"""Speed of scoring beside other libraries."""

from __future__ import annotations

from figure_tables import conditions, figures, number, table


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
    columns = {f"{n} tokens, p{p}, ms": f"p{p}_ms_of_{n}:.1f" for n in (32, 64, 128) for p in (50, 99)}
    return of_bench("latency", columns)


def bench_of_bare() -> str:
    """What a call takes of a bare session's time."""
    sides = figures("bench")["latency"]["sides"]
    shares = {
        precision: " / ".join(f"{sides[f'ranker {precision}'][f'of_bare_at_{n}']:.2f}" for n in (32, 64, 128))
        for precision in ("fp32", "int8")
    }
    return f"{shares['fp32']} in fp32 and {shares['int8']} in int8"


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


def bench_deberta() -> str:
    """DeBERTa-v3-base's shape beside transformers."""
    columns = {
        "rows a second": "rows_per_second:.2f",
        "speed, transformers' eager torch = 1": "speed_of_eager:.2f",
        "largest difference, ONNX": "largest_difference:.0e",
    }
    return of_bench("deberta", columns)


def bench_memory() -> str:
    """Most memory of ``ranker score``, by the length of its input."""
    sides = figures("bench")["memory"]["sides"]
    parts = [
        f"{side['peak_MiB']:.0f} MiB for {int(name.split()[0]):,} short rows" for name, side in reversed(sides.items())
    ]
    over = next(reversed(sides.values()))["over_the_file_MiB"]
    return f"{' and '.join(parts)} ({over:.0f} MiB more than the model's file)"


def bench_million() -> str:
    """For the README: the memory of a million rows."""
    name, side = max(figures("bench")["memory"]["sides"].items(), key=lambda item: int(item[0].split()[0]))
    return f"{side['peak_MiB']:.0f} MiB of memory for {int(name.split()[0]):,} rows, no torch"


def bench_host() -> str:
    """What an answer costs on the host, without a model."""
    sides = figures("bench")["host"]["sides"]
    whole, tokenizer, rest = (side["microseconds_of_an_answer"] for side in sides.values())
    return (
        f"{whole:.0f} microseconds of an answer with an engine that computes nothing, of which {tokenizer:.0f} in the "
        f"tokenizer and {rest:.0f} in the rest"
    )


def bench_blender() -> str:
    """For the README: ranking 16 candidates beside LLM-Blender."""
    sides = figures("bench")["ranking"]["sides"]
    ours = {
        name.removesuffix(", N=16"): side["speed_of_LLM-Blender"]
        for name, side in sides.items()
        if name.endswith(", N=16") and name.startswith("ranker")
    }
    int8, same = ours["ranker pairrm int8"], ours["ranker ordered_pair fp32, both orders"]
    return f"{int8:.0f} times its speed (int8, order-free model); its own model with the same ranks: {same:.1f} times"


def serving() -> str:
    """The server beside the bare engine and naive servers."""
    rows = []
    for kind, run in figures("serving").items():
        rates, of = run["items_per_second"], run["served_of"]
        names = ("bare", "served", "naive, same engine", "naive, torch")
        cells = [f"{rates[name]:.0f}" if name in rates else "" for name in names]
        ratios = [f"{of[name]:.2f}" if name in of else "" for name in ("bare", "naive, same engine", "naive, torch")]
        rows.append([f"{kind} (n={run['items']})", *cells, *ratios])
    return table(
        "items a second | bare engine | served | naive server, same engine | naive server, torch | served of bare | "
        "of naive, same engine | of naive, torch",
        rows,
    )


def serving_conditions() -> str:
    """Where and when."""
    runs = [*figures("serving").values()]
    shared = {conditions(run) for run in runs}
    if len(shared) > 1:
        raise SystemExit(f"serving.json: expected one machine and day, found {sorted(shared)}")
    return f"{shared.pop()}; {runs[0]['clients']} clients, medians of {number(runs[0]['rounds'], 'round')}"


def bench_ranking_conditions() -> str:
    """Where and with what ranking was measured."""
    return conditions_of("ranking")


def bench_decoder_conditions() -> str:
    """Where and with what the decoder was measured."""
    return conditions_of("decoder")


def bench_deberta_conditions() -> str:
    """Where and with what DeBERTa's shape was measured."""
    return conditions_of("deberta")


def bench_memory_conditions() -> str:
    """Where and with what memory was measured."""
    return conditions_of("memory")


def bench_host_conditions() -> str:
    """Where and with what the host's part was measured."""
    return conditions_of("host")
