"""The trainer: transformers' ``Trainer`` with planned token-budget batches, comparison losses and a head rate."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
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
from ranker.checkpoints.adapters import AdapterSettings
from ranker.config import TrainingConfig
from ranker.metrics import answer_labels, pairwise_summary, rmse, spearman
from ranker.models.attention.kernels import attention_kernel, check_kernel
from ranker.models.attention.padding_free import segments_known
from ranker.models.backbones import family
from ranker.models.heads import NEW_HEADS
from ranker.models.torch_scorer import TorchScorer
from ranker.progress import stage
from ranker.records import Group, Preference, Prompt
from ranker.scoring.distinct import hashable
from ranker.scoring.executor import out_of_memory, prefetched
from ranker.scoring.protocol import GroupScores
from ranker.text.tokenizer import TextTokenizer
from ranker.training import losses
from ranker.training.batches import Collator, RunPlan
from ranker.training.budget import TARGETS
from ranker.training.callbacks import SELECTED_BY, SLICE
from ranker.training.groups import Example, Groups
from ranker.training.interrupts import AbandonedError, StopRequest, TrainingStopped
from ranker.training.losses import Loss
from ranker.training.losses.loss import at
from ranker.training.resume import write_checksums

logger = logging.getLogger(__name__)

TIE_BREAK = 1e-7
"""The share of the second figure in the one that chooses the checkpoint: it decides nothing but ties."""

EXAMPLES = "examples"
"""What a batch was collated from, by which it can be cut."""


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
        loss: a loss object instead of the one that ``config`` names.
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
        loss: Loss | None = None,
        adapter: AdapterSettings | None = None,
        stop: StopRequest | None = None,
        eval_batch_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.plan = plan
        self.stop = stop or StopRequest()
        self._saved_step = -1
        self._draft: Path | None = None
        self.validation = list(validation)
        self._eval_order = _by_prompt(self.validation)
        self.tokenizer = tokenizer
        self.config = config
        self.loss = loss or losses.build(config.loss)
        self.adapter = adapter
        self.eval_batch_tokens = eval_batch_tokens
        self._noted: list[Tensor] = []
        self._noted_before = 0
        self._source: Iterator[Any] | None = None
        self._ahead: Iterator[Any] = iter(())
        self._step: list[dict[str, Any]] = []
        self._done = 0
        self._limit: int | None = None
        backbone = (model.get_base_model() if adapter is not None else model).base_model
        check_kernel(config.attention_kernel, args.device.type, family(backbone.config))
        super().__init__(
            model=model,
            args=args,
            train_dataset=groups,
            eval_dataset=self.validation,
            data_collator=Collator(groups.pipeline, config.tokens_per_forward if config.length_buckets else None),
            **kwargs,
        )
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The planned batches, in order."""
        return DataLoader(self.train_dataset, batch_sampler=self.plan, collate_fn=self._collated)

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | None]:
        """The micro-batches of one step and what their loss is divided by."""
        if self._source is not epoch_iterator:
            self._source = epoch_iterator
            ahead = self.config.prefetch_batches
            self._ahead = prefetched(map(self._pinned, epoch_iterator), ahead) if ahead else epoch_iterator
        batches, _ = super().get_batch_samples(self._ahead, num_batches, device)
        self._step, self._done, self._noted_before = batches, 0, len(self._noted)
        total = sum((self.loss.size(batch) for batch in batches), torch.zeros(())).to(device)
        return batches, self.accelerator.gather(total).sum() if batches else None

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One micro-batch, forward and backward; in parts where a whole one ran out of memory.

        A pass that runs out of memory may have left a part of its gradients. So the step is begun again with passes of
        half the size; what its loss is divided by stays the same, and so does its meaning.

        Raises:
            RuntimeError: out of memory with one group of answers, or in one of several processes.
        """
        self._done += 1
        loss = self._tried(model, [inputs], num_items_in_batch)
        while loss is None:
            model.zero_grad(set_to_none=True)
            del self._noted[self._noted_before :]
            if self.args.device.type == "cuda":
                torch.cuda.empty_cache()
            loss = self._tried(model, self._step[: self._done], num_items_in_batch)
        return loss

    def _tried(
        self, model: nn.Module, batches: Sequence[dict[str, Any]], num_items_in_batch: Tensor | int | None
    ) -> Tensor | None:
        """The loss of the last of ``batches`` after all have been computed; None after one ran out of memory."""
        for batch in batches:
            losses_of_parts = []
            for part in self._parts(batch):
                arrays = {name: value for name, value in part.items() if name != EXAMPLES}
                try:
                    free = self.config.padding_free
                    known = segments_known(arrays, self.args.device) if free else nullcontext()
                    with known, attention_kernel(self.config.attention_kernel, self.args.device.type):
                        losses_of_parts.append(super().training_step(model, arrays, num_items_in_batch))
                except (RuntimeError, MemoryError) as error:
                    self._lower_limit(part, error)
                    return None
        return torch.stack(losses_of_parts).sum() if len(losses_of_parts) > 1 else losses_of_parts[0]

    def _parts(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """A batch as it is, or cut into parts of at most ``_limit`` padded tokens, of one group at least."""
        if self._limit is None or batch["input_ids"].numel() <= self._limit or len(batch[EXAMPLES]) == 1:
            return [batch]
        half = len(batch[EXAMPLES]) // 2
        halves = (self._collated(batch[EXAMPLES][:half]), self._collated(batch[EXAMPLES][half:]))
        return [part for one in halves for part in self._parts(one)]

    def _lower_limit(self, part: dict[str, Any], error: Exception) -> None:
        """Halve the size of passes after one ran out of memory.

        Raises:
            RuntimeError: it was another error, or it cannot be helped.
        """
        tokens = part["input_ids"].numel()
        if not out_of_memory(error) or self.accelerator.num_processes > 1 or self.sharded:
            raise error
        if len(part[EXAMPLES]) == 1:
            raise RuntimeError(
                f"out of memory with a single group of {tokens} tokens; set training.activation_checkpointing=true, "
                "lower training.candidates_per_prompt or model.max_length, or train an adapter (lora)"
            ) from error
        self._limit = tokens // 2
        logger.warning(
            "out of memory with %d tokens in a forward pass; the step is computed again with at most %d, and so are "
            "those that follow. training.max_tokens_per_forward=%d avoids the attempt",
            *(tokens, self._limit, self._limit),
        )

    def _collated(self, examples: Sequence[Example]) -> dict[str, Any]:
        return {**self.data_collator(examples), EXAMPLES: tuple(examples)}

    def _pinned(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch whose arrays a GPU can fetch while the host goes on."""
        if self.args.device.type != "cuda":
            return batch
        return {name: value.pin_memory() if isinstance(value, Tensor) else value for name, value in batch.items()}

    def _prepare_input(self, data: Any) -> Any:
        """Move arrays to the device; those in pinned memory without waiting."""
        if isinstance(data, Tensor) and data.is_pinned():
            return data.to(self.args.device, non_blocking=True)
        return super()._prepare_input(data)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The loss of one micro-batch over the size of the whole step, in all processes together."""
        arrays = {name: array for name, array in inputs.items() if name not in TARGETS}
        outputs = model(**arrays, **({"every_token": True} if self.loss.every_token else {}))
        self._note(self.loss.scores(outputs.detach(), inputs), inputs)
        size = self.loss.size(inputs) if num_items_in_batch is None else num_items_in_batch
        size = size / self.accelerator.num_processes  # gradients are averaged over processes
        share: Tensor = self.loss(outputs, inputs) / size
        return share

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
        folder, draft = self._draft, self._draft / final.name
        try:
            with atomic.output_errors(final):
                super()._save_checkpoint(model, trial)
                self._draft = None
                self._finish_checkpoint(draft, final)
        except BaseException:
            if self.args.should_save:
                shutil.rmtree(folder, ignore_errors=True)  # a full disk gets its space back
            raise
        finally:
            self._draft = None
        self._saved_step = self.state.global_step

    def _finish_checkpoint(self, draft: Path, final: Path) -> None:
        """Put a checkpoint that is whole in its place, and remove those that are needed no more."""
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(final)
        self.accelerator.wait_for_everyone()  # every process has written its random states
        if self.args.should_save:
            self.state.save_to_json(str(draft / TRAINER_STATE_NAME))
            write_checksums(draft)
            atomic.replace_folder(draft, final)
            draft.parent.rmdir()
            limit, best = self.args.save_total_limit, self.state.best_model_checkpoint
            rotate_checkpoints(self.args.output_dir, limit, best, use_mtime=True)
        self.accelerator.wait_for_everyone()

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
        with self.stop.abandonable(), stage("validating", len(self.validation)) as whole:
            rows = [self.validation[number] for number in self._eval_order]
            for start in range(0, len(rows), size):
                groups = [p.group for p in rows[start : start + size]]
                with whole.span(len(groups)):
                    results += self.score(groups)
                number = self.stop.agreed(self.args.device)
                if number is not None:
                    raise AbandonedError(number)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in _figures(rows, results).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def score(self, groups: Sequence[Group]) -> list[GroupScores]:
        """Scores of ``groups`` by the live model; called in all processes, each returns all results.

        Weights that are whole are used in place and the groups are shared out, neighbours to one process; sharded ones
        need every process in every forward pass, so all score everything.
        """
        if self.sharded:
            return self.scorer.score(groups)
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        share = -(-len(groups) // world)
        results = self.scorer.score(groups[rank * share : (rank + 1) * share])
        return results if world == 1 else [result for part in _gathered(results) for result in part]

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
        folder = Path(output_dir or self.args.output_dir)
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        if self.adapter is not None:
            adapters.complete(self.tokenizer, self.adapter, folder)
        else:
            self.tokenizer.save(folder)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add accuracy and margin of the training comparisons since the last log."""
        if "loss" in logs and self._noted:
            right, margin, count = torch.stack(self._noted).sum(dim=0).tolist()
            self._noted.clear()
            if count:
                logs |= {"accuracy": round(right / count, 4), "margin": round(margin / count, 4)}
        super().log(logs, *args, **kwargs)

    def _note(self, scores: Tensor, inputs: dict[str, Tensor]) -> None:
        """Remember sums of the batch's decided comparisons for the next log: right ones, margins, and their number.

        They stay on the device: reading them here would make every pass wait for it.
        """
        reduce = self.data_collator.layout.reduce
        left, right = (reduce(at(scores, inputs[side])) for side in ("left", "right"))
        decided = (inputs["targets"].nanmean(dim=-1) - 0.5).sign().nan_to_num()
        counted = (decided != 0) & (inputs["weight"] > 0)
        margin = torch.where(counted, (left - right) * decided, 0.0)
        correct = torch.where(counted, (margin > 0) + 0.5 * (margin == 0), 0.0)
        self._noted.append(torch.stack([correct.sum(), margin.sum(), counted.sum()]))


