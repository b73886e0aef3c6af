"""The published suites: where each is, how its rows become groups, and which rule gives its numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ranker.evaluation.suites import rules
from ranker.records import Group, Message, Prompt
from ranker.scoring.protocol import GroupScores

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """A row, the results of its groups, and the number of its bootstrap draw (a draw is all rows of one ``unit``)."""

    row: Row
    results: tuple[GroupScores, ...]
    draw: int = 0

    @property
    def scores(self) -> np.ndarray:
        """Scores of the first group."""
        return self.results[0].scores

    @property
    def leads(self) -> list[float]:
        """The first answer's score above the second's in each group; NaN where it failed."""
        return [float(result.scores[0] - result.scores[1]) for result in self.results]


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite on the hub, or without a ``path`` one that is published as files with the same columns.

    ``groups`` gives the groups of a row, which are scored in their own order; ``figures`` computes the suite's numbers
    from all rows; ``parts`` names the figures of a part of the rows to which a row belongs. Rows of one ``unit`` are
    drawn together when rows are resampled for the intervals.
    """

    path: str | None
    split: str
    columns: tuple[str, ...]
    groups: Callable[[Row], tuple[Group, ...]]
    figures: Callable[[Sequence[Item]], dict[str, float]]
    parts: Callable[[Row], tuple[str, ...]]
    configs: tuple[str | None, ...] = (None,)
    revision: str = "main"
    unit: Callable[[Row, int], Any] = lambda row, number: number


def _pair(prompt: Prompt, first: str, second: str) -> tuple[Group, ...]:
    return (Group(prompt, (first, second)),)


def _both_orders(prompt: Prompt, first: str, second: str) -> tuple[Group, ...]:
    return Group(prompt, (first, second)), Group(prompt, (second, first))


def _all(row: Row) -> tuple[Group, ...]:
    return (Group(row["prompt"], (*row["chosen"], *row["rejected"])),)


def _wins(items: Sequence[Item], key: str) -> dict[str, list[float]]:
    """Per subset whether the first answer has the strictly higher score; ties and failures count as lost."""
    wins: dict[str, list[float]] = defaultdict(list)
    for item in items:
        wins[str(item.row[key])].append(float(item.leads[0] > 0))
    return wins


def _rewardbench(items: Sequence[Item]) -> dict[str, float]:
    accuracies = {subset: float(np.mean(wins)) for subset, wins in sorted(_wins(items, "subset").items())}
    return rules.rewardbench(accuracies) | accuracies


def _sections(subset: str) -> list[str]:
    return [s for s, subsets in (rules.SECTIONS | {"Prior Sets": rules.PRIOR_SETS}).items() if subset in subsets]


def _rewardbench_2(items: Sequence[Item]) -> dict[str, float]:
    credit: dict[str, list[float]] = defaultdict(list)
    tied: list[rules.TiesRow] = []
    for item in items:
        scores = np.nan_to_num(item.scores, nan=-np.inf)
        if item.row["subset"] == "Ties":
            kind = str(item.row["id"]).partition(":")[0]
            tied.append(rules.TiesRow.read(f"{kind}:{item.draw}", scores.tolist(), int(item.row["num_correct"])))
        else:
            credit[item.row["subset"]].append(rules.best_of_four(scores.tolist()) if np.isfinite(scores[0]) else 0.0)
    figures = {subset: float(np.mean(values)) for subset, values in sorted(credit.items())}
    if tied:
        figures["Ties"] = rules.ties(tied)["score"]
    return {"average": float(np.mean([*figures.values()])), **figures}


def _rm_bench(items: Sequence[Item]) -> dict[str, float]:
    scores: dict[str, list[np.ndarray]] = defaultdict(list)
    for item in items:
        scores[_domain(item.row)].append(item.scores)
    domains = {name: rules.rm_bench(np.array(s)[:, :3], np.array(s)[:, 3:]) for name, s in sorted(scores.items())}
    means = {key: float(np.mean([figures[key] for figures in domains.values()])) for key in ("hard", "normal", "easy")}
    averages = {name: figures["average"] for name, figures in domains.items()}
    return {"average": float(np.mean([*averages.values()])), **means, **averages}


