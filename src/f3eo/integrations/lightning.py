"""F3EO in the automatic optimisation of Lightning.

The mixin needs neither `lightning` nor `pytorch_lightning` by name, and works with both.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from f3eo.optimizer import F3EO


class _Module:
    """What the mixin asks of the module that it is mixed into."""

    if TYPE_CHECKING:
        losses: Callable[..., Any]
        optimizers: Callable[..., Any]


class F3EOMixin(_Module):
    """Before `LightningModule` among the bases: automatic optimisation with F3EO.

    The module has `losses(batch, batch_idx)` in place of `training_step`: it returns the losses of
    the samples, as a closure of `F3EO.step` does. F3EO calls it more than once a step, with parts
    of the batch, so it logs nothing. `configure_optimizers` gives an `F3EO`.

    Accumulation (`accumulate_grad_batches`), clipping (`gradient_clip_val`), schedulers,
    `global_step`, checkpoints and hooks are Lightning's. The k micro-batches of a step equal the
    one large batch, sample by sample.

    A module that logs its loss overrides `training_step` and calls this one:

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss)
            return loss
    """

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Measure a micro-batch; its mean loss, detached.

        Raises:
            NotImplementedError: no `losses`.
            TypeError: another optimizer than F3EO.
        """
        if not hasattr(self, "losses"):
            raise NotImplementedError(
                f"{type(self).__name__} needs losses(batch, batch_idx), which returns the loss of "
                f'every sample (reduction="none"), in place of training_step'
            )
        optimizer = self.optimizers(use_pl_optimizer=False)
        if not isinstance(optimizer, F3EO):
            raise TypeError(
                f"configure_optimizers of {type(self).__name__} must give one F3EO, received "
                f"{optimizer!r}"
            )
        losses = self.losses
        return optimizer.accumulate(lambda part: losses(part, batch_idx), batch)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Nothing: `training_step` has measured already.

        Raises:
            TypeError: a loss that is to be differentiated, so it has not.
        """
        if loss.requires_grad:
            raise TypeError(
                f"training_step of {type(self).__name__} returned a loss to differentiate: rename "
                f"it to losses and return the loss of every sample; to log, call "
                f"super().training_step(batch, batch_idx), which returns the mean"
            )

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Nothing: a step uses up what it has, and Lightning clears after `training_step`."""

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Run `training_step`, then the hooks before a step, clipping and the step."""
        if optimizer_closure is not None:
            optimizer_closure()
        optimizer.step()
