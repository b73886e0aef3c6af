"""``ranker.load``: any model this package knows, ready to score."""

from __future__ import annotations

import importlib.util
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tqdm import tqdm

from ranker.data import fields
from ranker.errors import ConfigError, DataError, ModelFileError, ScoringError
from ranker.extras import require
from ranker.layouts.settings import text_settings
from ranker.metrics import sigmoid
from ranker.ranking.ranks import Ranking, rank_scores
from ranker.ranking.tournament import Choice, ranked, with_reference
from ranker.records import Group, Message, Prompt, Turns
from ranker.runtime import manifest as manifests
from ranker.runtime.devices import device_names, parse_device, torch_device
from ranker.runtime.fastest import LoadPrecision, resolved
from ranker.runtime.modelfile import EXPORTED
from ranker.runtime.onnx_scorer import OnnxScorer
from ranker.runtime.session import Device, available_cores, int8_warning, processor_has
from ranker.scoring.processes import SeveralDevices
from ranker.scoring.protocol import Calibration, Floats, GroupScores, Scorer, ScorerInfo, rendered_group, warn_of_lone

if TYPE_CHECKING:
    from ranker.config import Quantization
    from ranker.config.section import AttentionKernel

logger = logging.getLogger(__name__)

PromptLike = str | Sequence[Message | Mapping[str, Any]]
"""A prompt: text, or chat messages as ``Message`` or ``{"role": ..., "content": ...}``."""

AnswerLike = str | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""A candidate: text, or chat messages that end with the assistant's."""

CHUNK: Final = 512
"""Prompts between two steps of the progress bar."""