def _judgebench(items: Sequence[Item]) -> dict[str, float]:
    verdicts: dict[str, list[float]] = defaultdict(list)
    for item in items:
        first, second = item.leads
        label = np.array([1 if item.row["label"] == "A>B" else -1])
        verdict = float(rules.two_orders(np.array([first]), np.array([-second]), label)[0])
        verdicts[_source(item.row)].append(verdict)
    parts = {part: float(np.mean(values)) for part, values in sorted(verdicts.items())}
    return {"overall": float(np.mean([v for values in verdicts.values() for v in values])), **parts}


JUDGEBENCH: Final = ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench")
VOTES: Final = {"model_a": 1, "model_b": -1}
"""MT-bench's human votes other than ties."""


def _source(row: Row) -> str:
    source = str(row["source"])
    return next((name for name in JUDGEBENCH if source.startswith(name)), source)


def _domain(row: Row) -> str:
    """The two halves of safety are one domain."""
    return str(row["domain"]).partition("-")[0]


def _by_config(items: Sequence[Item]) -> dict[str, float]:
    wins = _wins(items, "config")
    parts = {name: float(np.mean(values)) for name, values in sorted(wins.items())}
    return {"average": float(np.mean([v for values in wins.values() for v in values])), **parts}


def _hhh(row: Row) -> tuple[Group, ...]:
    choices, labels = row["targets"]["choices"], row["targets"]["labels"]
    best = list(labels).index(1)
    return _pair(row["input"], choices[best], choices[1 - best])


def _llmbar(row: Row) -> tuple[Group, ...]:
    answers = (row["output_1"], row["output_2"])
    best = int(row["label"]) - 1
    return _pair(row["input"], answers[best], answers[1 - best])


def _mt_bench(row: Row) -> tuple[Group, ...]:
    """Both conversations up to the judged turn, in both orders: the user's turns, and all answers of each side."""
    turns = 2 * int(row["turn"])
    first, second = row["conversation_a"][:turns], row["conversation_b"][:turns]
    prompt = tuple(Message("user", t["content"]) for t in first if t["role"] == "user")
    texts = ["\n\n".join(t["content"] for t in side if t["role"] == "assistant") for side in (first, second)]
    return _both_orders(prompt[0].content if len(prompt) == 1 else prompt, *texts)


def _scored(item: Item) -> bool:
    return all(result.error is None for result in item.results)


def _verdict(item: Item) -> int:
    """1 or -1 for the first or the second answer by both orders together, 0 where the orders cancel."""
    first, second = item.leads
    return int(np.sign(first - second)) if np.isfinite(first - second) else 0


def _consistent(items: Sequence[Item]) -> float:
    leads = [np.sign(item.leads) for item in items]
    return float(np.mean([first == -second for first, second in leads]))


def _mt_bench_human(items: Sequence[Item]) -> dict[str, float]:
    """Agreement with all human votes, where a human tie is a disagreement, and with the votes other than ties."""
    agreed = np.array([_verdict(item) == VOTES.get(item.row["winner"], 9) for item in items])
    decided = np.array([item.row["winner"] in VOTES for item in items])
    turns = np.array([int(item.row["turn"]) for item in items])
    parts = {"agreement without ties": agreed[decided], "agreement": agreed}
    parts |= {f"turn {turn} without ties": agreed[decided & (turns == turn)] for turn in sorted(set(turns.tolist()))}
    return {name: float(np.mean(values)) if len(values) else float("nan") for name, values in parts.items()}


def _auto_j(items: Sequence[Item]) -> dict[str, float]:
    """Agreement with the label by both orders (a labelled tie is a disagreement), its scenarios, and consistency."""
    agreed: dict[str, list[float]] = defaultdict(list)
    for item in items:
        agreed[str(item.row["scenario"])].append(float(_verdict(item) == {0: 1, 1: -1}.get(int(item.row["label"]), 9)))
    parts = {name: float(np.mean(values)) for name, values in sorted(agreed.items())}
    overall = float(np.mean([v for values in agreed.values() for v in values]))
    return {"agreement": overall, "consistency": _consistent(items), **parts}


