"""Training beside other libraries."""

from __future__ import annotations

from statistics import mean, median
from typing import Any

from figure_tables import conditions, figures, number, table

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


def deberta_training() -> str:
    """Training DeBERTa beside TRL: speed and padding."""
    sides = figures("trainers_deberta")["sides"]
    lines = []
    for name, side in sides.items():
        ours = [
            f"{s['tokens_per_second']:.2f} in tokens, {s['seconds']:.2f} in seconds"
            for s in side["speed_of_ours"].values()
        ]
        speed, seconds = f"{side['tokens_per_second']:.0f}", f"{median(side['seconds']):.0f}"
        lines.append([TRAINERS[name], speed, f"{side['padding']:.0%}", seconds, "; ".join(ours)])
    return table("side | real tokens a second | padding | seconds | speed of ours over it", lines)


def deberta_training_conditions() -> str:
    """Where and with what DeBERTa was trained."""
    run = figures("trainers_deberta")
    return conditions(run | {"versions": run["sides"]["trl"]["versions"]}) + f"; {run['comparisons']} comparisons"


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
        if ours in sides[name]["speed_of_ours"]:  # both have runs of a seed
            lead = lead_of(sides[name]["accuracy_of_ours_less_its"][ours])
            parts.append(
                f"{sides[name]['speed_of_ours'][ours]['tokens_per_second']:.2f} times {library}'s (accuracy {lead})"
            )
    return "; ".join(parts)


SIDES_OF_GRAPHS = {"once": "`once`", "pairs": "pair by pair", "trl": "TRL"}


def graphs() -> str:
    """Each answer read once beside pair by pair and TRL: tokens, seconds, accuracy."""
    rows = []
    for name, of_set in figures("graphs")["sets"].items():
        for side, s in of_set["sides"].items():
            each = ", ".join(f"{value:.3f}" for value in s["accuracy"])
            seconds = ", ".join(f"{value:,}" for value in s["seconds"])
            title = f"{name}: {of_set['runs']}"
            average = f"{mean(s['accuracy']):.3f}"
            rows.append([title, SIDES_OF_GRAPHS[side], f"{s['tokens'] / 1e6:.3f}", seconds, each, average])
    return table("rows | side | real tokens read, M | seconds | accuracy of each run | mean", rows)


def lead_of(difference: dict[str, Any]) -> str:
    """A paired difference of accuracy, with its interval."""
    return f"{difference['value']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"


def graphs_differences() -> str:
    """The paired differences of accuracy."""
    rows = [
        [
            f"{d['set']}: once - {SIDES_OF_GRAPHS[d['side']]}",
            lead_of(d),
            f"{d['comparisons']:,}",
            f"{d['prompts']}",
        ]
        for d in figures("graphs")["differences"]
    ]
    return table("difference of accuracy, paired | 95 % over prompts | comparisons | prompts", rows)


def graphs_conditions() -> str:
    """Where and when."""
    return conditions(figures("graphs"))


def graphs_short() -> str:
    """For the page of comparison graphs: tokens, and accuracy beside pair by pair."""
    run = figures("graphs")
    rows = []
    for name, of_set in run["sets"].items():
        once, pairs = of_set["sides"]["once"], of_set["sides"]["pairs"]
        difference = next(d for d in run["differences"] if (d["set"], d["side"]) == (name, "pairs"))
        share = f"{once['tokens'] / pairs['tokens']:.0%} of pair by pair"
        accuracies = [f"{mean(side['accuracy']):.3f}" for side in (once, pairs)]
        rows.append([f"{name}, {of_set['runs']}", share, *accuracies, lead_of(difference)])
    rows.append(["HH-RLHF, no answer twice", "all", "the same model", "", ""])
    head = "rows | tokens read | accuracy, once | accuracy, pair by pair | difference, 95 % over prompts"
    return table(head, rows)


def graphs_readme() -> str:
    """For the README: accuracy and tokens beside pair by pair."""
    parts = []
    for name, of_set in figures("graphs")["sets"].items():
        once, pairs = of_set["sides"]["once"], of_set["sides"]["pairs"]
        parts.append(
            f"{name}: accuracy {mean(once['accuracy']):.3f} against {mean(pairs['accuracy']):.3f} with "
            f"{once['tokens'] / pairs['tokens']:.0%} of its tokens"
        )
    return "; ".join(parts)


def prefix_training() -> str:
    """A prompt read once for its answers in a training step of a decoder."""
    run = figures("prefix_training")
    return (
        f"{run['layers']} layers of width {run['hidden']}, {number(run['prompts'], 'prompt')} of {run['prompt']} words "
        f"with {number(run['answers'], 'answer')} of {run['answer']} each, fp32: {run['tokens']:,} instead of "
        f"{run['tokens_without']:,} tokens, {run['speed']:.2f} times the speed, gradients equal to "
        f"{run['gradient_difference']:.0e} of the largest ({conditions(run)})"
    )