class Ranker:
    """A loaded model with the calls that scripts use.

    Every call takes one prompt; its ``_batch`` twin takes many, which is much faster than a loop. A prompt is text or
    chat messages, a candidate is text or messages that end with the assistant's. ``scorer`` has the batch interface
    that reports errors per group instead of raising.

    Example:
        >>> model = ranker.load("model.onnx")
        >>> ranking = model.rank("What is 2 + 2?", ["It is 5.", "It is 4.", "Four."])
        >>> sorted(ranking.order.tolist()), ranking.scores.shape
        ([0, 1, 2], (3,))
        >>> messages = [{"role": "user", "content": "What is 2 + 2?"}]
        >>> 0 < model.compare(messages, "It is 4.", "It is 5.", probability=True) < 1
        True
    """

    def __init__(self, scorer: Scorer, name: str = "") -> None:
        self.scorer = scorer
        self.name = name

    def __repr__(self) -> str:
        shown = {"model": self.name, **asdict(self.info)}
        return f"Ranker({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def info(self) -> ScorerInfo:
        """What the model is and where it runs."""
        return self.scorer.info

    @property
    def calibration(self) -> Calibration:
        """Temperature, mean and standard deviation of the scores, where ``ranker eval --calibrate`` measured them."""
        return self.scorer.info.calibration

    def score(self, prompt: PromptLike, candidates: Sequence[AnswerLike], *, rendered: bool = False) -> Floats:
        """Raw fp32 logits (candidates,), higher is better.

        Scores of a model whose ``info.scores_are_relative`` is true compare the candidates of this prompt only.

        Args:
            prompt: text or messages.
            candidates: its candidates.
            rendered: whether the chat template was applied already: ``prompt + candidate`` is tokenised as it is,
                special tokens recognised. For models whose ``info.renders_conversations`` is true.

        Raises:
            ConfigError: a prompt or candidate of the wrong type, or ``rendered`` of a model that reads pairs.
            ScoringError: the candidates could not be scored; ``scorer.score`` reports that instead.

        Example:
            >>> ranker.load("model.onnx").score("Say hi", ["Hi!", "No."])
            array([...], dtype=float32)
        """
        return self.score_batch([prompt], [candidates], rendered=rendered)[0]

    def score_batch(
        self,
        prompts: Sequence[PromptLike],
        candidates: Sequence[Sequence[AnswerLike]],
        *,
        rendered: bool = False,
        progress: bool = False,
    ) -> list[Floats]:
        """``score`` of many prompts: one array per prompt.

        Args:
            prompts: one each.
            candidates: a list for each prompt.
            rendered: as in ``score``.
            progress: whether a progress bar is shown on standard error.

        Raises:
            ConfigError: not one list of candidates per prompt, or as in ``score``.
            ScoringError: as in ``score``.
        """
        groups = _groups(prompts, candidates)
        if rendered:
            groups = [rendered_group(group, self.info) for group in groups]
        warn_of_lone(self.scorer, groups)
        return [_checked(result) for result in _in_chunks(self.scorer.score, groups, progress)]

    def rank(
        self,
        prompt: PromptLike,
        candidates: Sequence[AnswerLike],
        *,
        schedule: Choice | None = None,
        budget: int | None = None,
    ) -> Ranking:
        """Order (indices, best first), ranks (1 = best) and scores of the candidates.

        Without ``schedule`` and ``budget`` all candidates are scored: in one pass by order-free models (windows where
        there are more than ``WINDOW``), by all ordered pairs by the others. With one of them candidates are compared
        in pairs (``ranker.ranking.tournament``).

        Args:
            prompt: text or messages.
            candidates: its candidates.
            schedule: auto, all, knockout, quicksort, swiss, circulant, sequential_halving or active.
            budget: the most comparisons.

        Raises:
            ConfigError: as in ``score``, or an unknown schedule.
            ScoringError: as in ``score``, or a budget that is too small.
        """
        return self.rank_batch([prompt], [candidates], schedule=schedule, budget=budget)[0]

    def rank_batch(
        self,
        prompts: Sequence[PromptLike],
        candidates: Sequence[Sequence[AnswerLike]],
        *,
        schedule: Choice | None = None,
        budget: int | None = None,
        progress: bool = False,
    ) -> list[Ranking]:
        """``rank`` of many prompts: one ``Ranking`` per prompt; ``progress`` as in ``score_batch``.

        Raises:
            ConfigError, ScoringError: as in ``rank`` and ``score_batch``.
        """
        groups = _groups(prompts, candidates)
        rank = partial(ranked, self.scorer, schedule=schedule, budget=budget)
        return [rank_scores(_checked(result)) for result in _in_chunks(rank, groups, progress)]

    def best_of_n(
        self,
        prompt: PromptLike,
        candidates: Sequence[AnswerLike],
        *,
        schedule: Choice | None = None,
        budget: int | None = None,
    ) -> str:
        """The best candidate's text, of equals the first; arguments as in ``rank``.

        Raises:
            ConfigError: as in ``rank``, or no candidate.
            ScoringError: as in ``rank``.
        """
        return self.best_of_n_batch([prompt], [candidates], schedule=schedule, budget=budget)[0]

    def best_of_n_batch(
        self,
        prompts: Sequence[PromptLike],
        candidates: Sequence[Sequence[AnswerLike]],
        *,
        schedule: Choice | None = None,
        budget: int | None = None,
        progress: bool = False,
    ) -> list[str]:
        """``best_of_n`` of many prompts: one text per prompt; ``progress`` as in ``score_batch``.

        Raises:
            ConfigError, ScoringError: as in ``best_of_n`` and ``score_batch``.
        """
        groups = _groups(prompts, candidates)
        if not all(group.candidates for group in groups):
            raise ConfigError("expected at least one candidate of every prompt to choose the best of")
        rank = partial(ranked, self.scorer, schedule=schedule, budget=budget)
        results = [_checked(result) for result in _in_chunks(rank, groups, progress)]
        return [group.candidates[int(np.argmax(scores))] for group, scores in zip(groups, results, strict=True)]

    def rank_with_reference(
        self, prompt: PromptLike, candidates: Sequence[AnswerLike], reference: AnswerLike
    ) -> Floats:
        """Log-odds (candidates,) that each candidate is better than the reference: scores that compare across prompts.

        N comparisons instead of N (N - 1).

        Raises:
            ConfigError: as in ``score``.
            ScoringError: a candidate could not be compared.
        """
        return self.rank_with_reference_batch([prompt], [candidates], [reference])[0]

    def rank_with_reference_batch(
        self,
        prompts: Sequence[PromptLike],
        candidates: Sequence[Sequence[AnswerLike]],
        references: Sequence[AnswerLike],
    ) -> list[Floats]:
        """``rank_with_reference`` of many prompts: one reference and one array each.

        Raises:
            ConfigError: not one list of candidates and one reference per prompt.
            ScoringError: a candidate could not be compared.
        """
        groups = _groups(prompts, candidates)
        if isinstance(references, str) or len(references) != len(groups):
            raise ConfigError(f"expected one reference per prompt ({len(groups)}), got {len(references)}")
        texts = [_answer(text, "reference", group.prompt) for text, group in zip(references, groups, strict=True)]
        return [_checked(result) for result in with_reference(self.scorer, groups, texts)]

    def compare(self, prompt: PromptLike, a: AnswerLike, b: AnswerLike, *, probability: bool = False) -> float:
        """Log-odds that ``a`` is the better answer (> 0), or the probability at the stored temperature.

        Args:
            prompt: text or messages.
            a: an answer.
            b: another.
            probability: whether ``sigmoid(logit / calibration.temperature)`` is given instead, in [0, 1].

        Raises:
            ConfigError: as in ``score``.
            ScoringError: the pair could not be scored.
        """
        return float(self.compare_batch([prompt], [a], [b], probability=probability)[0])

    def compare_batch(
        self,
        prompts: Sequence[PromptLike],
        a: Sequence[AnswerLike],
        b: Sequence[AnswerLike],
        *,
        probability: bool = False,
    ) -> Floats:
        """``compare`` of many prompts: an array (prompts,).

        Raises:
            ConfigError: not one ``a`` and one ``b`` per prompt.
            ScoringError: a pair could not be scored; its number is named.
        """
        if isinstance(a, str) or isinstance(b, str) or not len(a) == len(b) == len(prompts):
            raise ConfigError(f"expected one a and one b per prompt ({len(prompts)}), got {len(a)} and {len(b)}")
        logits = self.scorer.compare(_groups(prompts, list(zip(a, b, strict=True))))
        if not np.isfinite(logits).all():
            raise ScoringError(f"pair {int(np.argmin(np.isfinite(logits)))} could not be scored")
        if not probability:
            return logits
        chances: Floats = sigmoid(logits / self.calibration.temperature).astype(np.float32)
        return chances


