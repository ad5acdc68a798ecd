"""Roles of tensors in a recorded pass: samples, parameters, or constants."""

from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from f3eo.closure.problem import Problem
from f3eo.decompositions.mode import flat


class Role(Enum):
    """Role of a tensor that derives from no parameter."""

    SAMPLES = 1
    CONSTANT = 2


Sources = frozenset[int]
"""Role of a parameter or of a tensor computed from parameters alone: ids of these leaves."""

ATTRIBUTE = "_f3eo_role"


class Mark(NamedTuple):
    """Attribute of a tensor in a recorded pass.

    Args:
        owner: what identifies the pass.
        role: the tensor's role.
        order: (B,), which sample stands at each place, if not in the batch's own order.
        repeated: whether dimension 0 repeats a constant once for every sample.
    """

    owner: object
    role: Role | Sources = Role.CONSTANT
    order: Tensor | None = None
    repeated: bool = False


UNMARKED = Mark(None)


class InputRoles(NamedTuple):
    """Roles of the tensors of one call.

    Args:
        each: role of every tensor.
        samples: whether any of them carries samples.
        sources: leaves that they derive from together.
    """

    each: list[Role | Sources]
    samples: bool
    sources: Sources


class Roles:
    """Roles of all tensors of one forward pass.

    Args:
        problem: its parameters are the leaves, its batch carries samples. If there is no batch,
            every tensor from outside the forward pass that is no buffer of the model counts as
            carrying samples.
    """

    def __init__(self, problem: Problem) -> None:
        model = problem.model
        self._leaves = {id(p): frozenset([id(p)]) for p in problem.parameters if p.requires_grad}
        self._owner = object()  # not self: marks of tensors that outlive the pass would hold it
        self._given = [t for t in problem.tensors if t.ndim]
        self.samples = problem.size
        """B; None until the pass meets a tensor that carries samples."""
        self._constants: set[int] = set()
        if model is not None and not self._given:
            self._constants = {id(t) for t in (*model.buffers(), *model.parameters())}

    def mark_batch(self) -> None:
        """Mark the tensors of the batch as samples.

        Raises:
            ValueError: a tensor that is not dense.
        """
        for tensor in self._given:
            if tensor.layout is not torch.strided:
                raise ValueError(
                    f"the batch holds a tensor of shape {tuple(tensor.shape)} and layout "
                    f"{tensor.layout}: per-sample gradients need dense ones (to_dense()), or use "
                    f"estimator=Sign()"
                )
        for tensor in self._given:
            self.mark(tensor, Role.SAMPLES)

    def unmark_batch(self) -> None:
        """Remove the marks of the batch, whose tensors outlive the pass."""
        for tensor in self._given:
            vars(tensor).pop(ATTRIBUTE, None)

    def of(self, tensors: Sequence[Tensor]) -> InputRoles:
        """Roles of the tensors of a call."""
        each: list[Role | Sources] = []
        samples, sources = False, frozenset()
        for tensor in tensors:
            role = self._of(tensor)
            each.append(role)
            if role is Role.SAMPLES:
                samples = True
            elif role is not Role.CONSTANT:
                sources = sources | role if sources else role
        return InputRoles(each, samples, sources)

    def _of(self, tensor: Tensor) -> Role | Sources:
        if (leaf := self._leaves.get(id(tensor))) is not None:
            return leaf
        mark = getattr(tensor, ATTRIBUTE, UNMARKED)
        if mark.owner is self._owner:
            return mark.role
        # An unmarked tensor with a graph comes from an operation that no mode observes, such as
        # torch.jit. It carries samples; if it does not, `verify` misses parameters.
        unobserved = tensor.grad_fn is not None
        if not unobserved and (self._given or tensor.ndim == 0 or id(tensor) in self._constants):
            return Role.CONSTANT
        self.samples = self.samples or (tensor.shape[0] if tensor.ndim else None)
        self.mark(tensor, Role.SAMPLES)
        return Role.SAMPLES

    def order(self, tensor: Tensor) -> Tensor | None:
        """Which sample stands at each place, (B,), if not in the batch's own order."""
        mark = getattr(tensor, ATTRIBUTE, UNMARKED)
        return mark.order if mark.owner is self._owner else None

    def is_repeated(self, tensor: Tensor) -> bool:
        """Whether dimension 0 repeats a constant once for every sample."""
        mark = getattr(tensor, ATTRIBUTE, UNMARKED)
        return mark.repeated and mark.owner is self._owner

    def mark(
        self,
        value: Any,
        role: Role | Sources,
        order: Tensor | None = None,
        repeated: bool = False,
    ) -> None:
        """Mark a tensor, or every tensor in a tuple or list; parameters stay as they are."""
        for tensor in [value] if isinstance(value, Tensor) else flat((value,)):
            if id(tensor) in self._leaves:
                continue
            constant = isinstance(role, frozenset) and not tensor.requires_grad
            own = Role.CONSTANT if constant else role
            setattr(tensor, ATTRIBUTE, Mark(self._owner, own, order, repeated))
