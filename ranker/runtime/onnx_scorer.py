"""``model.onnx`` as a ``Scorer``: text to ids to session to numpy, without torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from threading import BoundedSemaphore, Lock, get_ident
from typing import TYPE_CHECKING, Any, Final

from ranker.errors import ConfigError, ModelFileError
from ranker.extras import require
from ranker.layouts import Layout
from ranker.layouts.layout import Arrays
from ranker.layouts.settings import TextSettings, with_settings
from ranker.records import Group
from ranker.runtime import budgets
from ranker.runtime import manifest as manifests
from ranker.runtime.bound import Bound
from ranker.runtime.devices import parse_device
from ranker.runtime.session import (
    CPU,
    NAMES,
    Device,
    available_cores,
    graphics,
    on_graphics,
    open_session,
    processor,
)
from ranker.scoring.batching import AS_THEY_ARE, Rounding
from ranker.scoring.executor import Engine, score_groups
from ranker.scoring.pipeline import TextPipeline
from ranker.scoring.protocol import Calibration, Floats, GroupScores, ScorerInfo, margins
from ranker.scoring.token_budget import TokenBudget
from ranker.text.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from ranker.config.section import AttentionKernel

logger = logging.getLogger(__name__)

BATCH_TOKENS: Final = (512, 1024, 256)
"""Budgets to try on a CPU, for each of the parallel passes; larger ones no longer fit the caches."""

GPU_BATCH_TOKENS: Final = (16384, 8192, 32768, 65536)
"""Budgets to try on a GPU."""

LENGTH_STEP: Final = 8
INT8_LENGTH_STEP: Final = 16
"""Passes on a CPU are padded to multiples of these; in int8 only those whose rows see others.

