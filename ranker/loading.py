"""``ranker.load``: any model this package knows, ready to score."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, get_args, overload

import numpy as np

from ranker.config import Quantization
from ranker.errors import ConfigError, ModelFileError, ScoringError, nearest
from ranker.extras import require
from ranker.ranking.ranks import Ranking, rank_scores
from ranker.ranking.tournament import Choice, ranked, with_reference
from ranker.records import Group, Message, Prompt
from ranker.runtime.scorer import OnnxScorer
from ranker.runtime.session import Device, int8_warning, processor_has
from ranker.scorer import Calibration, Floats, GroupScores, Scorer, warn_of_lone

logger = logging.getLogger(__name__)

Orders = Literal["both", "one"]
LoadPrecision = Literal["fp32", "bf16"]


class How(TypedDict, total=False):
    """How candidates are ranked, where not in one pass: a schedule of comparisons, and the most there may be."""

    schedule: Choice | None
    budget: int | None


class Ranker:
    """A loaded model with the calls that scripts use; ``scorer`` has the batch interface with per-row errors.

    Every method takes one prompt or a list of prompts. A prompt is text or a tuple of ``Message``.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    @property
    def calibration(self) -> Calibration:
        """Temperature, mean and standard deviation of the scores, where ``ranker eval --calibrate`` measured them."""
        return self.scorer.calibration

    @overload
    def score(self, prompt: Prompt, candidates: Sequence[str]) -> Floats: ...
    @overload
    def score(self, prompt: list[Prompt], candidates: Sequence[Sequence[str]]) -> list[Floats]: ...
    def score(
        self, prompt: Prompt | list[Prompt], candidates: Sequence[str] | Sequence[Sequence[str]]
    ) -> Floats | list[Floats]:
        """Raw fp32 logits of each candidate, higher is better; for a list of prompts one array each.

        Raises:
            ConfigError: not one list of candidates per prompt.
            ScoringError: a group could not be scored; ``scorer.score`` reports that per group instead.
        """
        groups = _groups(prompt, candidates)
        warn_of_lone(self.scorer, groups)
        scores = [_checked(result) for result in self.scorer.score(groups)]
        return scores if isinstance(prompt, list) else scores[0]

    @overload
    def rank(self, prompt: Prompt, candidates: Sequence[str], **how: Unpack[How]) -> Ranking: ...
    @overload
    def rank(self, prompt: list[Prompt], candidates: Sequence[Sequence[str]], **how: Unpack[How]) -> list[Ranking]: ...
    def rank(
        self,
        prompt: Prompt | list[Prompt],
        candidates: Sequence[str] | Sequence[Sequence[str]],
        **how: Unpack[How],
    ) -> Ranking | list[Ranking]:
        """Order, ranks (1 = best) and scores of the candidates; for a list of prompts one ``Ranking`` each.

        Without ``schedule`` and ``budget`` all candidates are scored: in one pass by order-free models (windows where
        there are more than ``WINDOW``), by all ordered pairs by the others. With one of them candidates are compared
        in pairs (``ranker.ranking.tournament``).

        Args:
            prompt: one, or a list.
            candidates: of the prompt, or a list for each.
            how: ``schedule`` (auto, all, knockout, sort, swiss, circulant, focus, active), and ``budget``, the most
                comparisons.

        Raises:
            ConfigError: as in ``score``, or an unknown schedule.
            ScoringError: as in ``score``, or a budget that is too small for a group.
        """
        groups = _groups(prompt, candidates)
        rankings = [rank_scores(_checked(result)) for result in ranked(self.scorer, groups, **how)]
        return rankings if isinstance(prompt, list) else rankings[0]

    @overload
    def best_of_n(self, prompt: Prompt, candidates: Sequence[str], **how: Unpack[How]) -> str: ...
    @overload
    def best_of_n(self, prompt: list[Prompt], candidates: Sequence[Sequence[str]], **how: Unpack[How]) -> list[str]: ...
    def best_of_n(
        self,
        prompt: Prompt | list[Prompt],
        candidates: Sequence[str] | Sequence[Sequence[str]],
        **how: Unpack[How],
    ) -> str | list[str]:
        """The best candidate's text, of equals the first; for a list of prompts one each. Arguments as in ``rank``.

        Raises:
            ConfigError: as in ``rank``, or a prompt without candidates.
            ScoringError: as in ``score``.
        """
        groups = _groups(prompt, candidates)
        if not all(group.candidates for group in groups):
            raise ConfigError("expected at least one candidate of every prompt to choose the best of")
        scores = [_checked(result) for result in ranked(self.scorer, groups, **how)]
        best = [group.candidates[int(np.argmax(own))] for group, own in zip(groups, scores, strict=True)]
        return best if isinstance(prompt, list) else best[0]

    @overload
    def rank_with_ref(self, prompt: Prompt, candidates: Sequence[str], reference: str) -> Floats: ...
    @overload
    def rank_with_ref(
        self, prompt: list[Prompt], candidates: Sequence[Sequence[str]], reference: Sequence[str]
    ) -> list[Floats]: ...
    def rank_with_ref(
        self,
        prompt: Prompt | list[Prompt],
        candidates: Sequence[str] | Sequence[Sequence[str]],
        reference: str | Sequence[str],
    ) -> Floats | list[Floats]:
        """Log-odds (candidates,) that each candidate is better than the reference: scores that compare across prompts.

        N comparisons instead of N (N - 1); for a list of prompts one reference and one array each.

        Raises:
            ConfigError: not one reference per prompt.
            ScoringError: a candidate could not be compared.
        """
        groups = _groups(prompt, candidates)
        references = [reference] if isinstance(reference, str) else list(reference)
        if len(references) != len(groups):
            raise ConfigError(f"expected one reference per prompt ({len(groups)}), got {len(references)}")
        scores = [_checked(result) for result in with_reference(self.scorer, groups, references)]
        return scores if isinstance(prompt, list) else scores[0]

    @overload
    def compare(self, prompt: Prompt, a: str, b: str) -> float: ...
    @overload
    def compare(self, prompt: list[Prompt], a: Sequence[str], b: Sequence[str]) -> Floats: ...
    def compare(self, prompt: Prompt | list[Prompt], a: str | Sequence[str], b: str | Sequence[str]) -> float | Floats:
        """Log-odds that ``a`` is the better answer (> 0); for lists an array (prompts,).

        Raises:
            ConfigError: lists of different lengths.
            ScoringError: a pair could not be scored.
        """
        if isinstance(prompt, list) and (isinstance(a, str) or isinstance(b, str) or len(a) != len(b)):
            raise ConfigError(f"expected as many a as b, got {len(a)} and {len(b)}")
        pairs = list(zip(a, b, strict=True)) if isinstance(prompt, list) else [a, b]
        logits = self.scorer.compare(_groups(prompt, pairs))  # type: ignore[arg-type]
        if not np.isfinite(logits).all():
            raise ScoringError(f"pair {int(np.argmin(np.isfinite(logits)))} could not be scored")
        return logits if isinstance(prompt, list) else float(logits[0])


