"""Refusals of what F3EO cannot train correctly, and of bad arguments, each with its cure."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from f3eo.fisher import Estimator


def in_range(
    name: str, value: Any, low: float, high: float | None, *, integer: bool = False
) -> Any:
    """A number in (low, high], or an integer in that range.

    Raises:
        TypeError, ValueError: anything else, with the received value.
    """
    kind = int if integer else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(
            f"{name} must be {'an integer' if integer else 'a number'}, received {value!r}"
        )
    if not value > low or (high is not None and value > high):
        bound = f"in ({low}, {high}]" if high is not None else f"> {low}"
        raise ValueError(f"{name} must be {bound}, received {value!r}")
    return value


def check_part(kind: type, part: Any) -> None:
    """Refuse what is no part of this kind; None stands for the default.

    Raises:
        TypeError: with the received value.
    """
    if part is not None and not isinstance(part, kind):
        raise TypeError(
            f"{kind.__name__.lower()} must be an instance of f3eo.{kind.__name__}, "
            f"received {part!r}; pass an object: PerSample(), Decoupled(), Fitted(0.04)"
        )


def check_fraction(fraction: float | None, estimator: Estimator) -> None:
    """Refuse a part of the batch for an estimator that is no mean over samples.

    Raises:
        ValueError: with the received values.
    """
    if fraction is not None and fraction < 1 and not estimator.additive:
        raise ValueError(
            f"fraction={fraction} needs an estimator that is a mean over samples, received "
            f"{type(estimator).__name__}: use PerSample(), Sign() or ModelSampled()"
        )


def check_closure(closure: Any) -> None:
    """Refuse what cannot be called.

    Raises:
        TypeError: with the received value.
    """
    if not callable(closure):
        raise TypeError(
            f"the closure must be a function that returns per-sample losses, received "
            f"{closure!r}; the batch follows it: step(closure, *batch)"
        )


def refuse_lost_micro_batches() -> None:
    """Refuse a step with a closure while Accelerate accumulates.

    Its optimizer hands `step` on at the last of k micro-batches alone: closures of the others are
    never called. Accelerate is not imported for this.

    Raises:
        RuntimeError: with k and the cure.
    """
    module = sys.modules.get("accelerate.state")
    if module is None:
        return
    shared = getattr(module.GradientState, "_shared_state", {})
    count = (shared.get("plugin_kwargs") or {}).get("num_steps", 1)
    if count > 1 and _called_from("accelerate.optimizer"):
        raise RuntimeError(
            f"step(closure) while Accelerate accumulates over {count} micro-batches "
            f"(gradient_accumulation_steps): it calls step for the last one alone, and the others "
            f"would be lost; call backward(optimizer, closure, *batch) of "
            f"f3eo.integrations.accelerate for every one, and optimizer.step() without arguments"
        )


def _called_from(module: str, depth: int = 12) -> bool:
    """Whether one of the callers, this many frames up at most, stands in a module."""
    frame = sys._getframe(1)
    for _ in range(depth):
        frame = frame.f_back if frame is not None else None
        if frame is not None and frame.f_globals.get("__name__") == module:
            return True
    return False


def check_generator(generator: Any) -> None:
    """Refuse what is no source of random numbers.

    Raises:
        TypeError: with the received value.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator or None, received {generator!r}; a seed "
            f"becomes one by torch.Generator().manual_seed(seed)"
        )


def check_group(group: Any, *, sharded: bool = False) -> Any:
    """The group itself, if it is one of which this process is a member; None is all processes.

    Args:
        group: of processes.
        sharded: whether the estimator finds its processes by itself.

    Raises:
        TypeError, ValueError: with the received value.
    """
    distributed = torch.distributed
    if group is None or not distributed.is_available():
        return group
    if sharded:
        raise ValueError(
            f"Sharded() reduces over the mesh that fully_shard was given, received "
            f"processes={group!r}: leave it out"
        )
    if group is distributed.GroupMember.NON_GROUP_MEMBER:
        raise ValueError(
            "this process is no member of the group that was handed over as processes: build the "
            "optimizer on its members alone, or leave processes out for all"
        )
    if not isinstance(group, distributed.ProcessGroup):
        raise TypeError(
            f"processes must be a process group, of torch.distributed.new_group(ranks) or "
            f"mesh.get_group(), or None for all processes, received {group!r}"
        )
    return group


WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel")
"""Wrappers that average gradients over processes, by name."""