def _figures(rows: Sequence[Preference], results: Sequence[GroupScores]) -> dict[str, float]:
    """Figures of the validation rows, and the one that chooses the checkpoint.

    The best checkpoint has the best accuracy, of equals the least log-loss; where the rows hold no comparison, the best
    Spearman correlation of score and label, of equals the least RMSE.
    """
    summary = pairwise_summary(rows, results)
    if summary.accuracy.n:
        chooses = summary.accuracy.value - TIE_BREAK * min(summary.log_loss, 1000.0)
        accuracy = summary.accuracy
        return {
            "accuracy": accuracy.value,
            "accuracy_low": accuracy.low,
            "accuracy_high": accuracy.high,
            "log_loss": summary.log_loss,
            "margin": summary.mean_margin,
            SELECTED_BY: chooses,
        }
    scores, labels, _ = answer_labels(rows, results)
    correlation, error = spearman(scores, labels), rmse(scores, labels)
    chooses = (correlation if correlation == correlation else -1.0) - TIE_BREAK * min(error, 1000.0)
    return {"spearman": correlation, "rmse": error, SELECTED_BY: chooses}


def _by_prompt(rows: Sequence[Preference]) -> list[int]:
    """The numbers of the rows, those of a prompt together: rows that are scored together share their answers."""
    first: dict[Prompt, int] = {}
    return sorted(
        range(len(rows)), key=lambda number: (first.setdefault(hashable(rows[number].prompt), number), number)
    )


def _gathered(results: list[GroupScores]) -> list[list[GroupScores]]:
    """What every process has, in the order of the processes."""
    parts: list[list[GroupScores]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, results)
    return parts
