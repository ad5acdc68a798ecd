"""A learner that is held to parameters of earlier stages by a penalty on top of the loss."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.optim import Optimizer

from f3eo.bench.continual.learners.learner import Batches, Learner
from f3eo.bench.methods import Closure
from f3eo.continual import Elastic


class Regularised(Learner):
    """An optimizer along ∇(L + ½ λ Σ_k Σ_p Ω_kp (θ_p − θ*_kp)²), of curvature 1/lr at most.

    The limit is that of F3EO's own `past=Elastic(…)`. λ is tuned on the first stages and the sum
    grows over all: without a limit runs of 20 stages diverge for this alone.

    Args:
        model: what it trains.
        optimizer: steps along the sum of both gradients.
        elastic: the penalty, with its importance Ω and strength λ.
        samples: of a stage that the importance is measured on when the stage ends, the first of
            its batches; 0 for an importance that comes from the steps.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, elastic: Elastic, samples: int = 0
    ) -> None:
        self.model, self.elastic, self.samples = model, elastic, samples
        self.optimizers = (optimizer,)
        self._parameters = list(model.parameters())

    def step(self, closure: Closure, x: Tensor, y: Tensor) -> Tensor:
        """One step; the loss is that of the batch, without the penalty."""
        self.optimizers[0].zero_grad()
        loss = closure(x, y).mean()
        loss.backward()
        self.elastic.observe(self._parameters)  # a path integral is along this gradient alone
        rate = self.optimizers[0].param_groups[0]["lr"]
        self.elastic.penalty(self._parameters, limit=1 / rate).backward()
        self.optimizers[0].step()
        return loss.detach()

    def end(self, closure: Closure, batches: Batches) -> None:
        """Anchor the parameters, each by its importance for this stage."""
        self.elastic.consolidate(self.model, closure, first(batches, self.samples))


def first(batches: Batches, samples: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The first so many samples, in their batches; the last of these may be a smaller one."""
    left = samples
    for x, y in batches if samples else ():
        yield x[:left], y[:left]
        left -= len(x)
        if left <= 0:
            return
