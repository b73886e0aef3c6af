"""What was counted: equal scores, interrupts, steady scores, the server under load."""

from __future__ import annotations

from typing import Any

from figure_tables import HERE, figures
from figure_tables.gpu import SHAPES, beside_trl


def rows() -> list[tuple[str, str, str]]:
    """What was counted, the figure with its n, and where it is explained."""
    same, steady = figures("compatibility"), figures("steadiness")
    load, soak = figures("overload")["10x"], figures("soak")
    equal, n = (sum(row[key] for row in same["rows"]) for key in ("equal", "n"))
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
        ("interrupts at random moments", interrupts_in_all(), "results.md#interrupts"),
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


def interrupts_in_all() -> str:
    """Interrupts of every command, and what they did."""
    kills = figures("kills")
    signals = ", ".join(f"{sum(part['kills'].values())} of `{name}`" for name, part in kills.items())
    bad = sum(part[key] for part in kills.values() for key in ("lost", "doubled", "leftovers", "wrong_codes"))
    finished, alike = (sum(part[key] for part in kills.values()) for key in ("results", "equal"))
    return f"{signals}: {bad} lost, doubled or left behind; {alike} of {finished} results equal to the byte"


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


def steady_fp32() -> str:
    """Scores in fp32, in batches and alone."""
    return steady("fp32")


def steady_int8() -> str:
    """Scores in int8, in batches and alone."""
    return steady("int8")


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
