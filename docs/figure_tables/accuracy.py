"""How accurate models are: the sample, 8-bit numbers, human preferences, schedules and group sizes."""

from __future__ import annotations

from typing import Any

from figure_tables import conditions, figures, interval, number, table


def sample() -> str:
    """What ``make train-pairrm`` reaches."""
    run = figures("sample")
    counted = {"n": run["comparisons"], "prompts": run["prompts"]}
    random, longer, words = (run["baselines"][name] for name in ("random", "longer_wins", "bag_of_words"))
    int8, fp32 = run["exports"]["model.int8.onnx"], run["exports"]["model.onnx"]
    rows = [
        ["accuracy", f"{interval(run['accuracy'], '')} ({counted['n']} comparisons of {counted['prompts']} prompts)"],
        [
            "random / longer wins / bag of words on the answers",
            " / ".join(interval(b, "") for b in (random, longer, words)),
        ],
        ["order flips, in the given order of the candidates", interval(run["order_flips"])],
        ["log-loss, Brier", f"{interval(run['log_loss'], '')} nats, {interval(run['brier'], '')}"],
        [
            "int8 against torch, in its parity gate",
            f"Kendall tau-b {int8['tau_b']:.3f}, {int8['flips']:.1%} of decisions flipped (largest margin "
            f"{int8['largest_flipped_margin']:.2f} logits), accuracy {int8['accuracy_exported']:.3f} against "
            f"{int8['accuracy_source']:.3f} (n={int8['n']})",
        ],
        ["fp32 ONNX against torch, largest difference over 8 shapes", f"{fp32['max_difference']:.1e} logits"],
        [
            "scores of a group with its candidates in another order, largest difference",
            f"{run['order_difference']:.1e} logits in fp32",
        ],
    ]
    return table("what | figure", rows)


def sample_conditions() -> str:
    """Where the sample's run was made, and what it took."""
    run = figures("sample")
    took = run["seconds"]
    text = f"{conditions(run)}. Training took {run['training']['seconds']:.0f} s ({run['training']['steps']} steps)"
    if took:
        text += (
            f" of the {took['the rest']} s that the command takes after {took['installation']} s of installation, "
            "other jobs on the machine"
        )
    return text


def sample_families() -> str:
    """Accuracy by family of questions."""
    return table(
        "family | accuracy", [[name, interval(share)] for name, share in sorted(figures("sample")["subsets"].items())]
    )


def sample_kinds() -> str:
    """Accuracy by kind of pair."""
    kinds = sorted(figures("sample")["kinds"].items())
    return table(
        "kind of pair, better first | accuracy", [[name.replace("_", " "), interval(share)] for name, share in kinds]
    )


def int8() -> str:
    """What 8-bit numbers cost, by how they are made."""
    rows = []
    for name, side in figures("int8")["sides"].items():
        plan = side.get("plan", {})
        beside = len(plan.get("outlier_channels", ())) if "picks" in name else 0
        rows.append(
            [
                name + (f": outlier channels beside {number(beside, 'product')}" if beside else ""),
                f"{side['tau_b']:.4f}" if side["tau_b"] > 0.999 else f"{side['tau_b']:.3f}",
                f"{side['flips']:.1%}",
                f"{side['largest_flipped_margin']:.3f}",
                f"{side['accuracy_source']:.3f} / {side['accuracy_exported']:.3f}",
                "no" if side["losses"] else "yes",
                "for GPUs" if "fp16" in name else f"{side['speed_of_fp32']:.2f}",
            ]
        )
    head = "| tau-b | flips | largest flipped margin | accuracy, torch / exported | passes | speed, fp32 = 1"
    return table(f"how {head}", rows)


def int8_conditions() -> str:
    """Where and on how many comparisons."""
    run = figures("int8")
    n = next(iter(run["sides"].values()))["n"]
    return f"{conditions(run)}; n = {n:,} comparisons of `sample:validation`, medians of {run['rounds']} rounds"


def preferences() -> str:
    """Layouts on human judgements, beside the baselines."""
    rows = []
    for name, of_set in figures("real_data")["sets"].items():
        for model, m in of_set["models"].items():
            each = ", ".join(f"{value:.3f}" for value in m["accuracies"])
            rest = [f"{m['log_loss']:.3f}", f"{m['order_flips']:.3f}", f"{m['steps']}", f"{m['seconds']}"]
            rows.append([name, f"`{model}`", each, interval(m["accuracy"]), *rest])
    for name, of_set in figures("real_data")["sets"].items():
        for label, share in of_set["baselines"].items():
            rows.append([name, label.replace("_", " "), "", interval(share), "", "", "", ""])
    return table("set | model | accuracy of each seed | mean, 95 % interval | log-loss | flips | steps | seconds", rows)