def load(
    path: str | Path,
    *,
    device: Device | Sequence[Device] = "auto",
    threads: int | None = None,
    max_tokens_per_forward: int | None = None,
    revision: str | None = None,
    token: str | None = None,
    head_prefix: str | None = None,
    allow_pickle: bool = False,
    precision: LoadPrecision = "fp32",
    quantization: Quantization = "none",
    device_map: str | Mapping[str, Any] | None = None,
    padding_free: bool = False,
    length_buckets: bool | None = None,
    passes_in_flight: int = 1,
    attention_kernel: AttentionKernel = "auto",
    average_orders: bool = True,
    text: Mapping[str, Any] | None = None,
) -> Ranker:
    """Load a ``model.onnx`` (needs only onnxruntime), or a checkpoint of any known format (the ``train`` extra).

    Of a folder or a repository that holds both, the checkpoint is loaded where torch is installed, else ``model.onnx``.
    The folder of a run (``runs/pairrm``) is its ``model.onnx``, or its ``checkpoint`` where nothing was exported.

    Args:
        path: the file, the folder, or a name on the model hub.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``; for a checkpoint also torch's ``mps`` and ``xpu``, for a
            ``model.onnx`` also ``tensorrt``, which compiles it once per shape. Several, as a list or ``cuda:0,cuda:1``,
            score together, each in a process of its own.
        threads: processor threads; default: all that this process may use.
        max_tokens_per_forward: most padded tokens of one forward pass; default: the fastest, measured while scoring,
            or what fits the device.
        revision: of the hub: a branch, tag or commit.
        token: of the hub, for private repositories; default: the one that ``hf auth login`` stored.
        head_prefix: the head's name in a foreign checkpoint, where it is not one of the known ones.
        allow_pickle: whether a foreign checkpoint's weights may be pickles; only tensors are read from them.
        precision: ``bf16`` lets a checkpoint's backbone compute in bf16, about twice as fast on GPUs and on CPUs that
            have it; the head stays fp32. A ``model.onnx`` has the precision it was exported in. ``auto`` takes from a
            folder what this machine computes fastest: on a GPU ``model.fp16.onnx``, else the checkpoint in bf16; on a
            processor with 8-bit dot products ``model.int8.onnx``, with AMX too the checkpoint in bf16 if the model
            compares answers; else ``model.onnx``. A name on the hub is read as with ``fp32``.
        quantization: ``4bit`` or ``8bit`` weights of a checkpoint's backbone (bitsandbytes); its head stays fp32.
        device_map: how accelerate spreads a checkpoint over devices (``auto``), instead of ``device``.
        padding_free: whether a checkpoint reads rows without padding, by torch's variable-length kernel in bf16 on
            GPUs since Ampere, row by row on a CPU; every answer is then read after a prompt of its own.
        length_buckets: whether passes are padded to a few shapes (``ranker.scoring.buckets``), so that a GPU's kernels
            plan once for each; default: with TensorRT, which compiles the graph for each.
        passes_in_flight: passes on a GPU that are prepared, computed and read back at once. Two or more keep it busy
            while the host prepares the next pass; every one takes memory.
        attention_kernel: the kernel of attention on CUDA: ``efficient``, ``cudnn`` or ``math``; of a DeBERTa checkpoint
            ``compiled``, which torch compiles at the first pass; ``auto`` leaves it to torch or onnxruntime.
        average_orders: whether a model that reads ordered pairs (PairRM, SteamSHP) reads each pair in both orders and
            averages them. False halves the work and leaves the model's position bias in the scores.
        text: settings of the text in the place of the model's own (``ranker.layouts.settings.TextSettings``), for what
            a checkpoint does not say: ``{"format": "trl"}`` reads plain texts as TRL writes them,
            ``{"template_variables": {"enable_thinking": False}}`` sets what a chat template asks for, ``{"max_length":
            8192}`` reads longer rows. ``export_onnx`` and ``convert`` take it too and store it.

    Raises:
        ConfigError: an unknown device or precision, ``auto`` for several kinds of devices, TensorRT for a checkpoint,
            bf16 or ``padding_free`` for a ``model.onnx``, a model that cannot be read without padding, one order of an
            order-free model, a kernel that the device does not have, an int8 file on a GPU, or a GPU that this machine
            does not have.
        ModelFileError: there is no such file, or it is damaged, foreign or from another version.
        CheckpointError: the folder is incomplete, or the hub has no such model.
        MissingExtraError: what the model needs is not installed.
    """
    options: dict[str, Any] = {name: value for name, value in locals().items() if name in LOAD_OPTIONS}
    chosen, options = resolved(path, options)
    if precision == "auto":
        return load(chosen, **options)
    names = device_names(options.pop("device"))
    if len(names) > 1:
        return _on_several(str(path), names, options)
    (device,) = names
    if passes_in_flight < 1:
        raise ConfigError(f"expected passes_in_flight of at least 1, got {passes_in_flight}")
    common: dict[str, Any] = {
        "max_tokens_per_forward": max_tokens_per_forward,
        "average_orders": average_orders,
        "length_buckets": length_buckets,
        "passes_in_flight": passes_in_flight,
        "attention_kernel": attention_kernel,
    }
    settings = text_settings(text)
    source = _located(Path(path), allow_pickle, revision, token)
    if source.is_file():
        if precision != "fp32":
            raise ConfigError(
                f"{source}: a model.onnx has the precision it was exported in; load its checkpoint in bf16"
            )
        if padding_free:
            raise ConfigError(f"{source}: a model.onnx reads padded rows; load its checkpoint padding_free")
        return Ranker(_onnx_scorer(source, device=device, threads=threads, text=settings, **common), str(path))
    options = {"head_prefix": head_prefix, "allow_pickle": allow_pickle, "text": settings}
    if device_map is not None:
        options["device_map"] = device_map
    model, tokenizer = _torch_model(source, device, threads, quantization, options)
    bf16 = precision == "bf16"
    if bf16 and model.device.type == "cpu" and not processor_has("avx512_bf16", "amx_bf16", "bf16"):
        logger.warning("this CPU has no bf16 instructions, so bf16 is slower than fp32 here")
    if padding_free:
        _read_without_padding(model)
    share_prefix = not padding_free  # a shared prompt has a mask of its own
    torch_scorer = require("ranker.models.torch_scorer").TorchScorer
    return Ranker(torch_scorer(model, tokenizer, bf16=bf16, share_prefix=share_prefix, **common), str(path))


