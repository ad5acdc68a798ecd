"""Data that is swept twice, and what the second sweep needs of the first."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from f3eo.closure.problem import Closure, Problem
from f3eo.fisher import plain_gradient
from f3eo.instruments.passes import Data, problems
from f3eo.instruments.sums import add, zeros


@dataclass(frozen=True)
class Again:
    """A model, a closure and data, each sweep over them the same (`f3eo.instruments.passes`).

    Args:
        model: a module, or a list of parameters.
        closure: see `problems`.
        data: an iterable that can be started again.
    """

    model: nn.Module | list[Tensor]
    closure: Closure
    data: Data

    @classmethod
    def of(cls, model: nn.Module | Iterable[Tensor], closure: Closure, data: Data) -> "Again":
        """These, with iterators written out as lists."""
        kept = model if isinstance(model, nn.Module) else list(model)
        return cls(kept, closure, list(data) if isinstance(data, Iterator) else data)

    def problems(self) -> Iterator[Problem]:
        """One sweep."""
        return problems(self.model, self.closure, self.data)

    def gradient_sum(self) -> dict[int, Tensor]:
        """Σ_i w_i ∇ℓ_i over all samples, by the id of the parameter, in float64."""
        sums: dict[int, Tensor] = {}
        for problem in self.problems():
            measured = plain_gradient(problem, per_sample=True)
            weight = float(measured.weight)
            for p, g in zip(problem.parameters, measured.gradient, strict=True):
                add(sums.setdefault(id(p), zeros(p)), g, weight)
        return sums