def preferences_conditions() -> str:
    """Where and when."""
    return conditions(figures("real_data"))


LAYOUTS = {
    "pointwise": ("`pointwise`", "one answer; scores compare across prompts", "N (S + C)"),
    "set_encoder": ("`set_encoder` (recipe `pairrm`)", "one row per answer, rows see each other", "N (S + C)"),
    "shared_prompt": ("`shared_prompt`", "the prompt once, all answers beside it", "S + N C"),
    "ordered_pair": ("`ordered_pair` (LLM-Blender's PairRM)", "every ordered pair", "N (N - 1) (S + 2 C)"),
}


def layouts() -> str:
    """For the README: which model to train."""
    sets = figures("real_data")["sets"]
    rows = []
    for name, (title, reads, tokens) in LAYOUTS.items():
        models = [of_set["models"][name] for of_set in sets.values()]
        flips = sorted(model["order_flips"] for model in models)
        changes = "no" if not flips[-1] else f"yes: {flips[0]:.0%} to {flips[-1]:.0%} of pairs"
        rows.append([title, reads, *(f"{m['accuracy']['value']:.3f}" for m in models), changes, tokens])
    heads = [f"{name} (n={next(iter(of_set['models'].values()))['accuracy']['n']})" for name, of_set in sets.items()]
    return table(f"`model.type` | reads | {' | '.join(heads)} | order can change the score | tokens", rows)


SCHEDULES = {
    "all, both orders": "`all`, both orders",
    "all": "`all`",
    "sequential_halving": "`sequential_halving`",
    "active": "`active`",
    "sequential_halving, a small budget": "`sequential_halving`, budget {share:.0%} of all ordered pairs",
    "quicksort": "`quicksort`",
    "swiss": "`swiss`",
    "circulant": "`circulant`",
    "knockout": "`knockout`",
}


def schedules() -> str:
    """Schedules of comparisons in a simulation."""
    run = figures("schedules")
    rows = [
        [
            f"{line['n']}",
            SCHEDULES[line["schedule"]].format(share=run["small_budget"]),
            f"{line['comparisons']:.0f}",
            f"{line['share']:.1%}",
            f"{line['rounds']:.0f}",
            interval(line["hit"]),
            f"{line['tau']:.3f} ± {line['tau_half']:.3f}",
        ]
        for n in dict.fromkeys(line["n"] for line in run["figures"])
        for name in SCHEDULES
        for line in run["figures"]
        if (line["n"], line["schedule"]) == (n, name)
    ]
    return table("N | schedule | comparisons | of all ordered pairs | rounds | top-1 hit | tau", rows)


def schedules_conditions() -> str:
    """When the simulation was run."""
    run = figures("schedules")
    return f"numpy {run['numpy']}, {run['date']}"


FEWEST_PROMPTS = 10
"""Of a line of a table; an interval over fewer says nothing."""


def group_sizes() -> str:
    """Real lists, by the largest group in training."""
    rows = [
        [
            f"{line['n']}",
            f"`{line['layout']}`",
            f"{line['most']}",
            way_of(line),
            f"{line['comparisons']:.0f}",
            interval(line["hit"]),
            interval(line["tau_b"]),
        ]
        for line in figures("group_sizes")["figures"]
        if line["hit"]["n"] >= FEWEST_PROMPTS
    ]
    return table("N | layout | largest group | ranked by | comparisons | top-1 hit | tau-b", rows)


def way_of(line: dict[str, Any]) -> str:
    """How a list was ranked."""
    return line["way"] if line["way"] == "one pass" else f"`{line['way']}`"


def group_sizes_conditions() -> str:
    """Where, and what chance gives."""
    run = figures("group_sizes")
    sizes = {str(line["n"]) for line in run["figures"] if line["hit"]["n"] >= FEWEST_PROMPTS}
    shares = {n: share for n, share in run["random"].items() if n in sizes}
    chance = " and in ".join(f"{share:.2f} of the lists at N = {n}" for n, share in shares.items())
    return f"{conditions(run)}; {run['rows']} training lists. A random choice hits the best in {chance}"
