"""From gradients to a step: g and h are combined, and the base optimizer steps."""

from dataclasses import dataclass, replace
from math import isfinite

from torch import Tensor
from torch.optim import Optimizer

from f3eo.direction import (
    InnerProducts,
    Rule,
    Update,
    apart,
    combine,
    inner_products,
    is_diagonal,
    metric,
)
from f3eo.optimizer.measured import Measured
from f3eo.optimizer.parameters import Trained
from f3eo.strength import Strength
from f3eo.tensors import Vector, fetched, filled, inners, scaled, squared_norm


@dataclass(frozen=True)
class Descent:
    """The gradients of one step, pointing uphill on what is to become smaller.

    Args:
        trained: P parameters, C of them structured.
        loss: mean loss L; negated where all parameters are maximized, since the closure then
            returns log-likelihoods.
        gradient: g of every parameter, (P,); None where it was not measured.
        own: g of the structured parameters, (C,); None where it was not measured.
        dense: the same with zeros there.
        structure: h of the structured parameters, (C,); None without a structure term.
        finite: whether what has joined from beyond the batch is finite, its gradients in g apart.
        held: further gradients that d is to be orthogonal to, of the structured parameters, (C,).
        products: Euclidean inner products of g and h, (C,).
        squared: ‖g‖² over all parameters.
    """

    trained: Trained
    loss: float
    gradient: list[Tensor | None]
    own: list[Tensor | None]
    dense: list[Tensor]
    structure: Vector | None
    finite: bool
    held: list[list[Tensor]]
    products: list[InnerProducts]
    squared: float

    def not_finite(self) -> str | None:
        """The name of what is not finite, or None."""
        if not isfinite(self.loss):
            return "the loss"
        if not isfinite(self.squared):
            return "the gradient"
        if not self.finite:
            return "what has joined the loss"
        if not isfinite(sum([p.hh for p in self.products])):
            return "the structure gradient"
        return None

    def apart(self, diagonal: Vector | None) -> "Descent":
        """With h less its part along g and all that is held, in the metric of the base.

        Args:
            diagonal: D; None is the identity.
        """
        if self.structure is None or not self.held:
            return self
        along, rates = [self.dense, *self.held], self.trained.rates
        structure = apart(self.structure, along, diagonal, rates)
        products = inner_products(self.dense, structure, None)
        return replace(self, structure=structure, products=products)

    def clipping(self, max_norm: float | None) -> float:
        """Factor that scales g down to this norm, as `clip_grad_norm_`; None is no bound."""
        return 1.0 if max_norm is None else min(1.0, max_norm / (self.squared**0.5 + 1e-6))


def prepare(measured: Measured) -> Descent:
    """Turn g uphill, and measure g and h.

    Args:
        measured: gradients of a batch; a group that maximizes has −g.
    """
    trained, gradients, scale = measured.trained, measured.gradients, measured.change.factor
    gradient, others = gradients.gradient, list[Tensor]()
    if trained.turned:
        pairs = zip(gradient, trained.signs, strict=True)
        gradient = [-g if g is not None and sign < 0 else g for g, sign in pairs]
    own = gradient
    if len(trained.chosen) < len(gradient):
        pairs = list(zip(gradient, trained.structured, strict=True))
        own = [g for g, s in pairs if s]
        others = [g for g, s in pairs if g is not None and not s]
    dense, structure = filled(own, trained.chosen), gradients.structure
    if structure is not None and scale != 1:
        structure = scaled(structure, scale)
    held = _held(measured)
    alone = [gradients.loss] if measured.own is None else [measured.own]
    beyond = [] if measured.own is None else [gradients.loss, *map(squared_norm, held)]
    loss, *rest = fetched([*alone, *beyond, *inners(others, others)])
    beyond, squares = rest[: len(beyond)], rest[len(beyond) :]
    products = inner_products(dense, structure, None)
    upward = all([sign < 0 for sign in trained.signs])
    return Descent(
        trained=trained,
        loss=-loss if upward else loss,
        gradient=gradient,
        own=own,
        dense=dense,
        structure=structure,
        finite=all(map(isfinite, beyond)),
        held=held,
        products=products,
        squared=sum(squares) + sum([p.gg for p in products]),
    )


