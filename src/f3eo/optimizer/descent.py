"""One step, once everything is measured: what the base is given, and what follows its own step."""

from math import isfinite

from torch import Tensor
from torch.optim import Optimizer

from f3eo.direction import InnerProducts, Rule, Update, is_diagonal, metric, products
from f3eo.fisher import Gradients
from f3eo.optimizer.parameters import Trained
from f3eo.strength import Strength
from f3eo.tensors import Vector, fetched, filled, inners, scaled


class Descent:
    """The gradients of one step, in the sign of what is to become smaller.

    Args:
        trained: the parameters they belong to.
        gradients: as measured; a group that maximizes has −∇L.
        stored: directions measured in an earlier step, used where h was not measured; None if not
            wanted.
        factor: on h, as ∇L has had it already; see `Settled`.
    """

    def __init__(
        self,
        trained: Trained,
        gradients: Gradients,
        stored: dict[Tensor, Tensor] | None,
        factor: float = 1.0,
    ) -> None:
        self.trained = trained
        self._factor = factor
        self.chosen = trained.chosen
        pairs = zip(gradients.gradient, trained.signs, strict=True)
        self._uphill = [-g if g is not None and sign < 0 else g for g, sign in pairs]
        self._own = [g for g, s in zip(self._uphill, trained.inside, strict=True) if s]
        self._loss = filled(self._own, self.chosen)
        self.structure = gradients.structure
        self.fresh = gradients.structure is not None
        if self.structure is None and stored is not None and self.chosen:
            # A parameter that the loss does not use in this step stays where it is.
            pairs = zip(self.chosen, self._own, strict=True)
            kept = [None if g is None else stored[p] for p, g in pairs]
            self.structure = filled(kept, self.chosen)
        if self.structure is not None and factor != 1:
            self.structure = scaled(self.structure, factor)
        others = [
            g for g, s in zip(self._uphill, trained.inside, strict=True) if g is not None and not s
        ]
        self.mean, *squares = fetched([gradients.loss, *inners(others, others)])
        self._measured = products(self._loss, self.structure, None)
        self.squared = sum(squares) + sum(p.gg for p in self._measured)

    def not_finite(self) -> str | None:
        """What is not finite, or None."""
        if not isfinite(self.mean):
            return "the loss"
        if not isfinite(self.squared):
            return "the gradient"
        if not isfinite(sum(p.hh for p in self._measured)):
            return "the structure gradient"
        return None

    def step(
        self,
        base: Optimizer,
        rule: Rule,
        strength: Strength,
        value: float,
        *,
        clip: float,
        keep: bool,
    ) -> Vector | None:
        """Write .grad, step the base, and add what stays out of its second moment.

        What this step did not measure has no .grad, and the base leaves it alone.

        Args:
            base: whose groups hold the parameters.
            rule, strength, value: see `Update`.
            clip: factor on all of the update.
            keep: whether a direction that was measured is wanted for later steps.

        Returns:
            That direction, a tensor for each of the chosen; None where nothing is to be kept.
        """
        after = is_diagonal(base) and not rule.replaces_gradient
        kept: Vector | None = None
        joined: dict[int, Tensor] = {}
        if self.structure is not None and not after:
            update = self._update(self._measured, rule, strength, value)
            kept = self._kept(update) if keep and self.fresh else None
            total = update.term() if rule.replaces_gradient else update.total()
            joined = {id(p): t for p, t in zip(self.chosen, total, strict=True)}
        for p in self.trained.others:
            p.grad = None
        columns = zip(self.trained.parameters, self._uphill, self.trained.signs, strict=True)
        for p, g, sign in columns:
            total = None if g is None else joined.get(id(p), g)
            p.grad = total if total is None or clip * sign == 1 else total * (clip * sign)
        base.step()
        if self.structure is not None and after:
            diagonal = metric(base, self.chosen)
            measured = products(self._loss, self.structure, diagonal)
            update = self._update(measured, rule, strength, value)
            kept = self._kept(update) if keep and self.fresh else None
            lrs = [lr for lr, s in zip(self.trained.lrs, self.trained.inside, strict=True) if s]
            rows = zip(self.chosen, self._own, update.term(), diagonal or [], lrs, strict=True)
            for p, g, t, d, lr in rows:
                if g is not None:
                    p.addcmul_(d, t, value=-lr * clip)
        return kept

    def _kept(self, update: Update) -> Vector | None:
        """The direction without the factor, which is this step's own."""
        if self._factor == 1:
            return update.direction
        return scaled(update.direction, 1 / self._factor) if self._factor else None

    def _update(
        self, measured: list[InnerProducts], rule: Rule, strength: Strength, value: float
    ) -> Update:
        assert self.structure is not None
        rates = self.trained.rates
        return Update(self._loss, self.structure, measured, rates, rule, strength, value)