A softmax adds up 16 numbers at a time. The rest of a length that is no multiple changes the last bits of a score, and
int8 rounds them to something visible (0.2 logits). With multiples of 16 no score depends on its batch; with 8, which
costs short rows less, fp32 scores differ by less than 1e-5. Other int8 rows share a pass only with rows of their
length: passes of one row reach 0.9 of the speed of full ones, and padding to 16 costs as much. That is not so where
only weights have 8 bits, because every pass unpacks them: these files are padded too.
"""

KEY_RUN: Final = 128
"""onnxruntime adds up the keys of attention in runs of 16,384 over the width of a head, 512 for heads of 32; of wider
heads than 128 in runs of 128, which all of these are multiples of."""

BESIDE_BYTES: Final = 1 << 30
"""Larger graphs are opened once: their products keep all threads busy, and a second copy may not fit in memory."""


class GraphScorer:
    """Scores with an exported ONNX graph.

    On a CPU one pass runs per thread: no thread waits for the slowest part of a product, and another process on a
    processor delays only one pass. A single pass gets all threads, in a second session that is opened for the first
    such pass; graphs up to ``BESIDE_BYTES`` are then in memory twice. The working memory of passes grows with
    ``threads``.

    Args:
        path: the file; it is not verified.
        layout: how the model reads a group.
        tokenizer: the model's tokenizer.
        device: ``auto``, ``cpu``, ``cuda`` or ``tensorrt``, the last two with a number for another GPU than the first.
        threads: processors to use; default: those that this process may use.
        max_tokens_per_forward: most padded tokens of a pass; default: the fastest of ``BATCH_TOKENS`` or, on a GPU,
            ``GPU_BATCH_TOKENS``, measured while rows are scored.
        average_orders: whether a model that reads ordered pairs reads each pair in both orders.
        length_buckets: whether passes are padded to a few shapes (``ranker.scoring.buckets``), but for int8 on a CPU,
            whose scores would depend on their batch; default: with TensorRT,
            which compiles the graph for every shape.
        passes_in_flight: passes on a GPU that are prepared, computed and read back at once.
        attention_kernel: the kernel of attention on CUDA; ``auto`` leaves it to onnxruntime, without cuDNN's.
        bind_buffers: whether inputs and outputs have buffers on the GPU that stay, one for each shape; default: with
            TensorRT. Only one pass is then in flight.
        large: whether the graph is opened once though its file is small: its weights lie beside it.

    Raises:
        ConfigError: one order of a model that reads no ordered pairs.
    """

    def __init__(
        self,
        path: Path,
        layout: Layout,
        tokenizer: TextTokenizer,
        *,
        device: Device = "auto",
        threads: int | None = None,
        max_tokens_per_forward: int | None = None,
        average_orders: bool = True,
        length_buckets: bool | None = None,
        passes_in_flight: int = 1,
        attention_kernel: AttentionKernel = "auto",
        bind_buffers: bool | None = None,
        large: bool = False,
    ) -> None:
        self.path = path
        self.threads = threads or available_cores()
        large = large or path.stat().st_size > BESIDE_BYTES
        kind, number = parse_device(device)
        graphics = on_graphics(device)
        bound = (kind == "tensorrt") if bind_buffers is None else bind_buffers
        if bound and (not graphics or passes_in_flight > 1):
            raise ConfigError("bind_buffers is for one pass in flight on CUDA or TensorRT; leave it off")
        one_session = large or graphics
        self.workers = passes_in_flight if graphics else 1 if large else self.threads
        self.length_buckets = (kind == "tensorrt") if length_buckets is None else length_buckets
        self._state = _state_of(path)
        self.session = open_session(
            path, device=device, threads=self.threads if one_session else 1, attention_kernel=attention_kernel
        )
        self._version: str = require("onnxruntime").__version__
        self._wide = self.session if one_session else None
        self._opening = Lock()
        self._places = BoundedSemaphore(self.workers)
        self._running: set[int] = set()
        self._inputs = [node.name for node in self.session.get_inputs()]
        prefix_sharing = "readout" in self._inputs and layout.extra_input is None
        self.pipeline = TextPipeline(layout, tokenizer, prefix_sharing=prefix_sharing, average_orders=average_orders)
        self.max_tokens_per_forward: int | TokenBudget = max_tokens_per_forward or TokenBudget(
            self._choices, workers=self.workers
        )
        self.calibration = Calibration()
        self.precision = "fp32"
        self.weights_only = False
        self.graph_sha256 = ""
        self._bound = Bound(self.session, "cuda", number) if bound else None

    @property
    def info(self) -> ScorerInfo:
        """See ``Scorer.info``."""
        layout, device = self.pipeline.layout, NAMES.get(self.providers[0], "CPU")
        tokens = self.max_tokens_per_forward
        return ScorerInfo(
            layout=layout.layout,
            precision=self.precision,
            device=device.lower(),
            max_length=layout.max_length,
            scores_are_relative=layout.scores_are_relative,
            order_free=layout.order_free,
            average_orders=self.pipeline.average_orders,
            renders_conversations=layout.renders_conversations,
            parallel_passes=self.workers,
            engine=f"onnxruntime {self._version} on {device}",
            max_tokens_per_forward=tokens if isinstance(tokens, int) else tokens.tokens,
            calibration=self.calibration,
            providers=tuple(self.providers),
            graph_sha256=self.graph_sha256,
        )

    @property
    def providers(self) -> list[str]:
        """The session's execution providers, by onnxruntime's names."""
        return list(self.session.get_providers())

    @property
    def on_cpu(self) -> bool:
        """Whether the session runs only on the CPU."""
        return self.providers == [CPU]

    @property
    def _rounding(self) -> Rounding:
        if not self.on_cpu:
            return AS_THEY_ARE
        int8 = self.precision.startswith("int8")
        sees_others = "members" in self._inputs
        if not int8:
            return Rounding(LENGTH_STEP)
        if sees_others:
            return Rounding(INT8_LENGTH_STEP, KEY_RUN)
        return Rounding(INT8_LENGTH_STEP) if self.weights_only else Rounding(alike=True)

    @property
    def _choices(self) -> tuple[int, ...]:
        return BATCH_TOKENS if self.on_cpu else GPU_BATCH_TOKENS

    def score(self, groups: Sequence[Group], *, preserve_order: bool = False) -> list[GroupScores]:
        """See ``Scorer.score``."""
        return score_groups(
            self.pipeline,
            groups,
            self._forward_with_all_threads,
            self.max_tokens_per_forward,
            preserve_order=preserve_order,
            parallel=Engine(self._forward, self.workers, tight=self.on_cpu)
            if self.workers > 1 or self.on_cpu
            else None,
            length_buckets=self.length_buckets and not (self.on_cpu and self.precision.startswith("int8")),
            rounding=self._rounding,
        )

    def token_counts(self, group: Group) -> list[int]:
        """See ``Scorer.token_counts``."""
        return self.pipeline.token_counts(group)

    def compare(self, pairs: Sequence[Group]) -> Floats:
        """See ``Scorer.compare``."""
        return margins(pairs, self.score(pairs))

    def _forward_with_all_threads(self, arrays: Arrays) -> Floats:
        if 2 * len(self._running) >= self.workers:  # passes of other callers keep the processors busy
            return self._forward(arrays)
        with self._opening:
            self._wide = self._wide or self._widened()
        return self._forward(arrays, self._wide)

    def _widened(self) -> Any:
        """A session with all threads, or the existing one when the file has changed."""
        try:
            if _state_of(self.path) == self._state:
                return open_session(self.path, device="cpu", threads=self.threads)
            reason = "it was replaced"
        except (OSError, ModelFileError) as error:
            reason = str(error)
        logger.warning("%s: a single pass has one thread until the model is loaded again: %s", self.path, reason)
        return self.session

    def _forward(self, arrays: Arrays, session: Any = None) -> Floats:
        inputs = {name: arrays[name] for name in self._inputs}
        with self._places:  # more passes than processors would slow all of them down
            if self._bound is not None:
                return self._bound.run(inputs)
            self._running.add(get_ident())
            try:
                logits: Floats = (session or self.session).run(["scores"], inputs)[0]
            finally:
                self._running.discard(get_ident())
        return logits


def _state_of(path: Path) -> tuple[int, ...]:
    """Inode, size and time, which differ when the file was replaced."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _device_of(path: Path, precision: str, device: Device) -> Device:
    """The device that computes a file of this precision: int8 runs on the CPU.

    CUDA has no 8-bit products here: onnxruntime would compute those nodes on the CPU and copy every layer's states to
    and fro. TensorRT reads the standard nodes of ``int8-static``.

    Raises:
        ConfigError: a GPU was asked for.
    """
    if not precision.startswith("int8"):
        return device
    kind, _ = parse_device(device)
    if kind == "cuda" or (kind == "tensorrt" and precision != "int8-static"):
        raise ConfigError(
            f"{path}: {precision} products have no kernel on {device}, and would run on the CPU with a copy for every "
            "layer; load it with device cpu, or export fp16: ranker export --precision fp16"
        )
    return "cpu" if kind == "auto" else device