def descend(
    base: Optimizer,
    found: Descent,
    rule: Rule,
    strength: Strength,
    constant: float,
    *,
    clip: float,
    times: int,
) -> tuple[Update | None, Descent]:
    """Combine g and h in the metric of the base, and let the base step.

    Where D is the identity or unknown, the structure term joins .grad before the step. Where D is a
    known diagonal, the base steps along g alone and the term follows, θ ← θ − lr D λ d: it enters
    no second moment. What this step did not measure has no .grad, and the base leaves it alone.

    Args:
        base: whose groups hold the parameters.
        found: gradients of this step.
        rule: gives d = h − c g.
        strength: gives λ from `constant`.
        constant: of the strength at this step.
        clip: factor on all of the update.
        times: factor on λ, the number of steps that one measurement serves.

    Returns:
        the structure term as it was taken, that factor in λ, or None without one; and the
        gradients, with h off all that is held.
    """
    trained = found.trained
    if found.structure is None:
        _write(found, {}, clip)
        base.step()
        return None, found
    if is_diagonal(base) and not rule.replaces_gradient:
        _write(found, {}, clip)
        base.step()
        diagonal = metric(base, trained.chosen) or []
        found = found.apart(diagonal)
        structure = found.structure or []
        products = inner_products(found.dense, structure, diagonal)
        update = combine(products, trained.rates, rule, strength, constant, found.dense)
        update = replace(update, strength=times * update.strength)
        direction = update.direction(found.dense, structure)
        _add(found, scaled(direction, update.strength), diagonal, clip)
        return update, found
    found = found.apart(None)
    structure = found.structure or []
    update = combine(found.products, trained.rates, rule, strength, constant, found.dense)
    update = replace(update, strength=times * update.strength)
    if rule.replaces_gradient:
        total = scaled(update.direction(found.dense, structure), update.strength)
    else:
        total = update.joined(found.dense, structure)
    _write(found, {id(p): t for p, t in zip(trained.chosen, total, strict=True)}, clip)
    base.step()
    return update, found


def _held(measured: Measured) -> list[list[Tensor]]:
    """What d is to be orthogonal to beside g: uphill, of the structured parameters."""
    trained, found = measured.trained, list[list[Tensor]]()
    for vector in measured.held:
        rows = zip(vector, trained.signs, trained.structured, strict=True)
        own = [-g if g is not None and sign < 0 else g for g, sign, s in rows if s]
        found.append(filled(own, trained.chosen))
    return found


def _write(found: Descent, joined: dict[int, Tensor], clip: float) -> None:
    """Write .grad of every parameter, in the sign of its group.

    Args:
        found: gradients of this step.
        joined: gradient and structure term together, by the id of the parameter.
        clip: factor.
    """
    trained = found.trained
    for p in trained.frozen:
        p.grad = None
    for p, g, sign in zip(trained.parameters, found.gradient, trained.signs, strict=True):
        total = None if g is None else joined.get(id(p), g)
        p.grad = total if total is None or clip * sign == 1 else total * (clip * sign)


def _add(found: Descent, term: Vector, diagonal: Vector, clip: float) -> None:
    """θ ← θ − lr D λ d, for parameters that have a gradient."""
    trained = found.trained
    pairs = zip(trained.learning_rates, trained.structured, strict=True)
    rates = [lr for lr, s in pairs if s]
    for p, g, t, d, lr in zip(trained.chosen, found.own, term, diagonal, rates, strict=True):
        if g is not None:
            p.addcmul_(d, t, value=-lr * clip)
