"""Accuracy and complexity of a trained model."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.instruments.free_energy.laplace import Laplace
from f3eo.instruments.free_energy.posterior import Posterior
from f3eo.instruments.free_energy.prior import Prior
from f3eo.instruments.free_energy.record import Energy
from f3eo.instruments.operator import Operator
from f3eo.instruments.passes import Data


@torch.enable_grad()
def free_energy(
    model: nn.Module | Iterable[Tensor],
    closure: Closure,
    data: Data,
    prior: Prior,
    *,
    posterior: Posterior | None = None,
) -> Energy:
    """F = KL(q‖p) − E_q log p(D|θ) of the posterior q around the parameters as they are.

    log p(D|θ) = −Σ_i w_i ℓ_i, so the losses must be negative log-probabilities in nats, of the data
    the model was fitted to. Where the loss of a sample averages positions it counts as one draw;
    `Categorical(…, per_token=True)` counts every token. N = Σ w_i, the number of samples without
    weights.

    Args:
        model: a module, or its parameters; those that require no gradient do not count. Measured
            in the mode that the model is in, which is left as it was.
        closure: called with the arguments of a batch; returns a likelihood, or per-sample losses
            where the posterior has of="fisher".
        data: batches, such as a DataLoader or `[(x, y)]`.
        prior: `GaussianPrior(precision)` for `Laplace` and `IsotropicNoise`, `LogUniformPrior()`
            or `RelativePrior()` for `MultiplicativeNoise`.
        posterior: default `Laplace()`.

    Returns:
        Both terms, their difference and their errors, in nats per sample and in all.

    Raises:
        TypeError: prior or posterior are none, or do not go together; losses without a likelihood.
        ValueError: see the posterior, `Operator` and `f3eo.instruments.passes`.
        FloatingPointError: losses or gradients are not finite.

    Source: MacKay 1992; Hinton & van Camp 1993.
    """
    posterior = Laplace() if posterior is None else posterior
    if not isinstance(posterior, Posterior):
        raise TypeError(
            f"posterior is Laplace(), IsotropicNoise() or MultiplicativeNoise(), received "
            f"{posterior!r}"
        )
    if not isinstance(prior, posterior.priors):
        names = " or ".join(p.__name__ for p in posterior.priors)
        raise TypeError(f"{type(posterior).__name__} needs a {names}, received {prior!r}")
    return posterior.measure(Operator(model, closure, data, posterior.of), prior)