def load(
    path: str | Path,
    *,
    device: Device = "auto",
    threads: int | None = None,
    head_prefix: str | None = None,
    allow_pickle: bool = False,
    precision: LoadPrecision = "fp32",
    quantization: Quantization = "none",
    device_map: str | Mapping[str, Any] | None = None,
    padding_free: bool = False,
    orders: Orders = "both",
) -> Ranker:
    """Load a ``model.onnx`` (needs onnxruntime alone), or a checkpoint of any known format (the ``train`` extra).

    Args:
        path: the file, the folder, or a name on the model hub.
        device: ``auto``, ``cpu`` or ``cuda``; for a ``model.onnx`` also ``tensorrt``, which compiles it once per shape.
        threads: processor threads; default those this process may use.
        head_prefix: the head's name in a foreign checkpoint, where it is not one of the known ones.
        allow_pickle: whether a foreign checkpoint's weights may be pickles; only tensors are read from them.
        precision: ``bf16`` lets a checkpoint's backbone compute in bf16, about twice as fast on GPUs and on CPUs that
            have it; the head stays fp32. A ``model.onnx`` has the precision it was exported in.
        quantization: ``4bit`` or ``8bit`` weights of a checkpoint's backbone (bitsandbytes); its head stays fp32.
        device_map: how accelerate spreads a checkpoint over devices (``auto``), instead of ``device``.
        padding_free: whether a checkpoint reads rows without padding, by torch's variable-length kernel in bf16 on
            GPUs since Ampere, row by row on a CPU; every answer is then read after a prompt of its own.
        orders: ``one`` reads every pair once where the model reads ordered pairs (published PairRM, SteamSHP): half
            the work, and what the model thinks of an answer's place is no longer evened out.

    Raises:
        ConfigError: an unknown device, precision or order, TensorRT for a checkpoint, bf16 or ``padding_free`` of a
            ``model.onnx``, a model that has no padding-free reading, one order of an order-free model, or a GPU asked
            for and absent.
        ModelFileError: there is no such file, or it is damaged, foreign or from a newer version.
        CheckpointError: the folder is incomplete.
        MissingExtraError: what the model needs is not installed.
    """
    path = Path(path)
    if device not in get_args(Device):
        raise ConfigError(
            f"expected device {', '.join(get_args(Device))}, got '{device}'{nearest(device, get_args(Device))}"
        )
    if precision not in get_args(LoadPrecision):
        raise ConfigError(f"expected precision {' or '.join(get_args(LoadPrecision))}, got '{precision}'")
    if orders not in get_args(Orders):
        raise ConfigError(f"expected orders {' or '.join(get_args(Orders))}, got '{orders}'")
    if path.suffix == ".onnx" or path.is_file():
        if not path.exists():
            raise ModelFileError(f"{path}: found no file or folder; check the path")
        if precision != "fp32":
            raise ConfigError(f"{path}: a model.onnx has the precision it was exported in; load its checkpoint in bf16")
        if padding_free:
            raise ConfigError(f"{path}: a model.onnx reads padded rows; load its checkpoint padding_free")
        return _ordered(_onnx_scorer(path, device, threads), orders)
    options: dict[str, Any] = {"head_prefix": head_prefix, "allow_pickle": allow_pickle}
    if device_map is not None:
        options["device_map"] = device_map
    torch_scorer = _torch_scorer(path, device, threads, precision, quantization, options)
    if padding_free:
        _read_without_padding(torch_scorer)
    return _ordered(torch_scorer, orders)