def _on_several(path: str, devices: Sequence[Device], options: dict[str, Any]) -> Ranker:
    """A model on several devices; those that are processors share its cores."""
    if options["device_map"] is not None:
        raise ConfigError("device_map spreads one model over devices; give it without a list of devices")
    processors = sum(parse_device(name)[0] == "cpu" for name in devices)
    if options["threads"] is None and processors:
        options["threads"] = max(1, available_cores() // processors)
    return Ranker(SeveralDevices(path, devices, options), path)


def _onnx_scorer(file: Path, **options: Any) -> OnnxScorer:
    scorer = OnnxScorer(file, **options)
    slow = int8_warning() if scorer.on_cpu and scorer.precision.startswith("int8") else None
    if slow is not None:
        logger.warning("%s: %s", file, slow)
    return scorer


LOAD_OPTIONS: Final = tuple(name for name in inspect.signature(load).parameters if name != "path")
"""Keyword arguments of ``load``."""


def _located(path: Path, allow_pickle: bool, revision: str | None, token: str | None) -> Path:
    """The ``model.onnx`` or the checkpoint folder to load, fetched from the hub where it is a name.

    Raises:
        ModelFileError: a file that is not there.
        CheckpointError: as in ``ranker.checkpoints.hub.local``.
    """
    if path.is_file():
        return path
    if path.suffix == ".onnx":
        raise ModelFileError(f"{path}: found no file or folder; check the path")
    torch_free = importlib.util.find_spec("torch") is None
    if path.is_dir():
        exported = path / EXPORTED
        return exported if exported.is_file() and (torch_free or not _is_checkpoint(path)) else path
    if torch_free:
        return _fetched_file(path, revision, token)
    folder: Path = require("ranker.checkpoints.hub").local(
        str(path), allow_pickle=allow_pickle, revision=revision, token=token
    )
    return folder if _is_checkpoint(folder) else _fetched_file(path, revision, token)


def _is_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))


