"""The interface of engines: Hessian-vector products along the gradient of the same function."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from f3eo.decompositions import Decomposed
from f3eo.shown import Shown


class Objective(Protocol):
    """Evaluates scalars with their graph; a further call evaluates the same function again."""

    def __call__(
        self, *, differentiable: bool = True, mode: Decomposed | None = None
    ) -> list[Tensor]:
        """Evaluate the scalars f_k.

        Args:
            differentiable: whether their gradients are differentiated again.
            mode: context manager around the user's code.
        """
        ...


@dataclass(frozen=True)
class Product:
    """v = Σ c_k ∇f_k and H v with H = Σ c_k ∇²f_k.

    Args:
        values: the scalars f_k, detached.
        gradients: ∇f_k for every k, detached, a tensor per parameter.
        vector: v, a tensor per structured parameter, detached.
        product: H v, a tensor per structured parameter, detached.
        unit: the coarsest rounding unit in the graph; None if the engine does not report it.
        distance: ‖Δθ‖ of the difference; 0 without one.
        central: whether the difference is central.
    """

    values: list[Tensor]
    gradients: list[list[Tensor | None]]
    vector: list[Tensor]
    product: list[Tensor]
    unit: float | None = None
    distance: float = 0.0
    central: bool = False


class Engine(Shown, ABC):
    """Computes H v for v = Σ c_k ∇f_k, which is ½∇‖v‖² (`f3eo.fisher.estimand`)."""

    differentiable: bool
    """Whether the gradients of the objectives are differentiated again."""

    forwards: float
    """Cost beyond the gradients themselves, in forward passes (a plain gradient costs 3)."""

    @abstractmethod
    def product(
        self,
        objectives: Sequence[Objective],
        coefficients: Sequence[float],
        parameters: Sequence[Tensor],
        structured: Sequence[bool],
        whole: Objective | None = None,
    ) -> Product:
        """Compute the gradients of all objectives, and H v on the structured parameters.

        Args:
            objectives: each evaluates one or more scalars f_k.
            coefficients: c_k, one for every scalar in order.
            parameters: θ, what ∇ is taken for.
            structured: for each parameter, whether it is part of v.
            whole: evaluates Σ c_k f_k as one scalar, or [] if it cannot; called after the
                objectives. An engine may use it for evaluations beyond the first.
        """