def _read_without_padding(scorer: Any) -> None:
    if scorer.model.device.type == "cuda" and require("torch").cuda.get_device_capability() < (8, 0):
        raise ConfigError("padding_free needs a GPU since Ampere (compute capability 8.0); leave it off")
    require("ranker.models.backbones").read_without_padding(scorer.model)
    scorer.pipeline.share_prompts = False  # a shared prompt has a mask of its own


def _ordered(scorer: Any, orders: Orders) -> Ranker:
    if orders == "one":
        scorer.pipeline.read_one_order()
    return Ranker(scorer)


def _onnx_scorer(path: Path, device: Device, threads: int | None) -> OnnxScorer:
    scorer = OnnxScorer(path, device=device, threads=threads)
    slow = int8_warning() if scorer.on_cpu and scorer.manifest.precision.startswith("int8") else None
    if slow is not None:
        logger.warning("%s: %s", path, slow)
    return scorer


def _torch_scorer(
    path: Path,
    device: Device,
    threads: int | None,
    precision: LoadPrecision,
    quantization: Quantization,
    options: dict[str, Any],
) -> Any:
    if device == "tensorrt":
        raise ConfigError(f"{path}: TensorRT runs a model.onnx; export the checkpoint with --precision fp16")
    torch = require("torch")
    folder = require("ranker.checkpoints.hub").local(str(path), allow_pickle=options["allow_pickle"])
    options |= require("ranker.models.backbones").quantization(quantization)
    model, tokenizer = require("ranker.checkpoints.native").load(folder, **options)
    scorer = require("ranker.models.scorer").TorchScorer(model, tokenizer, bf16=precision == "bf16")
    if threads is not None:
        torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("CUDA was asked for, but torch finds none; check the driver with nvidia-smi")
    if device != "cpu" and torch.cuda.is_available() and "device_map" not in options and quantization == "none":
        scorer.model.to("cuda")
    on_cpu = scorer.model.device.type == "cpu"
    if precision == "bf16" and on_cpu and not processor_has("avx512_bf16", "amx_bf16", "bf16"):
        logger.warning("this CPU has no bf16 instructions, so bf16 is slower than fp32 here")
    return scorer


def _groups(prompt: Prompt | list[Prompt], candidates: Sequence[str] | Sequence[Sequence[str]]) -> list[Group]:
    if not isinstance(prompt, list):
        return [_group(prompt, candidates)]
    if isinstance(candidates, str) or len(prompt) != len(candidates):
        raise ConfigError(f"expected one list of candidates per prompt ({len(prompt)}), got {len(candidates)}")
    return [_group(p, c) for p, c in zip(prompt, candidates, strict=True)]


def _group(prompt: Any, candidates: Any) -> Group:
    if isinstance(candidates, str) or not all(isinstance(c, str) for c in candidates):
        raise ConfigError(f"expected a list of texts as candidates, got {candidates!r:.60}")
    if not isinstance(prompt, str) and not (
        isinstance(prompt, tuple) and all(isinstance(message, Message) for message in prompt)
    ):
        raise ConfigError(f"expected a prompt as text or as a tuple of ranker.Message, got {prompt!r:.60}")
    return Group(prompt, tuple(candidates))


def _checked(result: GroupScores) -> Floats:
    if result.error is not None:
        raise ScoringError(result.error)
    return result.scores
