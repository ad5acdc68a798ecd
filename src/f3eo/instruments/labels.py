"""Which labels a Fisher quantity is taken for: the data's, or the model's own.

Each gives outputs f and cotangents c of a recorded pass whose ‖D Jᵢᵀ cᵢ‖², or (Jᵢᵀ cᵢ)², add up to
the quantity of sample i (`f3eo.fisher.estimand`, quantity).
"""

from collections.abc import Callable, Iterator

from torch import Generator, Tensor

from f3eo.closure.likelihood import Likelihood
from f3eo.fisher.ghost import Ghost

Labels = Callable[[Ghost, Generator | None], Iterator[tuple[Tensor, Tensor | None]]]


def observed(ghost: Ghost, generator: Generator | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Of the data: the empirical Fisher."""
    yield ghost.losses, None


def drawn(ghost: Ghost, generator: Generator | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Drawn once from the model: the true Fisher, without bias."""
    yield _likelihood(ghost).drawn(generator).losses(), None


def exact(ghost: Ghost, generator: Generator | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The true Fisher, summed over the columns of S with S Sᵀ = E_ŷ[∇_f ℓ ∇_f ℓᵀ].

    For `Categorical` column k is √p_k ∇_f ℓ(ŷ = k), so the sum is Σ_k p_k ‖D ∇ℓ_i(ŷ = k)‖².
    """
    likelihood = _likelihood(ghost)
    for unit in likelihood.basis():
        yield likelihood.parameters, likelihood.root(unit)


LABELS: dict[str, Labels] = {"data": observed, "drawn": drawn, "exact": exact}


def labels_named(name: str) -> Labels:
    """The labels of a name.

    Raises:
        ValueError: there are none of it.
    """
    if name not in LABELS:
        raise ValueError(
            f'labels="data" (those of the data), "drawn" (from the model) or "exact" (its mean '
            f"over all labels), received {name!r}"
        )
    return LABELS[name]


def _likelihood(ghost: Ghost) -> Likelihood:
    likelihood = ghost.output.likelihood
    if likelihood is None:
        raise TypeError(
            "labels of the model need its probabilities: the closure must return a likelihood, "
            "Categorical(logits, targets) or Gaussian(mean, targets, std), not losses; or take "
            'labels="data"'
        )
    return likelihood
