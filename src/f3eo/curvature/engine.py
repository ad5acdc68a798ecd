"""The interface of everything that multiplies the Hessian of a loss with its own gradient."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from f3eo.decompositions import Decomposed
from f3eo.shown import Shown


class Objective(Protocol):
    """Evaluates scalars with their graph; may be called again and then gives the same function."""

    def __call__(
        self, *, differentiable: bool = True, mode: Decomposed | None = None
    ) -> list[Tensor]:
        """The scalars.

        Args:
            differentiable: whether their graph is differentiated twice.
            mode: around the user's code.
        """
        ...


@dataclass(frozen=True)
class Product:
    """v = Σ w_k ∇f_k and H v with H = Σ w_k ∇²f_k.

    Args:
        values: the scalars f_k, detached.
        gradients: ∇f_k for every k, detached, a tensor per parameter.
        vector: v on the structured parameters.
        product: H v on the structured parameters, detached.
        unit: the coarsest rounding unit in the graph.
        distance: how far the weights were moved for it; 0 where they were not.
        central: whether they were in both directions.
    """

    values: list[Tensor]
    gradients: list[list[Tensor | None]]
    vector: list[Tensor]
    product: list[Tensor]
    unit: float | None = None
    distance: float = 0.0
    central: bool = False


class Engine(Shown, ABC):
    """Computes ½∇‖Σ w_k ∇f_k‖² = H v; the factor 2 of ∇‖v‖² = 2 H v is left out everywhere."""

    differentiable: bool
    """Whether the objectives' graphs are differentiated twice."""

    forwards: float
    """Cost beyond the gradients themselves, in forward passes (a plain gradient costs 3)."""

    @abstractmethod
    def product(
        self,
        objectives: Sequence[Objective],
        weights: Sequence[float],
        parameters: Sequence[Tensor],
        structured: Sequence[bool],
        whole: Objective | None = None,
    ) -> Product:
        """Gradients of all objectives, and H v on the structured parameters.

        Args:
            objectives: each gives one or more scalars f_k.
            weights: w_k, one for every scalar in order.
            parameters: what ∇ is taken for.
            structured: for each parameter, whether it is part of v.
            whole: gives Σ w_k f_k as one scalar, after the objectives have run; nothing if it
                cannot. For engines that need no more of further evaluations.
        """