def _fetched_file(name: Path, revision: str | None, token: str | None) -> Path:
    """The exported file of a repository of the hub.

    Raises:
        ModelFileError: the hub has none.
    """
    hub = require("huggingface_hub")
    try:
        file = Path(hub.hf_hub_download(str(name), EXPORTED, revision=revision, token=token))
        beside = manifests.weights_of(file)
        if beside is not None:
            hub.hf_hub_download(str(name), beside.name, revision=revision, token=token)
        return file
    except (OSError, ValueError, hub.errors.EntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelFileError(
            f"{name}: found no file or folder, and the hub gives no {EXPORTED} of that name ({reason:.120}); check the "
            "name and the network. Without torch only exported files are loaded: pip install 'ranker-toolkit[train]'"
        ) from error


def _read_without_padding(model: Any) -> None:
    if model.device.type == "cuda" and require("torch").cuda.get_device_capability() < (8, 0):
        raise ConfigError("padding_free needs a GPU since Ampere (compute capability 8.0); leave it off")
    require("ranker.models.backbones").read_without_padding(model)


def _torch_model(
    folder: Path, device: Device, threads: int | None, quantization: Quantization, options: dict[str, Any]
) -> tuple[Any, Any]:
    """A checkpoint's model, on its device, and its tokenizer."""
    torch = require("torch")
    place = torch_device(device, torch)
    options |= require("ranker.models.backbones").quantization(quantization)
    model, tokenizer = require("ranker.checkpoints.native").load(folder, **options)
    if threads is not None:
        torch.set_num_threads(threads)
    if "device_map" not in options and quantization == "none":
        model.to(place)
    return model, tokenizer


def _groups(prompts: Sequence[PromptLike], candidates: Sequence[Sequence[AnswerLike]]) -> list[Group]:
    if isinstance(prompts, str):
        raise ConfigError("expected a list of prompts, got one text; the call without _batch takes one prompt")
    if isinstance(candidates, str) or len(prompts) != len(candidates):
        raise ConfigError(f"expected one list of candidates per prompt ({len(prompts)}), got {len(candidates)}")
    groups: list[Group] = []
    for number, (prompt, answers) in enumerate(zip(prompts, candidates, strict=True)):
        try:
            groups.append(_group(prompt, answers))
        except ConfigError as error:
            raise error if len(prompts) == 1 else ConfigError(f"prompt {number}: {error}") from error
    return groups


def _group(prompt: PromptLike, candidates: Sequence[AnswerLike]) -> Group:
    if isinstance(candidates, str) or not isinstance(candidates, Sequence):
        raise ConfigError(f"expected a list of candidates, got {candidates!r:.60}")
    turns = _prompt(prompt)
    answers = (_answer(candidate, f"candidates[{number}]", turns) for number, candidate in enumerate(candidates))
    return Group(turns, tuple(answers))


def _prompt(prompt: PromptLike) -> Prompt:
    if isinstance(prompt, str):
        return prompt
    mappings = (
        [m.to_dict() if isinstance(m, Message) else m for m in prompt] if isinstance(prompt, Sequence) else prompt
    )
    try:
        return fields.messages(mappings, "prompt", "prompt")
    except DataError as error:
        raise ConfigError(
            f"expected a prompt as text or as messages {{'role', 'content'}}: {error.field}: {error.reason}"
        ) from error


def _answer(value: AnswerLike, name: str, prompt: Prompt) -> str:
    """An answer; of a conversation that begins with the prompt, what follows."""
    if isinstance(value, Turns):
        return value
    try:
        if not isinstance(value, str) and fields.is_conversation(value):
            asked = (Message("user", prompt),) if isinstance(prompt, str) else prompt
            before, answered = fields.split_answer(fields.messages(value, name, name), name, name)
            if before != asked:
                raise ConfigError(f"{name}: expected an answer to the prompt, got a conversation with another one")
            return answered
        return fields.answer(value, name, name)
    except DataError as error:
        raise ConfigError(f"{error.field}: {error.reason}") from error


def _in_chunks(
    solve: Callable[[Sequence[Group]], Sequence[GroupScores]], groups: Sequence[Group], progress: bool
) -> Iterator[GroupScores]:
    """Results of all groups, with a progress bar where it is asked for."""
    if not progress:
        yield from solve(groups)
        return
    with tqdm(total=len(groups), unit=" prompts") as bar:
        for start in range(0, len(groups), CHUNK):
            part = groups[start : start + CHUNK]
            yield from solve(part)
            bar.update(len(part))


def _checked(result: GroupScores) -> Floats:
    if result.error is not None:
        raise ScoringError(result.error)
    return result.scores
