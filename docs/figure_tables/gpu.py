"""Figures of a GPU."""

from __future__ import annotations

from typing import Any

from figure_tables import figures, table

SHAPES = {"minilm": "MiniLM", "bert-base": "BERT-base"}


def beside_trl(shape: str, variant: str = "") -> float:
    """Speed of training over TRL's, at natural lengths and with default settings."""
    lines = [line for line in lines_of("training") if (line["shape"], line["length"]) == (shape, "natural")]
    speed = {line["side"]: line["tokens_per_second"] for line in lines}
    return float(speed["ranker"] / speed[f"TRL{variant}"])


def gpu_card() -> str:
    """The card and the versions of the figures of a GPU."""
    run = figures("gpu")
    versions = ", ".join(f"{name} {run[name]}" for name in ("torch", "onnxruntime-gpu", "transformers", "trl"))
    return f"One {run['card']}, {run['cores']} cores, {versions}, {run['date']}"


def lines_of(part: str, run: str = "after") -> list[dict[str, Any]]:
    """The lines of a part of ``benchmarks/gpu.py``."""
    return [line for line in figures("gpu")[run]["lines"] if line["part"] == part]


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