class OnnxScorer(GraphScorer):
    """Scores with a self-contained ``model.onnx``.

    Args:
        path: the file; it is verified against its hashes before the first score.
        device, threads, max_tokens_per_forward, average_orders, length_buckets, passes_in_flight, attention_kernel,
            bind_buffers: as in ``GraphScorer``.
        text: settings of the text in the place of the file's.

    Raises:
        ConfigError: a setting that the file's layout does not have, or an int8 file on a GPU.
        ModelFileError: the file is damaged, foreign or from a newer version.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: Device = "auto",
        threads: int | None = None,
        max_tokens_per_forward: int | None = None,
        average_orders: bool = True,
        length_buckets: bool | None = None,
        passes_in_flight: int = 1,
        attention_kernel: AttentionKernel = "auto",
        bind_buffers: bool | None = None,
        text: TextSettings | None = None,
    ) -> None:
        self.manifest, tokenizer = manifests.read(path)
        layout: Any = self.manifest.text
        device = _device_of(path, self.manifest.precision, device)
        super().__init__(
            path,
            layout if text is None else with_settings(layout, text),
            tokenizer,
            device=device,
            threads=threads,
            max_tokens_per_forward=max_tokens_per_forward,
            average_orders=average_orders,
            length_buckets=length_buckets,
            passes_in_flight=passes_in_flight,
            attention_kernel=attention_kernel,
            bind_buffers=bind_buffers,
            large=self.manifest.weights is not None,
        )
        self.calibration = self.manifest.calibration
        self.graph_sha256 = self.manifest.graph_sha256
        self.precision = self.manifest.precision
        self.weights_only = self.manifest.weights_only
        if max_tokens_per_forward is None:
            facts: dict[str, str | int] = {
                "graph": self.manifest.graph_sha256,
                "onnxruntime": require("onnxruntime").__version__,
                "processor": processor() if self.on_cpu else graphics(),
                "providers": ",".join(self.providers),
                "threads": self.threads,
            }
            self.max_tokens_per_forward = budgets.remembered(self._choices, facts, workers=self.workers)
