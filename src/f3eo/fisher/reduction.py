"""The estimates of one process turned into those of all processes."""

from abc import ABC, abstractmethod

from f3eo.fisher.estimand import Gradients


class Reduction(ABC):
    """Joins the `Gradients` that every process measured on its own part of a batch.

    With W_r = Σ w_i over the samples of process r (`Gradients.weight`) and W = Σ_r W_r:

        L = Σ_r (W_r/W) L_r      ∇L = Σ_r (W_r/W) ∇L_r
        h = Σ_r (W_r/W) h_r      Tr F = Σ_r (W_r/W) Tr F_r      error = max_r error_r

    That is `Gradients.merged` over the processes, and the estimate from the whole batch if
    `Estimator.additive`; all processes must then continue with the same numbers. Norms of samples
    (`Gradients.norms`) are gathered from all processes, or None: those of one fit no other number.
    """

    @abstractmethod
    def reduce(self, gradients: Gradients) -> Gradients:
        """The estimates from the batches of all processes.

        Args:
            gradients: the estimates of this process.
        """


class SingleProcess(Reduction):
    """The default: there is one process, and its estimates are those of all."""

    def reduce(self, gradients: Gradients) -> Gradients:
        """See `Reduction.reduce`; returns `gradients`."""
        return gradients
