"""The parameters of a sharded model: the part that a process keeps, and the whole in a pass.

`fully_shard` keeps a DTensor of every parameter, and gathers the whole of it before a module's
forward and backward pass. The whole is one `nn.Parameter`, the same object in every pass, whose
memory is there only while its module runs. So the recording knows the parameters by identity, as it
does without shards; only its problem has to name the whole ones.

This file alone reads what torch keeps to itself (`FSDPModule._get_fsdp_state`).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils import _pytree as pytree
from torch.utils import checkpoint

from f3eo.closure.problem import Problem
from f3eo.fisher.ghost.recording.roles import ATTRIBUTE

GENERATOR = "_checkpoint_without_reentrant_generator"


class Units:
    """The units of a model, one for each call of `fully_shard`, as a problem sees them.

    Args:
        problem: its model, and its parameters, all of them DTensors.

    Raises:
        ValueError: a model that is not given, or not sharded in this way; with the cure.
        NotImplementedError: shards of another kind; with the cure.
    """

    def __init__(self, problem: Problem) -> None:
        model = problem.model
        if model is None:
            raise ValueError(
                "Sharded() needs the module that fully_shard has sharded: F3EO(model, …), not "
                "F3EO(model.parameters(), …)"
            )
        self._modules = [m for m in model.modules() if isinstance(m, FSDPModule)]
        if not self._modules:
            raise ValueError(
                "Sharded() needs a model that fully_shard has sharded before F3EO(model, …) is "
                "built; leave it out for a model that is whole on every process"
            )
        self._groups = [group for module in self._modules for group in _groups(module)]
        self._parts: dict[int, Any] = {}
        self._owners: dict[int, FSDPModule] = {}
        for module in self._modules:
            for group in _groups(module):
                for part in group.fsdp_params:
                    self._parts[id(part.sharded_param)] = part
                    self._owners[id(part.sharded_param)] = module
        for p in problem.parameters:
            _check_part(self._parts.get(id(p)), p, problem.name(p))
        for group in self._groups:
            _check_group(group)
        self.mesh: Any = problem.parameters[0].device_mesh  # pyright: ignore
        if any(p.device_mesh != self.mesh for p in problem.parameters):  # pyright: ignore
            raise NotImplementedError(
                "parameters are sharded over several meshes: pass one mesh to every fully_shard"
            )
        self._wholes: dict[int, nn.Parameter] = {}
        self._gather_once(problem.parameters)

    @property
    def count(self) -> int:
        """The number of processes that gradients are averaged over."""
        return self.mesh.size()

    def inside(self, problem: Problem) -> Problem:
        """The same problem in the whole parameters, as its closure sees them."""
        wholes = [self.whole(p) for p in problem.parameters]
        names = [problem.name(p) for p in problem.parameters]
        return replace(problem, parameters=wholes, names=names)

    def whole(self, parameter: Tensor) -> nn.Parameter:
        """The whole parameter of a DTensor; its memory is there only while its module runs."""
        return self._wholes[id(parameter)]

    def sums(self, values: Tensor) -> Tensor:
        """Sums over all processes, the same numbers on each."""
        return self._reduced(values, torch.distributed.ReduceOp.SUM)

    def any(self, wanted: bool) -> bool:
        """Whether it is true on any process."""
        value = torch.tensor([float(wanted)], device=self.mesh.device_type)
        return bool(self._reduced(value, torch.distributed.ReduceOp.MAX))

    def refuse_together(self, error: Exception | None) -> None:
        """Raise on every process what was raised on one, so that none waits for it.

        Raises:
            Exception: the error of this process, or a RuntimeError that says another has one.
        """
        if not self.any(error is not None):
            return
        raise (
            error
            if error is not None
            else RuntimeError(
                "another process could not measure its part of the batch: its message says why"
            )
        )

    def _reduced(self, values: Tensor, operation: Any) -> Tensor:
        values = values.clone()
        for dimension in range(self.mesh.ndim):
            group = self.mesh.get_group(dimension)
            torch.distributed.all_reduce(values, operation, group=group)
        return values

    def _gather_once(self, parameters: Sequence[Tensor]) -> None:
        """Learn the whole parameters; torch makes them when a unit is gathered first."""
        for p in parameters:
            part = self._parts[id(p)]
            if not hasattr(part, "_unsharded_param"):
                owner = self._owners[id(p)]
                owner.unshard()
                owner.reshard()
            whole = part._unsharded_param
            whole.requires_grad_(p.requires_grad)  # torch does so when it gathers
            self._wholes[id(p)] = whole

    @contextmanager
    def passes(self, parameters: Sequence[Tensor], *, recorded: bool) -> Iterator[None]:
        """Context of passes: gathering is hidden from modes, and .grad is put back at the end.

        Args:
            parameters: the DTensors.
            recorded: whether the passes are recorded or replayed. They then keep the activations
                of checkpointed parts, which they need anyway.
        """
        before = [(p, p.grad) for p in parameters]
        with ExitStack() as stack:
            for group in self._groups:
                for name in ("pre_forward", "post_forward"):
                    setattr(group, name, _hidden(getattr(group, name)))
                    stack.callback(delattr, group, name)
            for module in self._modules:
                state: Any = module._get_fsdp_state()
                setattr(state, "_lazy_init", _hidden(state._lazy_init))  # noqa: B010
                stack.callback(delattr, state, "_lazy_init")
            if recorded and hasattr(checkpoint, GENERATOR):
                stack.callback(setattr, checkpoint, GENERATOR, getattr(checkpoint, GENERATOR))
                setattr(checkpoint, GENERATOR, _kept)
            for p in parameters:
                p.grad = None
            try:
                yield
            finally:
                for p, g in before:
                    p.grad = g

    @contextmanager
    def gathered(self, wholes: set[int]) -> Iterator[None]:
        """Context in which the units of these whole parameters, by their ids, are gathered."""
        keys = [key for key, whole in self._wholes.items() if id(whole) in wholes]
        owners = {id(owner): owner for owner in map(self._owners.__getitem__, keys)}
        for owner in owners.values():
            owner.unshard()
        try:
            yield
        finally:
            for owner in owners.values():
                owner.reshard()


def _groups(module: Any) -> list[Any]:
    state = module._get_fsdp_state()
    groups = getattr(state, "_fsdp_param_groups", None)
    if groups is None:  # before torch 2.9 a state has one
        groups = [state._fsdp_param_group]
    return [group for group in groups if group is not None]


def _check_part(part: Any, parameter: Tensor, name: str) -> None:
    if part is None:
        raise ValueError(
            f"{name} is not sharded by fully_shard, or was sharded after the optimizer was built: "
            f"call fully_shard on the whole model, root last, and build F3EO(model, …) after it "
            f"(tensor parallel parameters, of parallelize_module, are not trained)"
        )
    if part.is_dtensor:
        raise NotImplementedError(
            f"{name} is tensor parallel (parallelize_module) beside fully_shard, which is not "
            f"trained: use fully_shard alone, with a mesh of one dimension, or of two for copies"
        )
    placements: Any = parameter.placements  # pyright: ignore[reportAttributeAccessIssue]
    if any(p.is_shard() and p.dim != 0 for p in placements):
        raise NotImplementedError(
            f"{name} is sharded along another dimension than the first: leave shard_placement_fn "
            f"out of fully_shard"
        )


def _check_group(group: Any) -> None:
    if not (group.reduce_grads and group.all_reduce_grads):
        raise NotImplementedError(
            "set_requires_gradient_sync(False) leaves gradients to each process: F3EO joins them "
            "at every step; for micro-batches use optimizer.accumulate(closure, *batch)"
        )
    if group.gradient_divide_factor is not None or getattr(
        group, "force_sum_reduction_for_comms", False
    ):
        raise NotImplementedError(
            "set_gradient_divide_factor changes the mean over processes, which F3EO relies on: "
            "leave it out, and weigh samples by Weighted(losses, weights)"
        )


def _hidden(method: Any) -> Any:
    """The method with its torch functions hidden from modes; tensors keep their marks."""

    def run(*args: Any) -> Any:
        with torch._C.DisableTorchFunction():
            result = method(*args)
        if method.__name__ == "pre_forward":
            given = pytree.tree_leaves(args[1:])  # after the module
            for old, new in zip(given, pytree.tree_leaves(result), strict=True):
                if new is not old and (mark := getattr(old, ATTRIBUTE, None)) is not None:
                    setattr(new, ATTRIBUTE, mark)
        return result

    return run


def _kept(*args: Any, **kwargs: Any) -> Iterator[None]:
    """In place of torch's generator behind a checkpoint: the activations are kept."""
    yield