def _pandalm(items: Sequence[Item]) -> dict[str, float]:
    """Accuracy and macro-averaged precision, recall and F1 against the majority of three (0 a tie, 1, 2).

    Where all three differ the first annotator decides, as in the authors' script.
    """
    gold = [Counter(int(item.row[f"annotator{k}"]) for k in (1, 2, 3)).most_common(1)[0][0] for item in items]
    verdicts = [{1: 1, -1: 2, 0: 0}[_verdict(item)] if _scored(item) else -1 for item in items]
    labels = (0, 1, 2)
    hits = {k: sum(g == k and s == k for g, s in zip(gold, verdicts, strict=True)) for k in labels}
    precision = [hits[k] / verdicts.count(k) if k in verdicts else 0.0 for k in labels]
    recall = [hits[k] / gold.count(k) if k in gold else 0.0 for k in labels]
    f1 = [2 * p * r / (p + r) if p + r else 0.0 for p, r in zip(precision, recall, strict=True)]
    means = {"precision": precision, "recall": recall, "F1": f1}
    return {"accuracy": sum(hits.values()) / len(gold)} | {name: float(np.mean(v)) for name, v in means.items()}


def _instruction(row: Row) -> str:
    return "\n".join(filter(None, (row["instruction"], row.get("input"))))


SUITES: Final[dict[str, Suite]] = {
    "rewardbench": Suite(
        "allenai/reward-bench",
        "filtered",
        ("prompt", "chosen", "rejected", "subset"),
        lambda row: _pair(row["prompt"], row["chosen"], row["rejected"]),
        _rewardbench,
        lambda row: (row["subset"], *_sections(row["subset"])),
    ),
    "rewardbench-2": Suite(
        "allenai/reward-bench-2",
        "test",
        ("prompt", "chosen", "rejected", "subset", "id", "num_correct"),
        _all,
        _rewardbench_2,
        lambda row: (row["subset"],),
        unit=lambda row, number: str(row["id"]).partition(":")[2] if row["subset"] == "Ties" else f"row {number}",
    ),
    "rm-bench": Suite(
        "THU-KEG/RM-Bench",
        "train",
        ("prompt", "chosen", "rejected", "domain"),
        _all,
        _rm_bench,
        lambda row: (_domain(row),),
    ),
    "judgebench": Suite(
        "ScalerLab/JudgeBench",
        "gpt",
        ("question", "response_A", "response_B", "label", "source"),
        lambda row: _both_orders(row["question"], row["response_A"], row["response_B"]),
        _judgebench,
        lambda row: (_source(row),),
    ),
    "hhh": Suite(
        "HuggingFaceH4/hhh_alignment",
        "test",
        ("input", "targets"),
        _hhh,
        _by_config,
        lambda row: (row["config"],),
        configs=("harmless", "helpful", "honest", "other"),
        revision="refs/convert/parquet",
    ),
    "llmbar": Suite(
        None,
        "",
        ("input", "output_1", "output_2", "label"),
        _llmbar,
        _by_config,
        lambda row: (row["config"],),
    ),
    "mt-bench-human": Suite(
        "lmsys/mt_bench_human_judgments",
        "human",
        ("conversation_a", "conversation_b", "winner", "turn"),
        _mt_bench,
        _mt_bench_human,
        lambda row: ("agreement without ties", f"turn {row['turn']} without ties") if row["winner"] in VOTES else (),
        unit=lambda row, number: row.get("question_id", number),
    ),
    "auto-j": Suite(
        None,
        "",
        ("prompt", "response 1", "response 2", "label", "scenario"),
        lambda row: _both_orders(row["prompt"], row["response 1"], row["response 2"]),
        _auto_j,
        lambda row: (row["scenario"],),
    ),
    "pandalm": Suite(
        None,
        "",
        ("instruction", "response1", "response2", "annotator1", "annotator2", "annotator3"),
        lambda row: _both_orders(_instruction(row), row["response1"], row["response2"]),
        _pandalm,
        lambda row: (),
    ),
}
"""By name. LLMBar, Auto-J and PandaLM publish files: a folder of ``dataset.json``, ``testdata_pairwise.jsonl`` and
``testset-v1.json``."""
