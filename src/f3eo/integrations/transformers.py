"""F3EO in the Trainer of Hugging Face transformers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import Trainer, TrainingArguments

from f3eo.integrations.sample_losses import sample_losses, shifts_labels
from f3eo.integrations.trainer_checkpoints import last_checkpoint
from f3eo.optimizer import F3EO
from f3eo.strength import Fixed

if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


@dataclass
class F3EOArguments(TrainingArguments):
    """`TrainingArguments` with those of F3EO, for scripts and for `HfArgumentParser`.

    Args:
        f3eo_strength: a fixed λ, `Fixed(λ)`; default F3EO's own.
        f3eo_fraction, f3eo_every, f3eo_chunk: see `F3EO`.
    """

    f3eo_strength: float | None = field(
        default=None, metadata={"help": "A fixed strength of the structure term."}
    )
    f3eo_fraction: float | None = field(
        default=None, metadata={"help": "Part of each batch on which h is measured."}
    )
    f3eo_every: int = field(
        default=5, metadata={"help": "Steps from one measurement of h to the next."}
    )
    f3eo_chunk: int | None = field(
        default=None, metadata={"help": "Largest number of samples in the model at once."}
    )


class F3EOMixin(_Base):
    """Before `Trainer`, or a kind of it, among the bases: it trains with F3EO.

    The base optimizer is the one of `TrainingArguments` (`optim`, `learning_rate`, …), or that of
    `optimizers=`, which may be an `F3EO` already. The loss is the mean over samples, or over kept
    tokens (labels that are not −100), of all micro-batches of a step: that of one large batch.
    Clipping (`max_grad_norm`), schedulers, gradient checkpointing, logs and checkpoints are the
    Trainer's; it logs the mean of the micro-batches' losses.

    Losses are those of the model's head for classification, regression and language; for others
    give `compute_loss_func(outputs, labels, num_items_in_batch)` that returns one loss a sample,
    or `Weighted(losses, weights)`.

    Raises:
        ValueError: several GPUs in one process, DeepSpeed, FSDP, or a schedule-free base.
    """

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any):
        """Train; `resume_from_checkpoint=True` takes the newest checkpoint that is whole."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(cast(str, self.args.output_dir)) or True
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Optimizer:
        """The Trainer's own optimizer, as the base of an F3EO."""
        made = super().create_optimizer(*args, **kwargs)
        own = _unwrapped(made)
        _check(self, own.base if isinstance(own, F3EO) else own)
        if self.accelerator.scaler is not None:  # of fp16: F3EO scales by itself
            self.accelerator.scaler = torch.amp.GradScaler(enabled=False)
        if not isinstance(own, F3EO):
            made = F3EO(cast(nn.Module, self.model), made, **_options(self.args))
        self.optimizer = made
        return made

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Measure a micro-batch; its share in the mean loss of the step, detached."""
        model.train()
        inputs = self._prepare_inputs(inputs)

        def closure(batch: dict[str, Any]) -> Any:
            with self.compute_loss_context_manager():
                return self.sample_losses(model, batch)

        loss = _unwrapped(self.optimizer).accumulate(closure, dict(inputs))
        return loss / self.current_gradient_accumulation_steps

    def sample_losses(self, model: nn.Module, inputs: Mapping[str, Any]) -> Any:
        """Losses of the samples, as a closure of `F3EO.step` returns them.

        Args:
            model: in training mode.
            inputs: of a micro-batch or of a part of it.
        """
        inputs = dict(inputs)
        head = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        if self.compute_loss_func is not None:
            labels = inputs.pop("labels", None)
            return self.compute_loss_func(model(**inputs), labels, num_items_in_batch=None)
        shifted = self._loss_shifts_labels or shifts_labels(head)
        smoothing = self.args.label_smoothing_factor
        return sample_losses(model, head, inputs, shifted=shifted, smoothing=smoothing)


class F3EOTrainer(F3EOMixin, Trainer):
    """`Trainer` with F3EO; for other kinds of trainers see `F3EOMixin`."""


def _unwrapped(optimizer: Any) -> Any:
    """The optimizer from before Accelerate prepared it."""
    return getattr(optimizer, "optimizer", optimizer)


def _options(args: TrainingArguments) -> dict[str, Any]:
    """Arguments of F3EO; none from plain `TrainingArguments`."""
    if not isinstance(args, F3EOArguments):
        return {}
    strength = None if args.f3eo_strength is None else Fixed(args.f3eo_strength)
    parts = {"fraction": args.f3eo_fraction, "every": args.f3eo_every, "chunk": args.f3eo_chunk}
    return {"strength": strength, **parts}


def _check(trainer: Trainer, base: Optimizer) -> None:
    """Refuse what would train on something else, before the first step, and say what is undone."""
    args = trainer.args
    if args.n_gpu > 1:
        raise ValueError(
            f"F3EO does not train through nn.DataParallel on {args.n_gpu} GPUs in one process: "
            f"set CUDA_VISIBLE_DEVICES to one of them"
        )
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        raise ValueError("F3EO does not train through DeepSpeed or the Trainer's FSDP: unset both")
    if hasattr(base, "train") and hasattr(base, "eval"):
        raise ValueError(
            f"{type(base).__name__} wants train() and eval(), which the Trainer calls on F3EO and "
            f'not on its base: use another optim, such as "adamw_torch"'
        )
