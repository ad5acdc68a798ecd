"""Elastic consolidation: parameters that earlier tasks need stay near where those left them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from f3eo.closure.problem import Closure
from f3eo.continual.by_parameter import ByParameter, by_parameter, listed, parameters_of
from f3eo.continual.importance import Importance
from f3eo.optimizer.checks import in_range
from f3eo.optimizer.past import Data, Joined, Past, Present
from f3eo.tensors import wide


class Elastic(Past):
    """Adds ½ λ Σ_k Σ_p Ω_kp (θ_p − θ*_kp)² to the loss, over the tasks k that have ended.

    θ*_k are the parameters where task k ended, Ω_k its importance. The sum is kept as one parabola,
    whose memory does not grow with the tasks: its curvature Ω = Σ_k Ω_k, its lowest point
    θ̄ = Σ_k Ω_k θ*_k / Ω, and what is left there. With a decay γ a new task changes it to
    Ω ← γ Ω + Ω_k with θ̄ = θ*_k (online EWC).

    Beside F3EO its gradient min(λ Ω, 1/lr) (θ − θ̄) joins g at every step; the rule then takes h off
    both. A step of SGD along more than 1/lr would pass θ̄, and along 2/lr diverge. Like everything
    in a step, it leaves a parameter alone that the batch does not reach. In a loop with any
    optimizer add `elastic.penalty(model.parameters())` to the loss, for SGD with `limit=1 / lr`,
    and call `elastic.consolidate(model, closure, data)` after each task.

    Args:
        importance: Ω_k: `Exact()`, `FromSteps()`, `PathIntegral()`, or another `Importance`.
        strength: λ >= 0.
        decay: γ in (0, 1]; default None, the sum over all tasks with anchors of their own.

    Raises:
        TypeError, ValueError: arguments that do not fit; the message names the cure.

    Source: Kirkpatrick et al. 2017 (1612.00796), eq. 3; Schwarz et al. 2018 (1805.06370), section
        2.2, for the decay.
    """

    def __init__(self, importance: Importance, strength: float, decay: float | None = None) -> None:
        if not isinstance(importance, Importance):
            raise TypeError(
                f"Elastic needs an importance: Exact(), FromSteps() or PathIntegral(), received "
                f"{importance!r}"
            )
        self.importance = importance
        self.strength = strength if strength == 0 else in_range("strength", strength, 0, None)
        self.decay = None if decay is None else in_range("decay", decay, 0, 1)
        self._weights = ByParameter()
        self._anchors = ByParameter()
        self._rest = 0.0

    @property
    def reads_squares(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `Past.reads_squares`."""
        return self.importance.reads_squares

    def penalty(self, parameters: Iterable[Tensor], limit: float | None = None) -> Tensor:
        """½ λ Σ_k Σ_p Ω_kp (θ_p − θ*_kp)², a scalar with a graph; 0 before the first task ends.

        With a limit c it is ½ Σ_p min(λ Ω_p, c) (θ_p − θ̄_p)² plus what is left at θ̄. SGD with
        rate lr is stable below lr λ Ω_p = 2 in every p; the sum over tasks grows with them.

        Args:
            parameters: θ; those that are new since the last task ended are free.
            limit: c > 0; 1/lr is what F3EO takes. Default None, the whole curvature.

        Raises:
            ValueError: none of them was there at the end of a task; a limit that is not positive.
        """
        if limit is not None:
            in_range("limit", limit, 0, None)
        own = list(parameters)
        if not self._weights:
            return wide(own[0]).sum() * 0 if own else torch.zeros(())
        terms = [
            (self._curvature(p, limit) * (wide(p) - self._anchors[p]).square()).sum()
            for p in self._known(own)
        ]
        total = torch.stack([t.to(terms[0]) for t in terms]).sum()
        return 0.5 * (total + self.strength * self._rest)

    def _curvature(self, parameter: Tensor, limit: float | None) -> Tensor:
        """min(λ Ω, c) of one that was there when a task ended."""
        curvature = self.strength * self._weights[parameter]
        return curvature if limit is None else curvature.clamp(max=limit)

    def observe(
        self, parameters: Iterable[Tensor], gradients: Sequence[Tensor | None] | None = None
    ) -> None:
        """Tell the importance of a step that comes, in a loop without F3EO.

        Args:
            parameters: θ, before the step.
            gradients: of the task's own loss in each, without the penalty; default .grad.
        """
        own = list(parameters)
        found = [p.grad for p in own] if gradients is None else list(gradients)
        self.importance.observe(own, found)

    @torch.no_grad()
    def join(self, present: Present, joined: Joined) -> Joined:
        """See `Past.join`."""
        self.importance.before(present)
        if not self._weights or not self.strength:
            return joined
        self._known(present.parameters)
        gradient = [
            g if g is None else self._pulled(g, p, sign, rate)
            for g, p, sign, rate in zip(
                joined.gradients.gradient,
                present.parameters,
                present.signs,
                present.rates,
                strict=True,
            )
        ]
        loss = joined.gradients.loss
        loss = loss + self.penalty(present.parameters).to(loss)
        return replace(joined, gradients=replace(joined.gradients, loss=loss, gradient=gradient))

    def _pulled(self, g: Tensor, parameter: Tensor, sign: int, rate: float) -> Tensor:
        """g + min(λ Ω, 1/lr) (θ − θ̄), or less it where the group maximizes."""
        if parameter not in self._weights:
            return g
        curvature = self._curvature(parameter, 1 / rate if rate > 0 else None)
        pull = curvature * (wide(parameter) - self._anchors[parameter])
        return g.add(pull.to(g), alpha=sign)

    def after(self, present: Present) -> None:
        """See `Past.after`."""
        self.importance.after(present)

    @torch.no_grad()
    def consolidate(
        self,
        model: nn.Module | Iterable[Tensor],
        closure: Closure | None = None,
        data: Data | None = None,
    ) -> None:
        """See `Past.consolidate`: measures Ω_k and takes the present parameters as θ*_k.

        Raises:
            ValueError: the importance lacks closure and data, or steps.
        """
        parameters = parameters_of(model)
        measured = self.importance.measure(
            model if isinstance(model, nn.Module) else parameters, closure, data
        )
        for p in parameters:
            old, new = self._weights.get(p), measured.get(p)
            if new is None and (old is None or self.decay is None):
                continue
            now = wide(p.detach()).clone()
            if self.decay is not None:
                decayed = None if old is None else self.decay * old
                self._weights[p], self._anchors[p] = _plus(decayed, new), now
            elif old is None:
                self._weights[p], self._anchors[p] = _plus(new, None), now
            else:
                self._add(p, _plus(new, None), now)

    def _add(self, p: Tensor, new: Tensor, now: Tensor) -> None:
        """Ω_k (θ − θ*_k)² is added: Ω (θ − θ̄)² + Ω_k (θ − θ*_k)² is one parabola and a rest."""
        old, anchor = self._weights[p], self._anchors[p]
        total = old + new
        share = torch.where(total > 0, new / torch.where(total > 0, total, 1), 0)
        self._rest += float((old * share * (now - anchor).square()).sum())
        self._weights[p], self._anchors[p] = total, anchor + share * (now - anchor)

    def _known(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Those of the parameters that were there when a task ended."""
        known = [p for p in parameters if p in self._weights]
        if not known:
            raise ValueError(
                f"none of these {len(parameters)} parameters was there when a task ended: call "
                f"consolidate() and penalty() with the same model (a copy of a model takes a copy "
                f"of both, copy.deepcopy((model, elastic)))"
            )
        return known

    def state_dict(self, parameters: Sequence[Tensor]) -> dict[str, Any]:
        """See `Past.state_dict`."""
        return {
            "importance": self.importance.state_dict(parameters),
            "weights": listed(self._weights, parameters),
            "anchors": listed(self._anchors, parameters),
            "rest": self._rest,
        }

    def load_state_dict(self, state: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
        """See `Past.load_state_dict`."""
        self.importance.load_state_dict(state["importance"], parameters)
        self._weights = by_parameter(state["weights"], parameters)
        self._anchors = by_parameter(state["anchors"], parameters)
        self._rest = state["rest"]


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor:
    """a + b, where None is 0; not both are."""
    if a is None or b is None:
        found = a if b is None else b
        assert found is not None
        return found.clone()
    return a + b
