"""The trainer: transformers' ``Trainer`` with planned token-budget batches, comparison losses and a head rate."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerControl, TrainingArguments
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from ranker import atomic
from ranker.checkpoints import adapters
from ranker.config import ModelConfig, TrainingConfig
from ranker.metrics import pairwise_summary
from ranker.models.heads import NEW_HEADS
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group, Preference
from ranker.scoring.pipeline import REDUCTIONS
from ranker.scoring.protocol import GroupScores
from ranker.text.tokenizer import TextTokenizer
from ranker.training.batches import Groups, PairwiseCollator, RunPlan
from ranker.training.interrupts import AbandonedError, StopRequest, TrainingStopped
from ranker.training.losses.pairwise import center_rewards, differing_span, held_values, order_consistency
from ranker.training.losses.table import ANSWERS, LISTWISE, PAIRWISE, POINTWISE, TOKENWISE

SLICE = 256
"""Validation groups of each process between two looks at whether the run is to stop."""

TARGETS = ("left", "right", "targets", "margin", "weight", "cells", "labels", "counted", "compared")


class RankerTrainer(Trainer):  # type: ignore[misc]
    """Trains a ranker or reward model on the batches of a ``RunPlan``.

    Args:
        model: the ranker.
        args: transformers' arguments; epochs and batch size are those of ``plan``.
        groups: the training data.
        plan: all batches of the run.
        validation: groups that choose the checkpoint, scored by the same path that serves the model.
        tokenizer: the model's tokenizer.
        config: the loss and its settings, and the head's learning rate.
        adapter: the model's settings where ``model`` is a ``PeftModel``; written beside every checkpoint.
        stop: says whether Ctrl-C or SIGTERM asked for an end.
        eval_batch_tokens: padded tokens of a validation batch; default as in ``TorchScorer``.

    ``train`` raises ``TrainingStopped`` after a signal, when the checkpoint of the last whole step is on disk.
    """

    loss_is_scaled_for_ga = True
    control: TrainerControl

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        groups: Groups,
        plan: RunPlan,
        validation: Sequence[Preference],
        tokenizer: TextTokenizer,
        config: TrainingConfig,
        adapter: ModelConfig | None = None,
        stop: StopRequest | None = None,
        eval_batch_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.plan = plan
        self.stop = stop or StopRequest()
        self._saved_step = -1
        self._draft: Path | None = None
        self.validation = list(validation)
        self.tokenizer = tokenizer
        self.config = config
        self.loss = config.loss
        self.adapter = adapter
        self.eval_batch_tokens = eval_batch_tokens
        self._seen: dict[str, list[float]] = {"accuracy": [], "margin": []}
        super().__init__(
            model=model,
            args=args,
            train_dataset=groups,
            eval_dataset=self.validation,
            data_collator=PairwiseCollator(groups.pipeline),
            **kwargs,
        )
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The planned batches, in order."""
        return DataLoader(self.train_dataset, batch_sampler=self.plan, collate_fn=self.data_collator)

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | None]:
        """The micro-batches of one step and what their loss is divided by."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        total = sum((self._size(batch) for batch in batches), torch.zeros(())).to(device)
        return batches, self.accelerator.gather(total).sum() if batches else None

    def _size(self, batch: dict[str, Tensor]) -> Tensor:
        """What a batch's loss is divided by: its groups; of comparisons, the weight of those with a label."""
        if self.loss in POINTWISE or self.loss in LISTWISE:
            return batch["counted"]
        return batch["weight"].sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Weighted mean loss of one micro-batch over the whole step's weight, in all processes together."""
        arrays = {k: v for k, v in inputs.items() if k not in TARGETS}
        if self.loss in TOKENWISE:
            values = model(**arrays, every_token=True)[..., 0]
            values = held_values(values, inputs["block_ids"] >= 0)
            scores = values[:, -1, None, None]  # what the last real token says
        else:
            scores = model(**arrays)
        self._note(scores.detach(), inputs)
        total = self._size(inputs) if num_items_in_batch is None else num_items_in_batch
        total = total / self.accelerator.num_processes  # gradients are averaged over processes
        if self.loss in TOKENWISE:
            loss = self._token_loss(values, inputs)
        elif self.loss in PAIRWISE or self.loss in ANSWERS:
            loss = self._pair_loss(scores, inputs)
        elif self.loss in LISTWISE:
            loss = self._list_loss(scores, inputs)
        else:
            loss = self._point_loss(scores, inputs)
        share: Tensor = loss / total
        return share

    def _pair_loss(self, scores: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """Sum over comparisons by their weight; a group's weights sum to 1."""
        left, right = _sides(scores, inputs)
        logits = left - right
        if self.loss in ANSWERS:
            loss = ANSWERS[self.loss](left, right, inputs["targets"])
        else:
            loss = PAIRWISE[self.loss](logits, inputs["targets"], inputs["margin"])
        if self.config.center_rewards_coefficient:
            loss = loss + self.config.center_rewards_coefficient * center_rewards(left, right)
        if self.config.consistency and not self.data_collator.layout.order_free:
            penalty = order_consistency(logits[0::2], logits[1::2]).repeat_interleave(2)
            loss = loss + self.config.consistency * penalty
        return (loss * inputs["weight"]).sum()

    def _token_loss(self, values: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """Sum over comparisons of the loss of the differing tokens; answers are compared from their first token on.

        Where rows have token spans, only the tokens at places that are in a span of either answer are compared.
        A prompt cut to different lengths makes two answers begin at different places, so both are moved to the front.
        """
        blocks = inputs["block_ids"]
        begin = (blocks > 0).int().argmax(dim=1, keepdim=True)
        places = begin + torch.arange(blocks.shape[1], device=blocks.device)
        moved = places.clamp(max=blocks.shape[1] - 1)
        ids, values = inputs["input_ids"].gather(1, moved), values.gather(1, moved)
        mask = places < (blocks >= 0).sum(dim=1, keepdim=True)
        a, b = inputs["left"][:, 0], inputs["right"][:, 0]
        span = differing_span(ids[a], ids[b], mask[a], mask[b])
        if "compared" in inputs:
            compared = inputs["compared"].gather(1, moved) & mask
            span &= compared[a] | compared[b]
        left, right = values[a], values[b]
        target = inputs["targets"].nanmean(dim=-1)
        compare = TOKENWISE[self.loss]
        loss = target * compare(left, right, span) + (1 - target) * compare(right, left, span)
        return (loss * inputs["weight"]).sum()

    def _list_loss(self, scores: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """Sum over groups of the list loss, averaged over tasks that have a label."""
        cells, labels = inputs["cells"], inputs["labels"].movedim(-1, 0)
        values = scores[cells[..., 0], cells[..., 1]].movedim(-1, 0)
        present = ~labels.isnan()
        tasks = zip(values, labels.nan_to_num(), present, strict=True)
        losses = torch.stack([LISTWISE[self.loss](*task) for task in tasks])
        known = present.any(dim=-1)
        return ((losses * known).sum(dim=0) / known.sum(dim=0).clamp(min=1)).sum()

    def _point_loss(self, scores: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """Mean over the labelled answers of the batch, times its groups, so that it sums like the others."""
        cells, labels = inputs["cells"], inputs["labels"]
        values = scores[cells[..., 0], cells[..., 1]]
        answers = ~labels.isnan().all(dim=-1)
        values, labels = values[answers], labels[answers]
        options: dict[str, Any] = {}
        if self.loss == "cross_entropy":
            labels = (labels[:, 0] >= self.config.accept_threshold).long()
            weights = torch.tensor(self.config.class_weights) if self.config.class_weights else None
            options = {"class_weights": weights, "label_smoothing_factor": self.config.label_smoothing_factor}
        elif self.loss == "huber":
            options = {"delta": self.config.huber_delta}
        if not len(labels):
            return scores.sum() * 0.0
        return POINTWISE[self.loss](values, labels, **options).mean() * inputs["counted"]

    def _maybe_log_save_evaluate(
        self, tr_loss: Tensor, grad_norm: Any, model: nn.Module, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        """What follows a step; after a signal only a checkpoint of this step.

        Raises:
            TrainingStopped: the signal came, and the checkpoint is on disk.
        """
        number = self.stop.agreed(self.args.device)
        if number is None:
            with suppress(AbandonedError):  # the evaluation's figures are not needed any more
                super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
            number = self.stop.agreed(self.args.device)
        if number is not None:
            if self._saved_step != self.state.global_step:
                self._save_checkpoint(model, trial)
            raise TrainingStopped(number, self.state.global_step, self.state.max_steps, self._final_of_step())

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write the checkpoint beside its place and rename it: a kill within the write leaves no half one."""
        final = self._final_of_step()
        self._draft = atomic.draft_of(final)
        if self.args.should_save:
            shutil.rmtree(self._draft, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)
        finally:
            draft, self._draft = self._draft / final.name, None
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(final)
        self.accelerator.wait_for_everyone()  # every process has written its random states
        if self.args.should_save:
            self.state.save_to_json(str(draft / TRAINER_STATE_NAME))
            atomic.replace_folder(draft, final)
            draft.parent.rmdir()
            limit, best = self.args.save_total_limit, self.state.best_model_checkpoint
            rotate_checkpoints(self.args.output_dir, limit, best, use_mtime=True)
        self.accelerator.wait_for_everyone()
        self._saved_step = self.state.global_step

    def _final_of_step(self) -> Path:
        return Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"

    def _get_output_dir(self, trial: Any) -> str:
        """Where checkpoints go: the draft's folder while one is written."""
        folder: str = super()._get_output_dir(trial)
        return folder if self._draft is None else str(self._draft)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with decay only on matrices and ``head_lr_multiplier`` on the head."""
        target = self.model if model is None else model
        decayed = set(self.get_decay_parameter_names(target))
        rates = {False: self.args.learning_rate, True: self.args.learning_rate * self.config.head_lr_multiplier}
        groups = [
            {
                "params": [
                    p
                    for n, p in target.named_parameters()
                    if p.requires_grad and (n in decayed) == decay and bool(set(n.split(".")) & set(NEW_HEADS)) == head
                ],
                "weight_decay": self.args.weight_decay if decay else 0.0,
                "lr": rates[head],
            }
            for head in (False, True)
            for decay in (True, False)
        ]
        cls, options = self.get_optimizer_cls_and_kwargs(self.args, target)
        optimizer: torch.optim.Optimizer = cls([group for group in groups if group["params"]], **options)
        self.optimizer = optimizer
        return optimizer

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Score the validation groups in fp32 by the path that serves the model; logs accuracy, loss and margin."""
        results: list[GroupScores] = []
        size = SLICE * self.accelerator.num_processes
        with self.stop.abandonable():
            for start in range(0, len(self.validation), size):
                results += self.score([p.group for p in self.validation[start : start + size]])
                number = self.stop.agreed(self.args.device)
                if number is not None:
                    raise AbandonedError(number)
        summary = pairwise_summary(self.validation, results)
        metrics = {
            f"{metric_key_prefix}_accuracy": summary.accuracy.value,
            f"{metric_key_prefix}_loss": summary.log_loss,
            f"{metric_key_prefix}_margin": summary.mean_margin,
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def score(self, groups: Sequence[Group]) -> list[GroupScores]:
        """Scores of ``groups`` by the live model; called in all processes, each returns all results.

        Weights that are whole are used in place and the groups are shared out; sharded ones need every process in every
        forward pass, so all score everything.
        """
        if self.sharded:
            return self.scorer.score(groups)
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        own = self.scorer.score(groups[rank::world])
        parts = [own] if world == 1 else _gathered(own)
        return [parts[i % world][i // world] for i in range(len(groups))]

    @property
    def sharded(self) -> bool:
        """Whether no process holds all weights (FSDP, ZeRO-3)."""
        return (
            bool(self.is_fsdp_enabled)
            or self.accelerator.state.deepspeed_plugin is not None
            and is_deepspeed_zero3_enabled()
        )

    @property
    def scorer(self) -> TorchScorer:
        """The live model as a scorer; of an adapted one the model inside, whose layers carry the adapter."""
        inner = self.model.get_base_model() if self.adapter is not None else self.model
        forward = self.model_wrapped if self.sharded else None
        return TorchScorer(inner, self.tokenizer, max_tokens_per_forward=self.eval_batch_tokens, forward=forward)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the tokenizer and what an adapter needs beside the model: every checkpoint loads on its own."""
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        if self.adapter is not None:
            adapters.complete(self.tokenizer, self.adapter, folder)
        else:
            self.tokenizer.save(folder)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add accuracy and margin of the training comparisons since the last log."""
        if "loss" in logs and self._seen["accuracy"]:
            for name, values in self._seen.items():
                logs[name] = round(sum(values) / len(values), 4)
                values.clear()
        super().log(logs, *args, **kwargs)

    def _note(self, scores: Tensor, inputs: dict[str, Tensor]) -> None:
        """Remember accuracy and margin of the batch's decided comparisons, for the next log."""
        reduce = REDUCTIONS[self.data_collator.layout.output]
        left, right = (reduce(side) for side in _sides(scores, inputs))
        decided = (inputs["targets"].nanmean(dim=-1) - 0.5).sign()
        margin = ((left - right) * decided)[(decided != 0) & (inputs["weight"] > 0)]
        if len(margin):
            self._seen["accuracy"].append(float(((margin > 0) + 0.5 * (margin == 0)).mean()))
            self._seen["margin"].append(float(margin.mean()))


def _gathered(own: list[GroupScores]) -> list[list[GroupScores]]:
    """What every process has, in the order of the processes."""
    parts: list[list[GroupScores]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, own)
    return parts


def _sides(scores: Tensor, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Outputs (comparisons, outputs) of the left and of the right answers."""
    left, right = (scores[inputs[side][:, 0], inputs[side][:, 1]] for side in ("left", "right"))
    return left, right
