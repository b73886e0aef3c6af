"""A torch model as a ``Scorer``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ranker.config.section import AttentionKernel
from ranker.layouts.layout import Arrays
from ranker.models import backbones
from ranker.models.attention.kernels import attention_kernel, check_kernel
from ranker.models.attention.padding_free import segments_known
from ranker.records import Group
from ranker.scoring.executor import Engine, score_groups
from ranker.scoring.pipeline import TextPipeline
from ranker.scoring.protocol import Floats, GroupScores, ScorerInfo, margins
from ranker.scoring.token_budget import TokenBudget
from ranker.text.tokenizer import TextTokenizer

CPU_BATCH_TOKENS: Final = 4096
"""A quarter faster than four times as many, whose activations are new memory in every pass (two cores, MiniLM)."""

GPU_BATCH_TOKENS: Final = 65536
"""Launching a pass of MiniLM takes the host 4.6 ms on an H200, whatever its size; see docs/gpu.md."""


class TorchScorer:
    """Scores with a torch model, in its own precision and on its own device.

    Args:
        model: the ranker or reward model; it is put in evaluation mode for each call and left as it was.
        tokenizer: its tokenizer.
        max_tokens_per_forward: most padded tokens of one forward pass; default ``CPU_BATCH_TOKENS`` or
            ``GPU_BATCH_TOKENS``.
        bf16: whether the backbone computes in bf16; the head is fp32 always.
        forward: called instead of the model's own forward, where its weights are sharded over processes.
        average_orders: whether a model that reads ordered pairs reads each pair in both orders.
        share_prefix: whether a decoder reads several answers after one prompt; not possible without padding.
        length_buckets: whether passes are padded to a few shapes (``ranker.scoring.buckets``).
        passes_in_flight: passes that are prepared, computed and read back at once. With two or more a GPU has the next
            pass while the host reads the scores of the last, and copies come from pinned memory.
        attention_kernel: the kernel of attention, of ``ranker.models.attention.kernels``; ``auto`` leaves it to torch,
            on CUDA without cuDNN's.

    Raises:
        ConfigError: one order of a model that reads no ordered pairs, or a kernel that the device has not.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: TextTokenizer,
        *,
        max_tokens_per_forward: int | None = None,
        bf16: bool = False,
        forward: Callable[..., Tensor] | None = None,
        average_orders: bool = True,
        share_prefix: bool = True,
        length_buckets: bool | None = None,
        passes_in_flight: int = 1,
        attention_kernel: AttentionKernel = "auto",
    ) -> None:
        check_kernel(attention_kernel, model.device.type, backbones.family(model.base_model.config))
        self.model = model
        self.pipeline = TextPipeline(
            model.layout,
            tokenizer,
            prefix_sharing=share_prefix and getattr(model, "prefix_sharing", False),
            average_orders=average_orders,
        )
        self._batch_tokens = max_tokens_per_forward
        self._budget: TokenBudget | None = None
        self._bf16 = bf16
        self._length_buckets = bool(length_buckets)
        self._passes_in_flight = passes_in_flight
        self._kernel = attention_kernel
        # accelerate replaces a training model's forward by one under bf16 autocast; scores are taken without it.
        self._retry = forward is None  # processes that share weights must take the same number of passes
        self._call = forward or partial(type(model).forward, model)

    @property
    def info(self) -> ScorerInfo:
        """See ``Scorer.info``."""
        layout = self.pipeline.layout
        return ScorerInfo(
            layout=layout.layout,
            precision="bf16" if self._bf16 else str(self.model.dtype).removeprefix("torch.").replace("float32", "fp32"),
            device=self.model.device.type,
            max_length=layout.max_length,
            scores_are_relative=layout.scores_are_relative,
            order_free=layout.order_free,
            average_orders=self.pipeline.average_orders,
            renders_conversations=layout.renders_conversations,
            engine=f"torch {torch.__version__} on {self.model.device.type}",
            max_tokens_per_forward=self.max_tokens_per_forward,
        )

    @property
    def max_tokens_per_forward(self) -> int:
        """Most padded tokens of one forward pass, where the model is now."""
        default = CPU_BATCH_TOKENS if self.model.device.type == "cpu" else GPU_BATCH_TOKENS
        return self._batch_tokens or default

    @max_tokens_per_forward.setter
    def max_tokens_per_forward(self, tokens: int) -> None:
        self._batch_tokens = tokens

    def score(self, groups: Sequence[Group], *, preserve_order: bool = False) -> list[GroupScores]:
        """See ``Scorer.score``."""
        training = self.model.training
        self.model.eval()
        several = self._passes_in_flight > 1
        try:
            with self._autocast():  # around all passes, so that weights are cast once and not for each
                return score_groups(
                    self.pipeline,
                    groups,
                    self._forward,
                    self._token_budget(),
                    preserve_order=preserve_order,
                    retry=self._retry,
                    parallel=Engine(self._forward, self._passes_in_flight) if several else None,
                    length_buckets=self._length_buckets,
                )
        finally:
            self.model.train(training)

    def token_counts(self, group: Group) -> list[int]:
        """See ``Scorer.token_counts``."""
        return self.pipeline.token_counts(group)

    def compare(self, pairs: Sequence[Group]) -> Floats:
        """See ``Scorer.compare``."""
        return margins(pairs, self.score(pairs))

    def _token_budget(self) -> TokenBudget:
        """``max_tokens_per_forward``, lowered where the device ran out of memory."""
        tokens = self.max_tokens_per_forward
        if self._budget is None or self._budget.wanted != tokens:
            self._budget = TokenBudget((tokens,))
        return self._budget

    def _forward(self, arrays: Arrays) -> Floats:
        # Of the thread that runs the pass. Autocast keeps the weights that it has cast under no_grad only.
        with torch.no_grad() if self._bf16 else torch.inference_mode():
            return self._logits(arrays)

    def _logits(self, arrays: Arrays) -> Floats:
        host = {name: torch.from_numpy(array) for name, array in arrays.items()}
        tensors = {name: self._placed(array) for name, array in host.items()}
        free = backbones.reads_packed(self.model.base_model)
        known = segments_known(host, self.model.device) if free else contextlib.nullcontext()
        with self._autocast(), known, attention_kernel(self._kernel, self.model.device.type):
            logits: Floats = self._call(**tensors).float().cpu().numpy()
        return logits

    def _autocast(self) -> AbstractContextManager[object]:
        """bf16 where it was asked for; else whatever the caller has set, as training has for weights in shards."""
        return torch.autocast(self.model.device.type, torch.bfloat16) if self._bf16 else contextlib.nullcontext()

    def _placed(self, array: Tensor) -> Tensor:
        """An array on the model's device."""
        device = self.model.device
        if device.type == "cuda" and self._passes_in_flight > 1:
            return array.pin_memory().to(device, non_blocking=True)
        return array.to(device)