CURE = (
    "use F3EO with estimator=Sharded() of f3eo.integrations.fsdp after fully_shard, or train on "
    "one process or with DistributedDataParallel, without parallelize_module or distribute_module"
)
"""For parameters that are spread over processes."""


def check_model(
    model: nn.Module | None, wrappers: Sequence[str] = WRAPPERS[1:], *, sharded: bool = False
) -> None:
    """Refuse wrappers and layers whose gradients would be wrong.

    Args:
        model: the module; None is none.
        wrappers: the names of those that are refused.
        sharded: whether the estimator measures what `fully_shard` has sharded.

    Raises:
        NotImplementedError, ValueError: the wrapper or layer, and what to do instead.
    """
    if model is None:
        return
    kinds = {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
    if "FSDPModule" in kinds and not sharded:
        raise NotImplementedError(
            f"fully_shard has sharded this model, and parameters must be whole here: {CURE}"
        )
    if found := sorted(kinds & set(wrappers)):
        raise NotImplementedError(
            f"with {found[0]} every process would train on its own gradient; hand over the module "
            f"from before it was wrapped (model.module), and train it on one process"
            f"{'' if WRAPPERS[0] in wrappers else f' or with {WRAPPERS[0]}'}"
        )
    for name, module in model.named_modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse:
            raise ValueError(
                f"{name or type(module).__name__} gives sparse gradients, which have no Hessian "
                f"products here: construct it with sparse=False"
            )


def check_alone(groups: list[dict[str, Any]]) -> None:
    """Refuse to step as one of several processes, which would all go ways of their own.

    Raises:
        RuntimeError: the number of processes, or sharded parameters, and what to do instead.
    """
    distributed = torch.distributed
    if not distributed.is_available():
        return
    if distributed.is_initialized() and (count := distributed.get_world_size()) > 1:
        raise RuntimeError(
            f"this optimizer does not average over processes, and this is one of {count}: each "
            f"would train on its own gradient; train on one process (without torchrun or "
            f"init_process_group), or with F3EO"
        )
    check_whole(groups)


def check_whole(groups: list[dict[str, Any]], *, sharded: bool = False) -> None:
    """Refuse parameters that have become DTensors.

    Args:
        groups: of the optimizer.
        sharded: whether DTensors are taken.

    Raises:
        RuntimeError: what to do instead.
    """
    if sharded:
        return
    kinds = {type(p) for group in groups for p in group["params"]}
    if any([_is_sharded(kind) for kind in kinds]):
        raise RuntimeError(f"parameters have become DTensors: {CURE}")


def _is_sharded(kind: type) -> bool:
    """Whether parameters of this class are DTensors."""
    # By name: to import torch.distributed.tensor takes longer than all else here.
    return kind is not nn.Parameter and any(base.__name__ == "DTensor" for base in kind.__mro__)


def check_parameters(
    groups: list[dict[str, Any]], model: nn.Module | None, *, sharded: bool = False
) -> None:
    """Refuse parameters that are complex, sparse, sharded, there twice, or not the model's.

    Args:
        groups: with their parameters.
        model: the module, if known.
        sharded: whether DTensors are taken.

    Raises:
        ValueError: the parameter's place and what to do instead.
    """
    known = {id(p) for p in model.parameters()} if model is not None else None
    seen: set[int] = set()
    for g, group in enumerate(groups):
        if not isinstance(group.get("structure", True), bool):
            raise ValueError(
                f'"structure" of group {g} must be True or False, received {group["structure"]!r}'
            )
        for i, p in enumerate(group["params"]):
            p = p[1] if isinstance(p, tuple) else p
            place = f"parameter {i} of group {g} (shape {tuple(p.shape)})"
            if names := group.get("param_names"):
                place = f"{names[i]}, {place},"
            if not sharded and _is_sharded(type(p)):
                raise ValueError(f"{place} is a DTensor: {CURE}")
            if p.is_complex():
                raise ValueError(
                    f"{place} is complex, for which Tr F is not defined here: store its real and "
                    f"imaginary parts (torch.view_as_real)"
                )
            if p.layout is not torch.strided:
                raise ValueError(f"{place} is sparse: F3EO needs dense parameters (to_dense())")
            if id(p) in seen:
                raise ValueError(
                    f"{place} is there twice and would count twice in Tr F: hand it over once "
                    f"(model.parameters() lists a shared one once)"
                )
            seen.add(id(p))
            if known is not None and id(p) not in known:
                raise ValueError(
                    f"{place} does not belong to the model: pass the module that holds all "
                    f"parameters, or the parameters alone in place of the model"
                )
